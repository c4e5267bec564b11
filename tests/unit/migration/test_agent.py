# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent called by a watchdog: a session that shows no sign of life is settled, and who holds its lock is ended."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import engine as docker_engine
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent as agent_program
from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import PACKAGE, bring_to, hold_lock, wait_for

MakeSession = Callable[..., Session]


Agent = Callable[..., int]


@pytest.fixture
def agent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The agent's main(), in this process and on this process' own sessions; without an engine."""

    def no_engine(*_arguments: object, **_keywords: object) -> None:
        raise MigrationError("engine_unreachable", "Cannot connect to the Docker engine")

    request.getfixturevalue("host_roots")
    monkeypatch.setattr(docker_engine, "Engine", no_engine)
    return lambda *words: agent_program.main(words)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("settle",), 2),
        (("serve", "x"), 2),
        (("serve", "x", "ping", "more"), 2),
        (("nonsense", "20261123T000001Z-3f9a1c"), 2),
        (("open", "--chek"), 2),
        (("serve", "../../etc", "ping"), 1),
        (("start", "20261123T000001Z-3f9a1c"), 1),
        # Closed while systemd still had the start in its queue.
        (("settle", "20261123T000001Z-3f9a1c"), 0),
    ],
)
def test_what_it_gets_has_to_make_sense(
    words: tuple[str, ...], code: int, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent(*words) == code
    reported = capsys.readouterr()
    assert reported.out == ""
    assert reported.err != ""


def _let_the_lease_end(session: Session) -> None:
    (Path(session.volatile) / "lease").unlink()


def test_a_session_that_is_alive_is_left_alone(
    agent: Agent, make_session: MakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session = bring_to(make_session(), "freezing")
    session.renew()
    assert agent("settle", session.id) == 0
    assert (session.phase, session.decision) == ("freezing", None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_a_session_that_has_ended_is_left_alone(role: str, agent: Agent, make_session: MakeSession) -> None:
    session = bring_to(make_session(role), "closed")
    session.close(keep=True)
    before = Path(session.path("journal")).read_bytes()
    assert agent("settle", session.id) == 0
    assert Path(session.path("journal")).read_bytes() == before


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_what_cannot_be_settled_now_is_tried_again(
    role: str, agent: Agent, make_session: MakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session = bring_to(make_session(role), "prepared" if role == SOURCE else "created")
    _let_the_lease_end(session)
    assert agent("settle", session.id) == 75
    assert "cannot be settled yet: Cannot connect to the Docker engine" in capsys.readouterr().err
    assert session.decision is None, "a word that cannot be kept is not given"
    assert session.lease_left == 0, "an attempt is no sign of life: the next one must not wait for it"


@pytest.fixture
def abandoned(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A frozen session whose lease is over, whatever is done with it."""
    session = bring_to(make_session(), "freezing")
    monkeypatch.setattr(sessions.Session, "lease_left", 0.0)
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.1)
    return session


class Holder:
    """A process that holds a session's lock."""

    def __init__(self, session: Session, roots: dict[str, str], *, alive: bool = True) -> None:
        self.pid = hold_lock(session.id, roots, alive=alive)
        self._status: int | None = None

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.ended_by() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def ended_by(self) -> int | None:
        """The signal, None as long as it lives."""
        if self._status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.WTERMSIG(status) if found else None
        return self._status


def test_a_session_that_somebody_settles_is_tried_again(
    agent: Agent, abandoned: Session, roots: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A person's recover.yml shows no signs of life, and is not to be ended for that."""
    with Holder(abandoned, roots, alive=False) as holder:
        assert agent("settle", abandoned.id) == 75
        assert "is at work on this host" in capsys.readouterr().err
        assert holder.ended_by() is None
    assert abandoned.decision is None


@pytest.mark.parametrize("kind", ["silent step", "stopped step", "stopped settler"])
def test_who_holds_the_lock_and_shows_no_sign_of_life_is_ended(
    kind: str, agent: Agent, abandoned: Session, roots: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Holder(abandoned, roots, alive="step" in kind) as holder:
        if "stopped" in kind:
            os.kill(holder.pid, signal.SIGSTOP)
        assert agent("settle", abandoned.id) == 75
        # As far as one gets without an engine.
        assert "cannot be settled yet: Cannot connect to the Docker engine" in capsys.readouterr().err
        wait_for(holder.ended_by, "it has ended")
        assert holder.ended_by() == signal.SIGKILL


def test_a_step_that_does_not_come_back_from_the_kernel_is_ended(
    make_session: MakeSession, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has something frozen, and waits for a network file system. Its thread goes on to renew the lease."""
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(sessions, "_STILL_SECONDS", 1.0)
    session = bring_to(make_session(), "freezing")
    child = hold_lock(session.id, roots, frozen=True)
    began = time.monotonic()
    wait_for(session.end_holder, "it is ended", 15)
    assert time.monotonic() - began > 1, "it had its time"
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_step_that_is_only_slow_to_say_that_it_is_alive_is_left_alone(
    abandoned: Session, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Holder(abandoned, roots) as holder:
        answers = itertools.chain([0.0, 0.0, 0.0], itertools.repeat(5.0))
        monkeypatch.setattr(sessions.Session, "lease_left", property(lambda _self: next(answers)))
        assert not abandoned.end_holder()
        assert holder.ended_by() is None


def test_nobody_else_is_ended(abandoned: Session, roots: dict[str, str]) -> None:
    """A number in the note that is another's by now, a holder that is not of the note, no holder, no note."""
    note = Path(abandoned.volatile) / "holder"
    assert not abandoned.end_holder()
    with Holder(abandoned, roots) as holder, subprocess.Popen(["sleep", "60"]) as stranger:
        printed = note.read_text()
        pid, started, kind = printed.split()
        other = Path(f"/proc/{stranger.pid}/stat").read_text().split()[21]
        for wrong in ("", "x y z", f"{stranger.pid} {other} {kind}", f"{pid} {int(started) + 1} {kind}"):
            note.write_text(wrong)
            assert not abandoned.end_holder()
        assert (holder.ended_by(), stranger.poll()) == (None, None)
        stranger.kill()
        note.write_text(printed)
        assert abandoned.end_holder()


def test_a_session_that_came_back_to_life_while_its_lock_was_waited_for_is_left_alone(
    agent: Agent, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bring_to(make_session(), "freezing")
    answers = iter([0.0, 5.0])
    monkeypatch.setattr(sessions.Session, "lease_left", property(lambda _self: next(answers)))
    assert agent("settle", session.id) == 0
    assert session.decision is None


def test_when_the_session_is_closed_nothing_has_to_be_loaded_any_more(
    agent: Agent, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent's file goes with the session that it has settled."""
    session = bring_to(make_session(), "prepared")
    _let_the_lease_end(session)

    class Gone:
        def find_spec(self, name: str, *_arguments: object) -> None:
            if name.startswith(PACKAGE):
                raise FileNotFoundError(f"{name} was loaded after the end")

    def settle(_session: Session) -> str:
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}._session.stories")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
        return "ABORT"

    monkeypatch.setattr(agent_program, "_settle", settle)
    assert agent("settle", session.id) == 0
    assert capsys.readouterr().out == f"session {session.id}: ABORT\n"
