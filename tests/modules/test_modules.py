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

from tests.conftest import LOGS, ROOT, RunTool
from tests.lab import Lab

HOSTS = Path(__file__).parent / "hosts"
LEAST = 6


def test_modules_on_the_lab(lab: Lab, run_tool: RunTool) -> None:
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
            f"--ansible-inventory={lab.inventory}",
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
