# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The places into which open sessions bring something: from their note to the end that the session has on this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session import arrivals
from ansible_collections.livemigrate.criu.plugins.module_utils._session.arrivals import Arrivals
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import OTHER_CONTAINER, race

MakeSession = Callable[..., Session]

pytestmark = pytest.mark.usefixtures("host_roots")


def _noted(session: Session, names: list[str], *paths: Path) -> Session:
    session.enter("creating", **{arrivals.NOTED: arrivals.places(names, map(str, paths))})
    return session


def test_what_is_noted_is_taken_by_its_session_for_all_others(make_session: MakeSession, disk: Path) -> None:
    one = _noted(make_session(DESTINATION), ["data"], disk / "srv" / "db")
    make_session(DESTINATION, container=OTHER_CONTAINER)
    (disk / "link").symlink_to("srv")
    found = Arrivals()
    assert found.into_name("data") == [one.id]
    assert found.into_name("dat") == []
    for path, taken in (("srv/db", 1), ("srv/db/wal", 1), ("srv", 1), ("link/db", 1), ("srv/db2", 0), ("srv/d", 0)):
        assert found.into_path(str(disk / path)) == [one.id] * taken
    own = Arrivals(one.id)
    assert (own.into_name("data"), own.into_path(str(disk / "srv/db"))) == ([], [])


@pytest.mark.parametrize("phases", ["created starting run", "refused"])
def test_a_session_that_has_its_end_here_brings_nothing_any_more(phases: str, make_session: MakeSession) -> None:
    session = _noted(make_session(DESTINATION), ["data"])
    *before, last = phases.split()
    for phase in before:
        session.enter(phase)
        assert Arrivals().into_name("data") == [session.id]
    session.enter(last)
    assert Arrivals().into_name("data") == []


def test_a_record_of_an_older_version_does_not_say_what_it_brings(make_session: MakeSession) -> None:
    make_session(DESTINATION).enter("creating", name="web", volumes=["data"])
    assert Arrivals().into_name("data") == []


def test_who_looks_and_notes_does_so_alone(make_session: MakeSession) -> None:
    sessions = [make_session(DESTINATION, container=letter * 64) for letter in "abcd"]

    def look_and_note(number: int) -> bool:
        with arrivals.in_turns(sessions[number]):
            free = not Arrivals(sessions[number].id).into_name("data")
            if free:
                _noted(sessions[number], ["data"])
        return free

    assert sorted(race(4, look_and_note)) == [("ok", False)] * 3 + [("ok", True)]
