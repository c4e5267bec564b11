# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tests may run at the same time: those that use different hosts.

`make test` starts several pytest processes (pytest-xdist's workers). Tests of one lane run one after another in one of
them; a test without a lane runs wherever there is room. The lanes of hosts are the two pairs of the lab.

A test that uses both pairs belongs to one lane and borrows the hosts of the other: locks see to it that nobody else uses them
meanwhile. The comparison of what a host holds before and after a test would else find somebody else's containers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

# Lane: a fixture that every test on its hosts has. A test with several of them is in the first lane, which is also the
# one whose hosts are bare at the beginning: the roles' scenarios have been there when a test of both lanes comes.
FIXTURES = {"trixie": ("pair", "older"), "forky": ("newer",)}
# Built once by whoever runs these; shared fixtures of a module would else be made in each process.
TOGETHER = "static"


def is_worker() -> bool:
    """Whether this process is one of several that share a session of tests."""
    return "PYTEST_XDIST_WORKER" in os.environ


def hosts_used(item: pytest.Item) -> list[str]:
    """The lanes whose hosts a test uses, in the order in which they are locked."""
    names = set(getattr(item, "fixturenames", ()))
    found = [lane for lane, fixtures in FIXTURES.items() if names.intersection(fixtures)]
    # The lab itself, with no pair: alpha, beta and gamma.
    return found or (["trixie"] if "lab" in names else [])


def arrange(items: list[pytest.Item], directory: Path) -> None:
    """Give each test its lane; in a worker, the first test of each lane comes first, so that the long lanes begin at once."""
    first: dict[str, pytest.Item] = {}
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        used = hosts_used(item)
        lane = str(mark.args[0]) if mark else used[0] if used else ""
        if not lane and item.path.is_relative_to(directory / TOGETHER):
            lane = TOGETHER
        if lane and mark is None:
            item.add_marker(pytest.mark.xdist_group(lane))
        if lane:
            first.setdefault(lane, item)
    if is_worker():
        # The longest first; a lane that is not known here is after them.
        order = ["forky", "trixie", *(lane for lane in first if lane not in FIXTURES)]
        ahead = [first[lane] for lane in order if lane in first]
        items[:] = ahead + [item for item in items if item not in ahead]


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
