# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves that are refused on stock Debian 13: the container goes on as if nothing had been, limits and profile included."""

from __future__ import annotations

import pytest

from tests.moves.container_state import assert_as_before, before
from tests.moves.host_conditions import criu_fails
from tests.moves.pair import Pair
from tests.vm.conftest import MOVE_SECONDS, Start
from tests.vm.stock import IN_FORCE, LIMITS, complaints, confinement

pytestmark = pytest.mark.vm


def test_before_the_freeze_and_after_it(debian13: Pair, start: Start) -> None:
    """The preflight refuses a port that is taken; CRIU's failure on the destination is found when the container is frozen."""
    source, destination = debian13.hosts
    moving = start(source, [source, destination], *LIMITS, "--restart", "always")
    was = before(moving, source, destination)
    destination.run(["systemd-run", "--unit=port-taker", "python3", "-m", "http.server", str(moving.port)])
    try:
        moving.move(source, destination).fail_with("port_taken", timeout=MOVE_SECONDS)
    finally:
        destination.run(["systemctl", "stop", "port-taker"])
    assert_as_before(moving, was, source, destination)
    with criu_fails(destination):
        moving.move(source, destination).fail_with("the container stayed here", timeout=MOVE_SECONDS)
    assert_as_before(moving, was, source, destination)
    assert confinement(source, moving.name) == IN_FORCE
    for host in debian13.hosts:
        assert not complaints(host)
