# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian 13 as released, with nothing but provision.yml and migrate.yml and their defaults: a container moves, there and back."""

from __future__ import annotations

import pytest

from tests import matrix
from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.vm.conftest import MOVE_SECONDS, SLOW, Start
from tests.vm.stock import IN_FORCE, LIMITS, complaints, confinement
from tests.workloads.host import Host

pytestmark = pytest.mark.stock

WHAT = "limits, AppArmor's docker-default, a published port"


def test_there_and_back(debian13: Pair, start: Start) -> None:
    """Limits, AppArmor's profile and the published port are in force on both hosts, and the kernel has nothing to say.

    There with the engine that is chosen by default, and back with the other one: each move costs CI minutes.
    """
    here, there = debian13.hosts
    moving = start(here, [here, there], *LIMITS, "--restart", "unless-stopped")
    assert confinement(here, moving.name) == IN_FORCE
    _arrives(moving.move(here, there), moving, here, there, "runtime")
    _arrives(moving.move(there, here, "-e", "migrate_engine=api"), moving, there, here, "api")
    for host in debian13.hosts:
        assert not complaints(host)


def _arrives(migration: Migration, moving: Moving, source: Host, destination: Host, engine: str) -> None:
    output = migration.succeed(timeout=MOVE_SECONDS)
    assert f"Engine {engine}" in output
    # By the published port.
    moving.assert_runs_on(destination, timeout=6 * SLOW)
    assert confinement(destination, moving.name) == IN_FORCE
    matrix.note(source, destination, engine=engine, what=WHAT)
