# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves to and from a host whose kernel was started without IPv6: only a machine with a kernel of its own can be such a host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.vm import VirtualMachine
from tests.moves.pair import Pair
from tests.vm.conftest import MOVE_SECONDS, SLOW, Start
from tests.vm.stock import complaints
from tests.workloads.host import Host

pytestmark = pytest.mark.vm


def test_to_it_and_from_it(debian13: Pair, start: Start) -> None:
    """What listens on IPv6 is refused before anything is touched. What does not comes from there, and goes back."""
    here, there = debian13.hosts
    refused = start(here, [here, there])
    with _without_ipv6(debian13, there):
        # Its web server cannot have a socket of IPv6 there.
        moving = start(there, [here, there])
        refused.move(here, there).fail_with("ipv6_missing", timeout=MOVE_SECONDS)
        refused.assert_runs_on(here, timeout=6 * SLOW)
        for source, destination in ((there, here), (here, there)):
            moving.move(source, destination).succeed(timeout=MOVE_SECONDS)
            moving.assert_runs_on(destination, timeout=6 * SLOW)
        for host in debian13.hosts:
            assert not complaints(host)


@contextmanager
def _without_ipv6(pair: Pair, host: Host) -> Iterator[None]:
    machine = pair.lab.machine(host.name)
    assert isinstance(machine, VirtualMachine)
    machine.set_kernel_arguments("ipv6.disable=1")
    try:
        pair.lab.reboot(host.name, timeout=120 * SLOW)
        assert host.run(["test", "-e", "/proc/net/if_inet6"], check=False).returncode != 0
        yield
    finally:
        machine.set_kernel_arguments("")
        pair.lab.reboot(host.name, timeout=120 * SLOW)
