# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module has a step done by the session's agent: what it answers, and what is said where it does not."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent, source, steps
from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code, agent_package, step_call
from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects import by_kind
from tests.unit.helpers.support import MODULE_UTILS

ECHO = "import json, sys; json.dump({'result': {'argv': sys.argv[1:], **json.load(sys.stdin)}}, sys.stdout)"
REFUSES = """import sys; print('{"failure": {"code": "no_space", "message": "Full.", "details": {"free": 1}}}')"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session.open(
        "20260101T000000Z-abcdef",
        SOURCE,
        {"container_id": "c" * 64, "container_name": "one"},
        state_root=str(tmp_path / "state"),
        volatile_root=str(tmp_path / "run"),
    )


def _agent_is(session: Session, program: str) -> None:
    Path(session.path("agent.pyz")).write_text(program)


def test_parameters_and_result(session: Session) -> None:
    _agent_is(session, ECHO)
    assert step_call.call(session, "go", {"wait": 5}) == {"argv": ["step", session.id, "go"], "wait": 5}


def test_an_error_is_the_step_s_own(session: Session) -> None:
    _agent_is(session, REFUSES)
    with pytest.raises(MigrationError, match=r"^Full\.$") as caught:
        step_call.call(session, "go", {})
    assert caught.value.as_failure() == {"code": "no_space", "message": "Full.", "details": {"free": 1}}


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("import os; os.kill(os.getpid(), 9)", "The step go was killed by SIGKILL."),
        (
            "raise SystemExit('no room')",
            "The step go ended with exit code 1 and no answer. It said: no room",
        ),
    ],
)
def test_an_agent_that_ends_without_an_answer(session: Session, program: str, printed: str) -> None:
    _agent_is(session, program)
    with pytest.raises(MigrationError) as caught:
        step_call.call(session, "go", {})
    assert (caught.value.code, caught.value.message) == ("step_ended", printed)


def test_a_session_that_is_over(session: Session) -> None:
    session.enter("aborted")
    session.enter("closed")
    with pytest.raises(MigrationError, match="brought to its end meanwhile") as caught:
        step_call.call(session, "go", {})
    assert caught.value.code == "session_over"


def test_one_that_ends_while_its_agent_is_started(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's file is gone: that is no defect to report."""
    answers = iter([False, True])
    monkeypatch.setattr(Session, "ended", property(lambda _self: next(answers)))
    with pytest.raises(MigrationError) as caught:
        step_call.call(session, "go", {})
    assert caught.value.code == "session_over"


CANNOT_LOAD = """
import json, sys
failure = {"code": "unexpected", "message": "FileNotFoundError: agent.pyz", "details": {}}
print(json.dumps({"failure": failure}))
"""


@pytest.mark.parametrize(("over", "code"), [(True, "session_over"), (False, "unexpected")])
def test_one_that_ends_while_its_agent_loads(
    over: bool, code: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds its own file gone; where the session goes on that is a defect like any other."""
    _agent_is(session, CANNOT_LOAD)
    answers = iter([False, over])
    monkeypatch.setattr(Session, "ended", property(lambda _self: next(answers)))
    with pytest.raises(MigrationError) as caught:
        step_call.call(session, "go", {})
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["go", "created", "image_sent"])
def test_a_step_has_all_that_it_loads_before_it_waits_for_the_session(
    name: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the lock may close the session, and take the agent's file away."""
    done: list[str] = []

    def kind_of(one: Session) -> Any:
        done.append("made")
        return real(one)

    def locked(_self: Session, **_options: float) -> None:
        done.append("locked")
        raise MigrationError("session_locked", "Somebody has it.")

    real = by_kind.of
    monkeypatch.setattr(by_kind, "of", kind_of)
    monkeypatch.setattr(Session, "locked", locked)
    with pytest.raises(MigrationError, match="Somebody has it"):
        steps.run(name, session, {})
    assert done == ["made", "locked"]


@pytest.mark.parametrize(
    ("name", "wait", "seconds"),
    [("go", 120, 30), ("committed", 120, 120), ("committed", 1, 30), ("connected", 120, 30)],
)
def test_the_last_step_waits_as_long_as_it_may_for_the_watchdog(
    name: str, wait: int, seconds: float, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is at the same work after the handover, and takes a minute on a slow host."""
    waits: list[float] = []

    def locked(_self: Session, timeout: float) -> None:
        waits.append(timeout)
        raise MigrationError("session_locked", "Somebody has it.")

    monkeypatch.setattr(Session, "locked", locked)
    with pytest.raises(MigrationError, match="Somebody has it"):
        steps.run(name, session, {"wait": wait})
    assert waits == [seconds]


@pytest.mark.parametrize("ended", [True, False])
def test_a_keeper_is_not_needed_for_a_session_that_the_watchdog_has_settled_meanwhile(
    ended: bool, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[float] = []
    original = SimpleNamespace(session=session, reach=reached.append)
    monkeypatch.setattr(Session, "ended", ended)
    monkeypatch.setattr(source, "settle", lambda *_arguments, **_options: None)
    steps._committed(original, {"wait": 120})
    assert reached == ([] if ended else [source.KEEPER_SECONDS])


@pytest.mark.parametrize(
    ("raised", "code"),
    [(MigrationError("cannot_move", "No."), "cannot_move"), (ZeroDivisionError("oh"), "unexpected")],
)
def test_the_agent_tells_what_a_step_raised(
    session: Session,
    raised: Exception,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_arguments: Any) -> dict[str, Any]:
        raise raised

    monkeypatch.setattr(steps, "run", fail)
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    assert agent.step(session, "go") == 0
    failure = json.loads(capsys.readouterr().out)["failure"]
    assert failure["code"] == code
    assert ("traceback" in failure["details"]) == (code == "unexpected")


# -- opening ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in memory in which an agent lies until there is a session."""
    monkeypatch.setattr(sessions, "VOLATILE_ROOT", str(tmp_path / "run"))
    return tmp_path / "run"


CODE = agent_code.pack({agent_code.AGENT: "This version's."})


def _agent_is_made_of(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_package, "build", lambda _sources: program.encode())


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_new_agent_opens_a_half_and_is_kept(check_mode: bool, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _agent_is_made_of(ECHO, monkeypatch)
    answer = step_call.open_half({"role": "source"}, CODE, check_mode=check_mode)
    assert answer == {"argv": ["open", *(["--check"] if check_mode else [])], "role": "source"}
    for place in (places, places / "agents"):
        assert place.stat().st_mode & 0o777 == 0o700
    (kept,) = (places / "agents").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_opening_raises_is_raised_as_it_is(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _agent_is_made_of(REFUSES, monkeypatch)
    with pytest.raises(MigrationError, match=r"^Full\.$") as caught:
        step_call.open_half({"role": "source"}, CODE, check_mode=False)
    assert caught.value.code == "no_space"
    assert len(list((places / "agents").iterdir())) == 1


def test_an_agent_that_does_not_work_here_opens_nothing(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _agent_is_made_of("import no_such_library", monkeypatch)
    with pytest.raises(MigrationError, match="No module named 'no_such_library'") as caught:
        step_call.open_half({"role": "source"}, CODE, check_mode=False)
    assert caught.value.code == "watchdog_failed"
    assert list((places / "agents").iterdir()) == [], "a damaged one would stand in the way for a day"


def test_the_agent_is_made_once_for_a_version(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _agent_is_made_of(ECHO, monkeypatch)
    step_call.open_half({"role": "source"}, CODE, check_mode=True)
    (first,) = (places / "agents").iterdir()
    used, old = places / "agents" / "used.pyz", places / "agents" / "old.pyz"
    for path, hours in ((first, 23), (used, 23), (old, 25)):
        path.touch()
        os.utime(path, (0, time.time() - hours * 3600))
    _agent_is_made_of("import no_such_library", monkeypatch)
    step_call.open_half({"role": "source"}, CODE, check_mode=True)
    assert first.stat().st_mtime > time.time() - 3600, "it has been used"
    _agent_is_made_of(ECHO, monkeypatch)
    another = agent_code.pack({agent_code.AGENT: "Another version's."})
    step_call.open_half({"role": "source"}, another, check_mode=True)
    kept = set((places / "agents").iterdir())
    assert {first, used} < kept
    assert old not in kept
    assert len(kept) == 3


def test_without_the_action_plugin_nothing_is_done(places: Path) -> None:
    for call in (
        lambda: step_call.open_half({"role": "source"}, None, check_mode=False),
        lambda: step_call.recover("settled", {}, None),
    ):
        with pytest.raises(MigrationError, match=r"Call it by its full name") as caught:
            call()
        assert caught.value.code == "agent_code_missing"
    assert not places.exists()


def test_what_is_done_after_the_fact(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _agent_is_made_of(ECHO, monkeypatch)
    assert step_call.recover("cleaned", {"session": None}, CODE) == {"argv": ["recover", "cleaned"], "session": None}
    _agent_is_made_of("raise SystemExit('no room')", monkeypatch)
    for kept in (places / "agents").iterdir():
        kept.unlink()
    with pytest.raises(
        MigrationError, match=r"^The step cleaned ended with exit code 1 and no answer. It said: no room$"
    ):
        step_call.recover("cleaned", {}, CODE)
    assert list((places / "agents").iterdir()) == []


OWN_CODE = agent_code.pack(agent_code.of_directory(str(MODULE_UTILS)))


@pytest.mark.usefixtures("places")
def test_the_agent_of_this_code_knows_what_can_be_done_after_the_fact() -> None:
    with pytest.raises(MigrationError, match=r"knows nothing called 'undone'") as caught:
        step_call.recover("undone", {}, OWN_CODE)
    assert caught.value.code == "unknown_step"
    with pytest.raises(MigrationError) as caught:
        step_call.recover("decided", {"session": "20260101T000000Z-abcdef"}, OWN_CODE)
    assert caught.value.code == "session_unknown"


@pytest.mark.usefixtures("places")
def test_the_agent_of_this_code_tells_what_is_missing() -> None:
    """The whole way: made, started, asked."""
    asked = {"role": "destination", "session": "", "container_id": "", "channel_user": "", "public_key": ""}
    with pytest.raises(MigrationError, match="session, container_id, channel_user, public_key must be given") as caught:
        step_call.open_half(asked, OWN_CODE, check_mode=False)
    assert caught.value.code == "missing_arguments"
