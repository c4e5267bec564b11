# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every Molecule scenario of extensions/molecule, one by one on the lab.

By hand: `make lab-up`, then `molecule test --scenario-name criu` in the root of the checkout.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, RunTool
from tests.lab import Lab

MOLECULE = ROOT / "extensions" / "molecule"
# What the later ones build on.
FIRST = ["criu", "docker", "checkpointing"]
SECONDS = 1200

# Molecule's own steps, and Ansible's plays.
STEPS = r" > [a-z_]+\] Execut|^PLAY \["


def scenarios() -> list[str]:
    """Names of the scenarios in the order in which they run."""
    names = sorted(path.parent.name for path in MOLECULE.glob("*/molecule.yml"))
    return [*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST)]


def test_every_role_has_a_scenario() -> None:
    roles = {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()}
    converged = {path.parent.name: path.read_text(encoding="utf-8") for path in MOLECULE.glob("*/converge.yml")}
    unproved = [role for role in roles if not any(f"livemigrate.criu.{role}" in text for text in converged.values())]
    assert roles
    assert not unproved


@pytest.mark.parametrize("scenario", scenarios())
def test_scenario(scenario: str, lab: Lab, run_tool: RunTool) -> None:
    # Molecule remembers, in the home directory, that this path has been prepared once, and then skips the step.
    run_tool(
        [sys.executable, "-m", "molecule", "reset", "--scenario-name", scenario], name=f"molecule-{scenario}-reset"
    )
    output = run_tool(
        [sys.executable, "-m", "molecule", "test", "--scenario-name", scenario],
        name=f"molecule-{scenario}",
        env={"LIVEMIGRATE_INVENTORY": str(lab.inventory)},
        timeout=SECONDS,
        show=STEPS,
    )
    # Molecule is content with plays that find no host, and Ansible with plays that do nothing.
    assert "no hosts matched" not in output
    steps = _sequence(scenario)
    assert "verify" in steps
    for step in steps:
        assert f"[{scenario} > {step}] Executed: Successful" in output, f"no sign of the step {step}"
    assert re.search(r"^(?!localhost )\S+ +: ok=[1-9]", output, re.MULTILINE), "not one task ran on a host"


def _sequence(scenario: str) -> list[str]:
    sequence: list[str] = []
    for path in (MOLECULE / "config.yml", MOLECULE / scenario / "molecule.yml"):
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        sequence = config.get("scenario", {}).get("test_sequence", sequence)
    return sequence
