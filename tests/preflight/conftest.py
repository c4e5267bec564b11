# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hosts with Docker 28.5 and the programs that hold what cannot be moved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunTool
from tests.lab.api import Lab
from tests.moves.inventories import write_inventory
from tests.moves.pair import Pair
from tests.moves_runtime.conftest import forky_base, start_pair
from tests.preflight.ground import PLACE, ground

__all__ = ["forky_base"]


@pytest.fixture(scope="session")
def hosts(forky_base: str, lab_ground: Lab, run_tool: RunTool, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """zeta and eta with Docker 28.5; hold.py lies on both, so that to mount it is no finding."""
    found = start_pair(lab_ground, forky_base, ["zeta", "eta"], run_tool, tmp_path_factory.mktemp("pair"))
    program = (Path(__file__).parent / "hold.py").read_text(encoding="utf-8")
    for host in found.hosts:
        host.run(["mkdir", "-p", PLACE])
        host.run(["tee", f"{PLACE}/hold.py"], text_input=program)
    return found


@pytest.fixture(scope="session")
def inventory(hosts: Pair, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An inventory in which the first of them is the source."""
    path = tmp_path_factory.mktemp("preflight") / "hosts.yml"
    return write_inventory(path, source=[hosts.alpha.name], destination=[hosts.beta.name])


@pytest.fixture
def clean(hosts: Pair, inventory: str) -> Iterator[Pair]:
    """The same hosts; what a test makes on them is taken away at its end."""
    with ground(hosts, inventory):
        yield hosts
