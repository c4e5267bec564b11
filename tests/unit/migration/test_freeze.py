# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Freezing: what is noted before what is done, and how often something that is in the way is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import freeze
from ansible_collections.livemigrate.criu.plugins.module_utils._session import timeline, watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.subject import Original


class Recorded:
    """An original that notes what it is told to do, with the phase of its session at that moment.

    :param in_the_way: what is found in it at each attempt; nothing when they are over.
    :param fails: what of it cannot be done.
    """

    def __init__(self, session: Session, in_the_way: Sequence[list[str]] = (), fails: str = "") -> None:
        self.session = session
        self.calls: list[tuple[str, str]] = []
        self._found = list(in_the_way)
        self._fails = fails

    def _called(self, name: str) -> None:
        self.calls.append((name, self.session.phase))
        if name == self._fails:
            raise MigrationError("failed", name)

    def make_ready(self) -> dict[str, Any]:
        self._called("make ready")
        return {"aside": "a policy", "bytes": 7}

    def put_aside(self) -> None:
        self._called("put aside")

    def look_last(self) -> None:
        self._called("look last")

    def keep_newcomers_out(self) -> None:
        self._called("keep out")

    def stop(self) -> list[str]:
        self._called("stop")
        return self._found.pop(0) if self._found else []

    def step_back(self) -> None:
        self._called("step back")

    def in_the_way(self, found: Sequence[str]) -> MigrationError:
        return MigrationError("in_the_way", ", ".join(found))


@pytest.fixture
def session(make_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(watchdog, "prove", lambda _session: None)
    monkeypatch.setattr(freeze, "_PAUSE_SECONDS", 0.0)
    made = make_session()
    made.enter("prepared")
    return made


def _freeze(original: Recorded) -> None:
    freeze.freeze(cast(Original, original))


ATTEMPT = [("look last", "armed"), ("keep out", "armed"), ("stop", "freezing")]


def test_what_is_done_is_noted_before_it_is_done(session: Session) -> None:
    original = Recorded(session)
    _freeze(original)
    assert original.calls == [("make ready", "prepared"), ("put aside", "arming"), *ATTEMPT]
    # Who settles it after a crash finds there what was put aside.
    assert session.data("arming") == {"aside": "a policy", "bytes": 7}
    assert timeline.now() - session.data("freezing")["at"] < 5


def test_nothing_is_put_aside_or_frozen_without_a_watchdog(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_watchdog(_session: str) -> None:
        raise MigrationError("watchdog_failed", "There is none.")

    monkeypatch.setattr(watchdog, "prove", no_watchdog)
    original = Recorded(session)
    with pytest.raises(MigrationError):
        _freeze(original)
    assert [name for name, _phase in original.calls] == ["make ready"]
    assert session.phase == "arming"


def test_what_is_in_the_way_is_let_go_on_and_looked_at_again(session: Session) -> None:
    original = Recorded(session, [["a check"], ["another"]])
    _freeze(original)
    again = [("step back", "freezing"), ("look last", "freezing"), ("keep out", "freezing"), ("stop", "freezing")]
    assert original.calls[2:] == [*ATTEMPT, *again, *again]
    # Each attempt has its own moment: the gap counts from the one that succeeded.
    moments = [entry["data"]["at"] for entry in session.journal if entry["phase"] == "freezing"]
    assert moments == sorted(moments)
    assert len(moments) == 3


def test_what_stays_in_the_way_is_reported_and_not_frozen(session: Session) -> None:
    original = Recorded(session, [["a shell"]] * freeze.FOREIGN_ATTEMPTS)
    with pytest.raises(MigrationError) as caught:
        _freeze(original)
    assert (caught.value.code, caught.value.message) == ("in_the_way", "a shell")
    assert original.calls[-1][0] == "step back"
    assert sum(name == "stop" for name, _phase in original.calls) == freeze.FOREIGN_ATTEMPTS


@pytest.mark.parametrize(
    ("fails", "phase"),
    [("make ready", "prepared"), ("put aside", "arming"), ("look last", "armed"), ("stop", "freezing")],
)
def test_where_it_fails_the_journal_tells_how_far_it_came(fails: str, phase: str, session: Session) -> None:
    original = Recorded(session, fails=fails)
    with pytest.raises(MigrationError):
        _freeze(original)
    assert (original.calls[-1][0], session.phase) == (fails, phase)
