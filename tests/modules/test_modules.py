# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the tests in hosts/ in a pytest of their own, with pytest-ansible's host fixtures and the lab's inventory.

By hand, with the lab up: `pytest tests/modules`. A process of its own because pytest-ansible hooks into every import,
parses sys.argv, and is at its end of life: nothing else may come to lean on it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import LOGS, ROOT, RunTool
from tests.moves.inventories import write_inventory

HOSTS = Path(__file__).parent / "hosts"
LEAST = 6


@pytest.mark.usefixtures("lab")
def test_modules_on_the_lab(run_tool: RunTool, tmp_path: Path) -> None:
    # Not the lab's own inventory: in that one other hosts appear when other tests need them.
    inventory = write_inventory(tmp_path / "hosts.yml", lab=["alpha", "beta", "gamma"])
    report = LOGS / "modules.xml"
    report.unlink(missing_ok=True)
    run_tool(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            HOSTS / "pytest.ini",
            f"--junitxml={report}",
            f"--ansible-inventory={inventory}",
            # Takes the collection from ANSIBLE_COLLECTIONS_PATH; without it pytest-ansible lays a link tree.
            "--ansible-unit-inject-only",
            HOSTS,
        ],
        name="modules",
        cwd=HOSTS,
        show=r"(PASSED|FAILED|ERROR)",
    )
    suite = ET.parse(report).getroot()[0]  # noqa: S314 - pytest has just written it
    # What did not run has not passed.
    assert int(suite.attrib["tests"]) >= LEAST
    assert suite.attrib["skipped"] == "0"
    assert not (ROOT / "collections").exists()
    assert not (HOSTS / "collections").exists()
