# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base of the virtual machines can be made; their tests come last and find it in the cache."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import LAB_SCRIPT, RunTool
from tests.lab.settings import load_settings


@pytest.mark.stock
@pytest.mark.lab
@pytest.mark.lane("images")
def test_the_base_of_debian_13_is_made(run_tool: RunTool) -> None:
    run_tool([sys.executable, LAB_SCRIPT, "base", "vm-trixie"], name="lab-base-vm", timeout=1200, show=r"\S")
    assert list(load_settings().cache.glob("vm-trixie-*"))
