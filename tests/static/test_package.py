# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user installs: the built tarball, and its playbooks by their full names."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, RunTool

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))

# All that may be at the top of the tarball. A new name here is a decision, not an accident.
SHIPPED = {
    "CHANGELOG.rst",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "inventory.example",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}
# Of the shipped directories every file of the repository must be there, but for these.
NOT_SHIPPED = ("changelogs/fragments/",)


@pytest.fixture(scope="module")
def tarball(run_tool: RunTool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built in the checkout itself with all that lies about there."""
    target = tmp_path_factory.mktemp("built")
    run_tool(["ansible-galaxy", "collection", "build", "--output-path", target], name="galaxy-build")
    (built,) = target.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(run_tool: RunTool, tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path that holds nothing but the installed tarball."""
    target = tmp_path_factory.mktemp("installed")
    run_tool(
        ["ansible-galaxy", "collection", "install", tarball, "--offline", "--collections-path", target],
        name="galaxy-install",
        cwd=target,
        # Else the checkout itself would count as installed.
        env={"ANSIBLE_COLLECTIONS_PATH": str(target)},
    )
    return target


def test_tarball_holds_what_it_should(tarball: Path, repository_files: list[Path]) -> None:
    with tarfile.open(tarball) as archive:
        packed = {member.name for member in archive if not member.isdir()}
        links = [member.name for member in archive if member.issym() or member.islnk()]
    assert not links
    known = {str(path) for path in repository_files}
    assert packed - known == {"MANIFEST.json", "FILES.json"}, "packed, but no file of the repository"
    assert {Path(name).parts[0] for name in packed} <= SHIPPED
    expected = {name for name in known if Path(name).parts[0] in SHIPPED and not name.startswith(NOT_SHIPPED)}
    expected = {name for name in expected if not any(part.startswith(".") for part in Path(name).parts)}
    assert expected - packed == set(), "of the repository, but not packed"
    assert packed >= {"README.md", "LICENSE", "meta/runtime.yml", "CHANGELOG.rst"}


def test_there_are_playbooks() -> None:
    assert "migrate" in PLAYBOOKS


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_installed_playbook_by_its_full_name(playbook: str, installed: Path, run_tool: RunTool) -> None:
    output = run_tool(
        [
            "ansible-playbook",
            "--inventory",
            ROOT / "inventory.example",
            "--list-tasks",
            "--extra-vars",
            "container=example",
            f"livemigrate.criu.{playbook}",
        ],
        name=f"installed-{playbook}",
        # Not the checkout: its ansible.cfg leads to .tree.
        cwd=installed,
        env={"ANSIBLE_COLLECTIONS_PATH": str(installed)},
    )
    assert "TAGS:" in output
    assert "WARNING" not in output


def test_inventory_example(run_tool: RunTool) -> None:
    output = run_tool(
        ["ansible-inventory", "--inventory", "inventory.example", "--list"],
        name="inventory-example",
        env={"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"},
    )
    groups: dict[str, Any] = json.loads(output)
    assert len(groups["source"]["hosts"]) == 1
    assert len(groups["destination"]["hosts"]) == 1
    assert groups["source"]["hosts"] != groups["destination"]["hosts"]


def test_requirements_are_pinned() -> None:
    lines = [line.split(";")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    loose = [line for line in lines if line and not line.startswith("#") and "==" not in line]
    assert not loose


def test_versions_agree() -> None:
    """galaxy.yml's version is the newest one of the changelog."""
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    changelog = yaml.safe_load((ROOT / "changelogs" / "changelog.yaml").read_text())
    released = max(changelog["releases"], key=lambda version: [int(part) for part in version.split(".")])
    assert galaxy["version"] == released


def test_changelog_lint(run_tool: RunTool) -> None:
    run_tool(["antsibull-changelog", "lint"], name="antsibull-changelog-lint")
    run_tool(
        ["antsibull-changelog", "lint-changelog-yaml", "changelogs/changelog.yaml"], name="antsibull-changelog-yaml"
    )
