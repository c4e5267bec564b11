# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of sessions that are over: what is needed stays however old it is, and the rest does not pile up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._migration import recovery
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper, old_records
from tests.unit.helpers.moved import AnyEngine
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to

MakeSession = Callable[..., Session]
DAY = 24 * 3600


class FakeEngine(AnyEngine):
    """What a host has: containers by their ids, and volumes."""

    def __init__(self, *containers: str, volumes: tuple[str, ...] = (), **settings: object) -> None:
        super().__init__(**settings)
        self._containers = containers
        self._volumes = volumes

    def containers(self) -> list[dict[str, str]]:
        return [{"Id": identity} for identity in self._containers]

    def find_volume(self, name: str) -> dict[str, str] | None:
        return {"Name": name} if name in self._volumes else None


@pytest.fixture
def closed(make_session: MakeSession, roots: dict[str, str]) -> Callable[..., Session]:
    """A function that makes a session which is over: closed(role, last phase, days ago, **facts)."""

    def make(role: str, phase: str, days: float = 0, *, noted: dict[str, Any] | None = None, **facts: Any) -> Session:
        session = make_session(role, **facts)
        bring_to(session, "starting" if phase == "run" else phase)
        if phase == "run":
            session.enter("run", **(noted or {}))
        session.close(keep=True)
        path = Path(session.path("session.json"))
        path.write_text(json.dumps({**json.loads(path.read_text()), "opened": time.time() - days * DAY}))
        return Session(session.id, **roots)

    return make


def _left(roots: dict[str, str], *containers: str, volumes: tuple[str, ...] = ()) -> list[str]:
    engine: Any = FakeEngine(*containers, volumes=volumes)
    old_records.prune(engine, **roots)
    return [session.id for session in Session.all(**roots)]


Closed = Callable[..., Session]


def test_records_of_other_kinds_are_not_a_container_s_to_remove(
    roots: dict[str, str], closed: Callable[..., Session]
) -> None:
    """Which of them are needed their kind knows."""
    closed(SOURCE, "aborted", days=31)
    session = Session.open(
        "20261123T235959Z-3f9a1c", SOURCE, {"kind": "ship", "ship_id": "ship.1", "ship_name": "argo"}, **roots
    )
    bring_to(session, "committed").close(keep=True)
    path = Path(session.path("session.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "opened": time.time() - 31 * DAY}))
    assert _left(roots) == [session.id]


def test_what_is_over_for_a_month_goes(closed: Closed, make_session: MakeSession, roots: dict[str, str]) -> None:
    for role, phase in ((SOURCE, "aborted"), (SOURCE, "committed"), (DESTINATION, "refused"), (DESTINATION, "run")):
        closed(role, phase, days=31)
    young = [closed(SOURCE, "aborted", days=29).id, closed(DESTINATION, "run", days=1).id]
    unfinished = make_session(container=OTHER_CONTAINER)
    assert _left(roots) == [*young, unfinished.id]


def test_only_the_newest_of_many_stay(closed: Closed, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_records, "KEPT_RECORDS", 3)
    sessions = [closed(SOURCE, "aborted", days=1).id for dummy in range(5)]
    assert _left(roots) == sessions[2:]


def test_the_record_of_an_old_copy_stays_until_that_is_gone(closed: Closed, roots: dict[str, str]) -> None:
    kept = closed(SOURCE, "committed", days=400)
    assert _left(roots, CONTAINER) == [kept.id]
    assert _left(roots) == []


def test_a_container_that_came_here_keeps_what_it_was_before(closed: Closed, roots: dict[str, str]) -> None:
    kept = closed(DESTINATION, "run", days=400, noted={"container_id": OTHER_CONTAINER})
    assert _left(roots, OTHER_CONTAINER) == [kept.id]
    assert _left(roots, CONTAINER) == []


def test_the_newest_record_of_data_that_a_container_has_left_stays(
    closed: Closed, roots: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "bound"
    path.touch()
    both = ["data", str(path)]
    sessions = [closed(SOURCE, "committed", days=400, volumes=names) for names in (both, both, ["data"], ["other"])]
    # Of the volume the third tells, of the path the second.
    assert _left(roots, volumes=("data",)) == [sessions[1].id, sessions[2].id]
    path.unlink()
    assert _left(roots, volumes=("data",)) == [sessions[2].id]
    assert _left(roots) == []


def test_a_copy_on_a_lost_host_is_reported_for_good(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = bring_to(make_session(), "sent")
    session.enter("aborted", destination_lost=True)
    session.close(keep=True)
    path = Path(session.path("session.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "opened": 0.0}))
    assert _left(roots) == [session.id]


def test_what_an_opening_that_was_cut_off_has_left_goes_after_a_day(
    make_session: MakeSession, roots: dict[str, str]
) -> None:
    alive = make_session()
    cut_off = [Path(root, "20200101T000000Z-aaaaaa") for root in roots.values()]
    just_now = Path(roots["state_root"], "20200101T000000Z-bbbbbb")
    for path in (*cut_off, just_now):
        path.mkdir()
    for path in (*cut_off, Path(alive.directory)):
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    assert _left(roots) == [alive.id]
    assert [path.exists() for path in cut_off] == [False, False]
    assert just_now.exists()


def test_a_cleanup_prunes(closed: Closed, host_roots: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a move whose old copy is gone is of no use after a month."""

    class Gone(FakeEngine):
        def find(self, _container: str) -> None:
            return None

    monkeypatch.setattr(keeper, "Engine", Gone)
    prune: Any = old_records.prune
    for name, value in host_roots.items():
        monkeypatch.setitem(prune.__kwdefaults__, name, value)
    old, young = closed(SOURCE, "committed", days=31), closed(SOURCE, "committed", days=1)
    reported = recovery.clean(session=None, name=None, check_mode=True)
    assert {one["session"] for one in reported["sessions"]} == {old.id, young.id}
    reported = recovery.clean(session=None, name=None, check_mode=False)
    assert [one["session"] for one in reported["sessions"]] == [young.id]
