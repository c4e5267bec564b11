# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The article's WordPress on stock Debian 13, without privileges: every worker goes on with its memory, there and back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import matrix
from tests.conftest import ROOT, RunTool
from tests.moves.pair import Pair
from tests.moves_runtime.test_wordpress import assert_all_there, running_site
from tests.vm.conftest import MOVE_SECONDS, SLOW
from tests.vm.stock import complaints
from tests.workloads import wordpress_state

pytestmark = pytest.mark.vm


def test_there_and_back(debian13: Pair, run_tool: RunTool, tmp_path: Path) -> None:
    """Post, upload, PHP session, shared memory and worker processes are those from before. Its database stays on gamma."""
    lab_up = [sys.executable, ROOT / "tests" / "lab" / "lab.py", "up", "gamma"]
    run_tool(lab_up, name="lab-up-gamma", timeout=1200, show=r"\S")
    here, there = debian13.hosts
    with running_site(debian13, tmp_path, ["--memory", "512m"], timeout=MOVE_SECONDS) as (moving, password):
        noted = wordpress_state.fill(moving.site(here), "admin", password)
        for source, destination in ((here, there), (there, here)):
            moving.move(source, destination).succeed(timeout=MOVE_SECONDS)
            moving.assert_runs_on(destination, timeout=6 * SLOW)
            assert_all_there(moving.site(destination), noted, timeout=30 * SLOW)
            matrix.note(source, destination, engine="runtime", what="WordPress (Apache and PHP)")
    for host in debian13.hosts:
        assert not complaints(host)
