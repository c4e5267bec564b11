# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may work on a container: one session, whoever else wants it at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE, TRANSITIONS
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to, race

MakeSession = Callable[..., Session]


_fork = get_context("fork")


# How long one process of a forced meeting waits for another that may be kept out by a lock.
MEETING_SECONDS = 0.4


def _session_id(number: int) -> str:
    return f"20261124T{number:06}Z-aaaaaa"


def _open(number: int, roots: dict[str, str]) -> str:
    return Session.open(_session_id(number), SOURCE, {"container_id": CONTAINER}, **roots).id


def _open_one_of(first: int, roots: dict[str, str], number: int) -> str:
    return _open(first + number, roots)


def _owner(roots: dict[str, str]) -> str:
    return (Path(roots["state_root"]) / "locks" / CONTAINER).read_text()


@pytest.mark.parametrize(
    "phase", [phase for phase in TRANSITIONS[SOURCE] if phase not in ("aborted", "committed", "closed")]
)
def test_a_second_session_is_refused_and_the_first_named(
    phase: str, make_session: MakeSession, roots: dict[str, str]
) -> None:
    first = bring_to(make_session(), phase)
    with pytest.raises(MigrationError) as caught:
        make_session()
    assert caught.value.code == "session_busy"
    assert caught.value.details == {"session": first.id, "phase": phase}
    assert first.id in caught.value.message
    assert phase in caught.value.message
    assert _owner(roots) == first.id


@pytest.mark.parametrize(
    "phase", [phase for phase in TRANSITIONS[DESTINATION] if phase not in ("refused", "run", "closed")]
)
def test_the_same_on_the_destination(phase: str, make_session: MakeSession) -> None:
    bring_to(make_session(DESTINATION), phase)
    with pytest.raises(MigrationError) as caught:
        make_session(DESTINATION)
    assert caught.value.code == "session_busy"


@pytest.mark.parametrize(
    ("role", "phase"),
    [(SOURCE, "aborted"), (SOURCE, "committed"), (SOURCE, "closed"), (DESTINATION, "refused"), (DESTINATION, "closed")],
)
def test_a_session_that_has_nothing_left_to_do_is_succeeded(
    role: str, phase: str, make_session: MakeSession, roots: dict[str, str]
) -> None:
    first = bring_to(make_session(role), phase)
    second = make_session(role)
    assert _owner(roots) == second.id
    # And what the first still tidies up is not the second's claim.
    first.close(keep=True)
    assert _owner(roots) == second.id
    with pytest.raises(MigrationError):
        make_session(role)


@pytest.mark.parametrize("owner", ["20261123T111111Z-bbbbbb", "", "../../etc/passwd", "not a session"])
def test_a_claim_of_nobody_is_taken_over(owner: str, make_session: MakeSession, roots: dict[str, str]) -> None:
    locks = Path(roots["state_root"]) / "locks"
    locks.mkdir(parents=True)
    (locks / CONTAINER).write_text(owner)
    assert make_session().id == _owner(roots)


def test_other_containers_are_not_concerned(make_session: MakeSession) -> None:
    make_session(container=CONTAINER)
    assert make_session(container=OTHER_CONTAINER).phase == "opened"


def test_a_released_container_is_free_and_releasing_twice_is_fine(make_session: MakeSession) -> None:
    first = bring_to(make_session(), "aborted")
    first.release_claim()
    first.release_claim()
    assert make_session().phase == "opened"


@pytest.mark.parametrize("stale", [False, True])
def test_of_eight_who_want_a_container_at_once_one_gets_it(stale: bool, roots: dict[str, str]) -> None:
    for attempt in range(4):
        if stale:
            bring_to(Session(_open(attempt * 10 + 8, roots), **roots), "closed")
        answers = race(8, partial(_open_one_of, attempt * 10, roots))
        winners = [value for kind, value in answers if kind == "ok"]
        assert winners == [_owner(roots)]
        assert sorted(value for kind, value in answers if kind == "error") == ["session_busy"] * 7
        assert [found.id for found in Session.all(**roots) if not found.ended] == winners
        bring_to(Session(winners[0], **roots), "closed").release_claim()
        assert not (Path(roots["state_root"]) / "locks" / CONTAINER).exists()


class Meeting:
    """Lets one process stand still at a point until another has done its part, or has been kept out for long enough."""

    def __init__(self) -> None:
        self.there = _fork.Event()
        self.done = _fork.Event()

    def stand_still(self) -> None:
        self.there.set()
        self.done.wait(MEETING_SECONDS)

    def run(self, first: Callable[[Meeting], Any], second: Callable[[], Any]) -> list[tuple[str, Any]]:
        def take_part(number: int) -> Any:
            if number == 0:
                return first(self)
            assert self.there.wait(5), "the first one never came to the point"
            try:
                return second()
            finally:
                self.done.set()

        return race(2, take_part)


def test_two_who_find_the_same_stale_claim_do_not_both_take_it(roots: dict[str, str]) -> None:
    stale = bring_to(Session(_open(0, roots), **roots), "closed").id

    def look_and_wait(meeting: Meeting) -> str:
        phase = Session.phase

        def slow_phase(self: Session) -> str:
            found = phase.fget(self)  # type: ignore[attr-defined]
            if self.id == stale:
                meeting.stand_still()
            return str(found)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "phase", property(slow_phase))
            return _open(1, roots)

    answers = Meeting().run(look_and_wait, lambda: _open(2, roots))
    assert sorted(kind for kind, _value in answers) == ["error", "ok"], answers
    assert ("error", "session_busy") in answers
    assert ("ok", _owner(roots)) in answers


def test_who_releases_a_claim_does_not_take_that_of_a_successor(roots: dict[str, str]) -> None:
    ended = bring_to(Session(_open(0, roots), **roots), "closed")
    claim = str(Path(roots["state_root"]) / "locks" / CONTAINER)

    def release_slowly(meeting: Meeting) -> None:
        unlink = os.unlink

        def slow_unlink(path: str, **keywords: Any) -> None:
            if path == claim:
                meeting.stand_still()
            unlink(path, **keywords)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "unlink", slow_unlink)
            ended.release_claim()

    assert Meeting().run(release_slowly, lambda: _open(1, roots)) == [("ok", None), ("ok", _session_id(1))]
    assert _owner(roots) == _session_id(1)
