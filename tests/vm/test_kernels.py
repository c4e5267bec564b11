# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves between Debian releases as they are: kernels 6.1, 6.12 and 7.2, each with its own CRIU and Docker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import matrix
from tests.conftest import LAB_SCRIPT, RunTool
from tests.lab.api import Lab
from tests.moves.inventories import write_inventory
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.vm.conftest import MOVE_SECONDS, SLOW, Start
from tests.vm.stock import IN_FORCE, LIMITS, complaints, confinement
from tests.vm.test_debian13 import WHAT
from tests.workloads.host import Host

pytestmark = pytest.mark.vm


def test_from_debian_13_to_forky(debian13: Pair, forky: Host, start: Start) -> None:
    _moves(start, debian13.alpha, forky)


def test_from_forky_to_debian_13_is_refused(debian13: Pair, forky: Host, start: Start) -> None:
    """An older CRIU cannot read what a newer one has written; this is told before anything is touched."""
    _is_refused(start, forky, debian13.alpha, "criu_not_older")


def test_between_kernels_in_both_directions(debian13_newer_criu: Host, forky: Host, start: Start) -> None:
    """Kernel 6.12 and 7.2, with one CRIU on both: there and back."""
    _moves(start, debian13_newer_criu, forky, back=True)


def test_criu_4_3_and_runc_1_4_of_experimental(forky: Host, forky_experimental: Host, start: Start) -> None:
    """There from the older ones, and not back to them."""
    assert "runc version 1.4" in forky_experimental.run(["runc", "--version"]).stdout
    assert "Version: 4.3" in forky_experimental.run(["criu", "--version"]).stdout
    _moves(start, forky, forky_experimental)
    _is_refused(start, forky_experimental, forky, "criu_not_older")


def test_debian_12_is_refused_when_it_is_provisioned(
    lab_ground: Lab,  # noqa: ARG001 - the lab goes down at its end
    run_tool: RunTool,
    tmp_path: Path,
) -> None:
    """Its CRIU dumps, and crashes over an action script when it restores: found by trying, before any container is touched."""
    lab_up = [sys.executable, LAB_SCRIPT, "up", "vmo", "--flavour", "vm-bookworm"]
    run_tool(lab_up, name="lab-up-vmo", timeout=1800, show=r"\S")
    host = Host.of_lab("vmo")
    inventory = write_inventory(tmp_path / "vmo.yml", source=["vmo"], destination=[])
    provision = Migration("", playbook="provision.yml", inventory=inventory)
    provision.fail_with(
        "CRIU 3.17.1 crashed on kernel 6.1.",
        "BUG at criu/action-scripts.c:172",
        "Bring another CRIU to this host",
        timeout=MOVE_SECONDS,
    )
    result = "refused by `provision.yml`: CRIU 3.17.1 crashes in a restore (`BUG at criu/action-scripts.c:172`)"
    matrix.note(host, host, engine="runtime", what="the container that `provision.yml` tries CRIU with", result=result)


def _moves(start: Start, source: Host, destination: Host, *, back: bool = False) -> None:
    moving = start(source, [source, destination], *LIMITS)
    ways = [(source, destination), (destination, source)]
    for here, there in ways if back else ways[:1]:
        moving.move(here, there).succeed(timeout=MOVE_SECONDS)
        moving.assert_runs_on(there, timeout=6 * SLOW)
        assert confinement(there, moving.name) == IN_FORCE
        matrix.note(here, there, engine="runtime", what=WHAT)
    for host in (source, destination):
        assert not complaints(host)


def _is_refused(start: Start, source: Host, destination: Host, rule: str) -> None:
    moving = start(source, [source, destination], *LIMITS)
    moving.move(source, destination).fail_with(rule, timeout=MOVE_SECONDS)
    moving.assert_runs_on(source, timeout=6 * SLOW)
    matrix.note(source, destination, engine="runtime", what=WHAT, result=f"refused: `{rule}`")
