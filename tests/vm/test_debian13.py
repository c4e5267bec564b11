# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian 13 as released, with nothing but provision.yml and migrate.yml and their defaults: a container moves, there and back."""

from __future__ import annotations

import pytest

from tests import matrix
from tests.migration.conftest import Pair
from tests.vm.conftest import MOVE_SECONDS, SLOW, Start
from tests.vm.stock import IN_FORCE, LIMITS, complaints, confinement

pytestmark = pytest.mark.stock

WHAT = "limits, AppArmor's docker-default, a published port"


@pytest.mark.parametrize(("engine", "ways"), [("runtime", 2), ("api", 1)])
def test_there_and_back(debian13: Pair, start: Start, engine: str, ways: int) -> None:
    """Limits, AppArmor's profile and the published port are in force on both hosts, and the kernel has nothing to say.

    With the engine runtime, which is what the default takes; with api one way, since each costs CI minutes.
    """
    here, there = debian13.hosts
    moving = start(here, [here, there], *LIMITS, "--restart", "unless-stopped")
    assert confinement(here, moving.name) == IN_FORCE
    for source, destination in ((here, there), (there, here))[:ways]:
        chosen = () if engine == "runtime" else ("-e", f"migrate_engine={engine}")
        output = moving.move(source, destination, *chosen).succeed(timeout=MOVE_SECONDS)
        assert f"Engine {engine}" in output
        # By the published port.
        moving.assert_runs_on(destination, timeout=6 * SLOW)
        assert confinement(destination, moving.name) == IN_FORCE
        matrix.note(source, destination, engine=engine, what=WHAT)
    for host in debian13.hosts:
        assert not complaints(host)
