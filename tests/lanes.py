# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tests may run at the same time: those that use different hosts.

`make test` starts several pytest processes (pytest-xdist's workers). Tests of one lane run one after another in one of
them; files of tests without a lane run wherever there is room. The lanes of hosts are the pairs of the lab, and the virtual
machines, which come last; a test names another lane by the mark ``lane``.

A test that uses two pairs belongs to one lane and borrows the hosts of the other: locks see to it that nobody else uses them
meanwhile. The comparison of what a host holds before and after a test would else find somebody else's containers.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Lane: fixtures that tell a test on its hosts. A test of two lanes is in the first one: trixie's hosts are bare at the
# beginning, and the roles' scenarios have been there when it comes.
FIXTURES = {"trixie": ("pair", "older"), "forky": ("newer",), "preflight": ("hosts",), "vm": ("stock",)}
# The directory of static checks: what they build is built once.
TOGETHER = "static"
# These begin at once, in this order; the others as they are collected.
LONGEST = ("forky", "trixie", TOGETHER, "images")
# These begin when nothing else is left: emulated processors keep all of the machine's busy.
LAST = "vm"
# These begin with it, where there is such a test. One move has two emulated machines wait for each other, so that a processor has
# time; and static checks and unit tests use no host that could be slow.
UNITS = "unit"
BESIDE_LAST = (TOGETHER, UNITS)


def is_worker() -> bool:
    """Whether this process is one of several that share a session of tests."""
    return "PYTEST_XDIST_WORKER" in os.environ


def hosts_used(item: pytest.Item) -> list[str]:
    """The lanes whose hosts a test uses, in the order in which they are locked."""
    names = set(getattr(item, "fixturenames", ()))
    if "lab_ground" not in names:
        # A fixture of the same name in a test without hosts.
        return []
    found = [lane for lane, fixtures in FIXTURES.items() if names.intersection(fixtures)]
    # The lab itself, with no pair: alpha, beta and gamma.
    return found or (["trixie"] if "lab" in names else [])


def lanes_of(items: Sequence[pytest.Item]) -> dict[str, str]:
    """The lanes of tests by the tests' ids, "" for one that has none."""
    lanes = {item.nodeid: _lane_of(item) for item in items}
    if LAST in lanes.values():
        # Else they run file by file, wherever there is room.
        lanes.update({item.nodeid: UNITS for item in items if not lanes[item.nodeid] and UNITS in item.path.parts})
    return lanes


def _lane_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker("lane")
    if mark:
        return str(mark.args[0])
    used = hosts_used(item)
    return used[0] if used else TOGETHER if TOGETHER in item.path.parts else ""


def arrange(items: list[pytest.Item]) -> None:
    """Put the first tests of the long lanes before all others, and the last lanes behind them."""
    lanes = lanes_of(items)
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(lanes[item.nodeid], item)
    lanes_last = _last(first)
    ahead = [first[lane] for lane in LONGEST if lane in first and lane not in lanes_last]
    last = [item for lane in lanes_last for item in items if lanes[item.nodeid] == lane]
    apart = {*ahead, *last}
    items[:] = [*ahead, *(item for item in items if item not in apart), *last]


def _last(lanes: Iterable[str]) -> tuple[str, ...]:
    """The lanes that begin when nothing else is left, in this order."""
    return (LAST, *BESIDE_LAST) if LAST in lanes else ()


class Scheduler(LoadScopeScheduling):
    """Gives a lane to a worker as a whole, and tests without a lane file by file."""

    def __init__(self, config: pytest.Config, log: Producer | None, plan: Path) -> None:
        super().__init__(config, log)
        # The order of the tests is arrange()'s.
        config.option.loadscopereorder = False
        self._plan = plan
        self._lanes: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._lanes:
            # The process that distributes the tests has none itself; every worker has written the same.
            self._lanes = json.loads(self._plan.read_text())
        return self._lanes[nodeid] or nodeid.partition("::")[0]

    def _reschedule(self, node: WorkerController) -> None:
        for one in (node, *(other for other in self.nodes if other is not node)):
            # Nothing calls for a worker that has had to wait.
            if one is node or self.workqueue:
                self._give_more(one)

    def _give_more(self, node: WorkerController) -> None:
        last = _last(set(self._lanes.values()))
        if self.workqueue and next(iter(self.workqueue)) in last and self._is_any_busy(node, last):
            return
        super()._reschedule(node)
        if self.workqueue:
            return
        # A worker holds its last test back until it knows what comes after it, and there is nothing any more.
        for other in self.nodes:
            if not other.shutting_down and self._pending_of(self.assigned_work[other]) == 1:
                other.shutdown()

    def _is_any_busy(self, node: WorkerController, last: Sequence[str]) -> bool:
        """Whether this worker has more to do than a test that it holds back, or another one has, apart from the last lanes."""
        works = [
            {scope: unit for scope, unit in work.items() if other is node or scope not in last}
            for other, work in self.assigned_work.items()
        ]
        return any(self._pending_of(work) > 1 for work in works)


def write_plan(items: Sequence[pytest.Item], plan: Path) -> None:
    """Tell the scheduler the lanes of the collected tests."""
    writing = plan.with_suffix(f".{os.getpid()}")
    writing.write_text(json.dumps(lanes_of(items)))
    writing.replace(plan)


@contextmanager
def alone(item: pytest.Item, directory: Path) -> Iterator[None]:
    """Nobody else uses the hosts of a test while it runs.

    :param directory: where the lock files are.
    """
    with ExitStack() as held:
        for lane in hosts_used(item):
            # Who waits stands at the gate, so that the lane's own next test does not come before it for ever.
            with (directory / f"{lane}.gate").open("w") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                lock = held.enter_context((directory / f"{lane}.lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
