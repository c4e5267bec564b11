# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open TCP connections on stock Debian 13: they go on where the address stays, also when a move is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import matrix
from tests.moves.container_state import assert_as_before, before
from tests.moves.host_conditions import criu_fails
from tests.moves.pair import Pair
from tests.moves_runtime.echo import Client
from tests.moves_runtime.test_connections import Neighbour, neighbour
from tests.vm.conftest import MOVE_SECONDS, SLOW
from tests.vm.stock import complaints

__all__ = ["neighbour"]

pytestmark = pytest.mark.vm


def test_they_go_on_where_the_address_stays(debian13: Pair, neighbour: Callable[..., Neighbour]) -> None:
    """Refused once, then moved, under clients that send all the time and one that is silent meanwhile."""
    source, destination = debian13.hosts
    moving = neighbour(source, [source, destination])
    clients = [Client(moving.address, pause=0.05) for dummy in range(2)]
    silent = Client(moving.address, pause=3600)
    was = before(moving, source, destination)
    with criu_fails(destination):
        moving.move(source, destination).fail_with("the container stayed here", timeout=MOVE_SECONDS)
    assert_as_before(moving, was, source, destination)
    output = moving.move(source, destination).succeed(timeout=MOVE_SECONDS)
    assert "3 connection(s) went on, 0 were closed" in output
    moving.assert_runs_on(destination, timeout=6 * SLOW)
    for client in (*clients, silent):
        client.assert_whole()
    for host in debian13.hosts:
        assert not complaints(host)
    matrix.note(source, destination, engine="runtime", what="open TCP connections on an address that stays (macvlan)")
