# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disk of a session takes no change any more while its container stands still: the container goes on all the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import by_name as engines
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import source
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import ABORT, GO_SENT, REFUSED
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers import moved
from tests.unit.helpers.disks import with_read_only
from tests.unit.helpers.groups import Group
from tests.unit.helpers.pausing import Pausing
from tests.unit.helpers.support import wait_for

pytestmark = pytest.mark.usefixtures("needs_namespaces", "as_it_was")


def _read_only(session: Session, work: Callable[[], Any]) -> str:
    """Do something with the lock of a session whose file system is read-only; returns the code of the error that it raises."""

    def locked() -> str:
        with session.locked(timeout=1, alive=False):
            try:
                work()
            except MigrationError as exc:
                return exc.code
        return ""

    return with_read_only(session.directory, locked)


@pytest.fixture
def used(frozen: Session) -> Session:
    """A step has had its lock."""
    with frozen.locked():
        pass
    return frozen


def test_it_goes_on_where_nothing_can_be_noted(used: Session, group: Group, roots: dict[str, str]) -> None:
    engine = Pausing(paused=True)
    assert _read_only(used, lambda: source.settle(moved.original(used, engine))) == "not_noted"
    wait_for(lambda: not group.frozen, "it goes on")
    again = Session(used.id, **roots)
    assert (again.decision, again.phase) == (ABORT, "freezing")
    # Its owner has stopped it meanwhile: nobody starts it again, however often the end of the session is tried to be noted.
    group.kill()
    stopped = Pausing(paused=False, running=False)
    assert _read_only(again, lambda: source.settle(moved.original(again, stopped))) == "not_noted"
    assert stopped.calls == []
    # Mended.
    assert source.settle(moved.original(again, stopped)) == ABORT
    assert stopped.calls == []
    assert (Session(used.id, **roots).decision, again.phase) == (ABORT, "closed")


def test_it_goes_on_without_its_engine(used: Session, group: Group) -> None:
    assert _read_only(used, lambda: source.abort_alone(moved.original(used), 1)) == ""
    wait_for(lambda: not group.frozen, "it goes on")


def test_a_refusal_that_is_carried_lets_it_go_on(used: Session, group: Group) -> None:
    used.decide(GO_SENT)
    answer = {"decision": REFUSED}
    assert _read_only(used, lambda: source.settle(moved.original(used, Pausing(paused=True)), decision=answer)) == (
        "not_noted"
    )
    wait_for(lambda: not group.frozen, "it goes on")
    assert used.decision == GO_SENT


def test_a_lost_destination_lets_it_go_on(used: Session, group: Group) -> None:
    used.decide(GO_SENT)

    def settle() -> None:
        used.declare_destination_lost()
        source.settle(moved.original(used, Pausing(paused=True)))

    assert _read_only(used, settle) == "not_noted"
    wait_for(lambda: not group.frozen, "it goes on")
    assert used.destination_declared_lost
    used.take_back_lost()
    assert not used.destination_declared_lost


def test_a_checkpoint_that_cannot_be_given_up_is_deleted(used: Session, group: Group) -> None:
    """Else a container that has run on would be brought back from it."""
    functions = engines.functions_of(used)
    place = functions.images(used)
    os.makedirs(place)
    for name in ("inventory.img", "pstree.img", "pages-1.img"):
        with open(os.path.join(place, name), "wb") as file:
            file.write(b"memory")
    functions.seal(used, [])
    used.enter("dumped", held=[], bytes=0)
    seen = []

    class Thawing(Pausing):
        def unpause(self, container: str) -> None:
            # Before a task runs on.
            seen.append(os.path.exists(place))
            super().unpause(container)

    def settle() -> None:
        try:
            source.settle(moved.original(used, Thawing(paused=True)))
        finally:
            assert seen == [False]

    assert _read_only(used, settle) == "not_noted"
    assert not os.path.exists(place)
    # The host goes down; the disk is mended.
    group.kill()
    shutil.rmtree(used.volatile)
    engine = Pausing(paused=False, running=False)
    moved.original(used, engine).go_on()
    assert engine.calls == ["start"]
