# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a session: its word is on the disk before it is heard and stays until it was, and its watchdog goes last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent, destination, recovery, source
from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    ABORT,
    DECISIONS,
    DESTINATION,
    GO_SENT,
    REFUSED,
    RUN,
    SOURCE,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import LEASE_SECONDS, Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper, old_records
from tests.unit.helpers import moved
from tests.unit.helpers.moved import AnyEngine
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to

MakeSession = Callable[..., Session]


@pytest.fixture
def disarmed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Whenever a watchdog is disarmed: the session's phase on the disk, and whether its agent is there still."""
    found: list[tuple[str, bool]] = []

    def disarm(session: str) -> None:
        try:
            there = Session(session)
        except MigrationError as exc:
            found.append((exc.code, False))
        else:
            found.append((there.phase, os.path.exists(there.path("agent.pyz"))))

    monkeypatch.setattr(watchdog, "disarm", disarm)
    return found


# -- on the disk before it is heard ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_who_reads_a_decision_has_it_on_the_disk_whoever_wrote_it(
    role: str, make_session: MakeSession, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """link() shows it to all processes before the one that decided has flushed it."""
    session = make_session(role)
    written = Path(session.path("word"))
    written.write_text(DECISIONS[role][0] + "\n")
    os.link(written, session.path("decision"))
    flushed: list[int] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        fsync(fd)
        flushed.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    reader = Session(session.id, **roots)
    directory = os.stat(session.directory).st_ino
    assert reader.decision == DECISIONS[role][0]
    assert flushed == [directory]
    assert reader.decision == DECISIONS[role][0]
    assert flushed == [directory], "once is enough"


def test_a_decision_that_is_not_written_costs_nothing(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session()
    monkeypatch.setattr(os, "fsync", lambda _fd: pytest.fail("nothing is to be flushed"))
    assert session.decision is None


# -- the watchdog goes last ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host_roots")
def test_the_watchdog_of_a_source_goes_when_all_else_is_done(
    make_session: MakeSession, disarmed: list[tuple[str, bool]]
) -> None:
    session = bring_to(make_session(), "aborted")
    source.close(session)
    assert disarmed == [("closed", False)]


@pytest.mark.usefixtures("host_roots")
@pytest.mark.parametrize(("word", "left"), [(RUN, "closed"), (REFUSED, "session_unknown")])
def test_the_watchdog_of_a_destination_goes_when_all_else_is_done(
    word: str, left: str, make_session: MakeSession, disarmed: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(DESTINATION)
    session.decide(word)
    bring_to(session, "run" if word == RUN else "refused")
    monkeypatch.setattr(channel_server, "revoke", lambda _session: None)
    destination.close(session)
    assert disarmed == [(left, False)]


@pytest.mark.usefixtures("disarmed")
@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_a_closing_that_is_cut_off_leaves_the_watchdog_all_it_needs(
    role: str, make_session: MakeSession, host_roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the record is closed the agent, the lease and the lock are there; what is left then is finished by the agent."""

    class CutOff(BaseException):
        pass

    def cut_off(*_words: object) -> None:
        raise CutOff

    session = make_session(role)
    session.decide(ABORT if role == SOURCE else RUN)
    bring_to(session, "aborted" if role == SOURCE else "run")
    with session.locked():
        Path(session.path("agent.pyz")).write_text("")
        Path(session.path("key")).write_text("secret")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "release_claim", cut_off)
            with pytest.raises(CutOff):
                session.close(keep=True)
        assert not os.path.exists(session.path("key"))
        assert os.path.exists(session.path("agent.pyz"))
        assert session.lease_left > 0
        assert os.path.exists(session.path("lock"))
        Path(session.volatile, "lease").write_text("another boot 0")
        # Cut off behind the note.
        session.enter("closed", keep=True)
    done: list[str] = []
    monkeypatch.setattr(watchdog, "disarm", done.append)
    assert agent.main(["settle", session.id]) == 0
    assert sorted(os.listdir(session.directory)) == ["decision", "journal", "session.json"]
    assert os.listdir(host_roots["volatile_root"]) == []
    assert done == [session.id]


def test_what_is_left_of_a_session_that_is_gone_is_taken_away_by_its_agent(
    make_session: MakeSession, host_roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(watchdog, "disarm", done.append)
    session = bring_to(make_session(DESTINATION), "refused")
    os.unlink(session.path("session.json"))
    # On the roots of this test.
    remains: Any = sessions.remove_remains
    for name, value in host_roots.items():
        monkeypatch.setitem(remains.__kwdefaults__, name, value)
    assert agent.main(["settle", session.id]) == 0
    assert not os.path.exists(session.directory)
    assert not os.path.exists(session.volatile)
    assert done == [session.id]


# -- heard -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(make_session: MakeSession, host_roots: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Session:  # noqa: ARG001
    """A destination that has refused what its source handed over, a day ago."""
    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    monkeypatch.setattr(channel_server, "revoke", lambda _session: None)
    monkeypatch.setattr(destination, "refuse", lambda copy, _reason: copy.session.decide(REFUSED))
    session = make_session(DESTINATION, engine="runtime")
    bring_to(session, "created")
    session.decide(REFUSED)
    session.enter("refused", reason="nobody finished it")
    session.facts["opened"] = time.time() - channel_server.KEY_LIFE_SECONDS - 1
    return session


def test_a_refusal_stays_until_the_source_knows_it(refused: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert destination.settle(moved.copy(refused)) == REFUSED
    assert refused.ended
    assert session_stories.story(refused).endswith("which may not know that yet (recover.yml, for both hosts)")
    # It is told for as long as that takes, and no tidying takes it away.
    assert recovery.decide(refused.id) == {"session": refused.id, "decision": REFUSED}
    assert session_stories.stories()[0]["unknown_to_source"] is True

    class Engine(AnyEngine):
        def containers(self) -> list[dict[str, Any]]:
            return []

    monkeypatch.setattr(keeper, "Engine", Engine)
    monkeypatch.setattr(old_records, "prune", lambda _engine: None)
    assert recovery.clean(session=None, name=None, check_mode=False)["changed"] is False
    assert old_records.needed([refused], (), lambda _name: False) == [refused]
    settle: dict[str, Any] = {
        "name": None,
        "role": DESTINATION,
        "wait": 0.0,
        "ignore_lease": True,
        "destination_lost": None,
    }
    recovery.settle(session=refused.id, other_half_settled=False, check_mode=False, **settle)
    assert os.path.exists(refused.directory)
    recovery.settle(session=refused.id, other_half_settled=True, check_mode=False, **settle)
    assert not os.path.exists(refused.directory)


def test_a_person_who_names_it_can_remove_it(refused: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    destination.settle(moved.copy(refused))
    monkeypatch.setattr(keeper, "Engine", AnyEngine)
    monkeypatch.setattr(old_records, "prune", lambda _engine: None)
    assert recovery.clean(session=refused.id, name=None, check_mode=False)["changed"] is True
    assert not os.path.exists(refused.directory)


@pytest.mark.usefixtures("host_roots")
def test_that_a_copy_of_a_lost_host_has_to_be_removed_is_reported_until_a_person_names_it(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(engine="runtime")
    bring_to(session, "sent")
    session.decide(GO_SENT)
    session.enter("aborted", destination_lost=True)
    session.close(keep=True)
    monkeypatch.setattr(keeper, "Engine", AnyEngine)
    monkeypatch.setattr(old_records, "prune", lambda _engine: None)
    recovery.clean(session=None, name=None, check_mode=False)
    assert "declared lost" in session_stories.story(Session(session.id))
    recovery.clean(session=session.id, name=None, check_mode=False)
    assert not os.path.exists(session.directory)


def test_one_that_is_known_to_the_source_or_was_never_waited_for_goes_at_once(
    refused: Session, make_session: MakeSession
) -> None:
    assert destination.settle(moved.copy(refused), source_knows=True) == REFUSED
    assert not os.path.exists(refused.directory)
    # Its source was never told that this host is ready.
    early = make_session(DESTINATION, engine="runtime")
    early.decide(REFUSED)
    early.enter("refused", reason="nobody finished it")
    assert destination.settle(moved.copy(early)) == REFUSED
    assert not os.path.exists(early.directory)


@pytest.mark.usefixtures("host_roots")
def test_a_decision_is_carried_without_the_time_that_carrying_takes(make_session: MakeSession) -> None:
    session = make_session(DESTINATION, engine="runtime")
    bring_to(session, "starting")
    session.decide(RUN)
    session.enter("run", container_id=OTHER_CONTAINER, running_since=1.0)
    reported = {"session": session.id, "decision": RUN, "container_id": OTHER_CONTAINER}
    assert recovery.decide(session.id) == reported
    session.close(keep=True)
    assert recovery.decide(session.id) == reported
    with pytest.raises(MigrationError) as caught:
        recovery.decide(make_session(SOURCE).id)
    assert caught.value.code == "not_a_destination"


# -- and acted on ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("host_roots")
@pytest.mark.parametrize(("code", "seconds"), [("channel_revoked", 60.0), ("destination_unreachable", 0.0)])
def test_a_destination_that_lets_the_session_in_no_more_is_seldom_asked(
    code: str, seconds: float, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sshd counts failed logins against this host: after a few it would take no connection from it at all."""
    session = make_session(engine="runtime")
    bring_to(session, "sent")
    session.decide(GO_SENT)
    Path(session.volatile, "lease").unlink()

    def refused(_session: Session, _timeout: float) -> None:
        raise MigrationError(code, "No.")

    monkeypatch.setattr(source, "ask_decision", refused)
    with session.locked(alive=False), pytest.raises(MigrationError):
        # The engine is not asked before the destination is.
        source.settle(moved.original(session))
    assert session.lease_left == pytest.approx(seconds, abs=5)
    # That is the watchdog's alone: recover.yml carries the word at once, and says that it may.
    assert session.silence == float("inf") or session.silence > LEASE_SECONDS
    assert session.summary()["lease_left"] == 0
    assert "at work" not in session_stories.story(session)
    session.renew()
    assert session.summary()["lease_left"] > 0
    assert "at work" in session_stories.story(session)


@pytest.mark.usefixtures("host_roots")
@pytest.mark.parametrize(("decision", "phase"), [(RUN, "committed"), (REFUSED, "aborted")])
def test_the_source_acts_on_a_decision_that_is_carried_to_it_and_asks_nobody(
    decision: str, phase: str, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    session, other = make_session(engine="runtime"), make_session(container=OTHER_CONTAINER, engine="runtime")
    for one in (session, other):
        bring_to(one, "sent")
        one.decide(GO_SENT)
        Path(one.volatile, "lease").unlink()

    class Engine(AnyEngine):
        def find(self, _container: str) -> None:
            return None

    def forget(one: Session, _engine: object) -> None:
        done.append((one.id, "forgotten"))

    monkeypatch.setattr(keeper, "Engine", Engine)
    monkeypatch.setattr(engine_runtime, "forget", forget)
    monkeypatch.setattr(source, "ask_decision", lambda one, _timeout: done.append((one.id, "asked")))
    monkeypatch.setattr(source, "close_destination_half", lambda _session: False)
    settle: dict[str, Any] = {
        "name": None,
        "role": SOURCE,
        "wait": 0.0,
        "ignore_lease": True,
        "destination_lost": None,
    }
    carried = {"session": session.id, "decision": decision, "container_id": CONTAINER}
    recovery.settle(
        session=session.id, other_half_settled=False, check_mode=False, destination_decision=carried, **settle
    )
    assert (session.phase, other.phase) == (phase, "sent")
    assert (session.id, "asked") not in done


@pytest.mark.usefixtures("host_roots")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"decision": "GO_SENT"}, "invalid_decision"),
        ({"session": "../x"}, "invalid_session"),
        ({"container_id": "web"}, "invalid_id"),
        ({"container_id": None}, "invalid_id"),
    ],
)
def test_what_is_no_decision_of_a_destination_is_refused(
    changes: dict[str, Any], code: str, make_session: MakeSession
) -> None:
    session = bring_to(make_session(), "sent")
    session.decide(GO_SENT)
    carried = {"session": session.id, "decision": RUN, "container_id": CONTAINER, **changes}
    settle: dict[str, Any] = {
        "name": None,
        "role": SOURCE,
        "wait": 0.0,
        "ignore_lease": True,
        "destination_lost": None,
    }
    with pytest.raises(MigrationError) as caught:
        recovery.settle(
            session=session.id, other_half_settled=False, check_mode=False, destination_decision=carried, **settle
        )
    assert caught.value.code == code
    assert session.phase == "sent"
