# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation as Ansible renders it, held against what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import matrix
from tests.conftest import ROOT, RunTool
from tests.static.make_rules import DECISIONS, stale

COLLECTION = "livemigrate.criu"
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
ACTIONS = sorted(path.stem for path in (ROOT / "plugins" / "action").glob("*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _playbook(name: str) -> list[dict[str, Any]]:
    plays: list[dict[str, Any]] = _yaml(ROOT / "playbooks" / f"{name}.yml")
    return plays


def _documentation(run_tool: RunTool, kind: str, names: list[str]) -> dict[str, Any]:
    full = [f"{COLLECTION}.{name}" for name in names]
    output = run_tool(["ansible-doc", "-t", kind, "--json", *full], name=f"ansible-doc-{kind}s")
    # Warnings may stand before and after it.
    docs: dict[str, Any] = json.JSONDecoder().raw_decode(output[output.index("{") :])[0]
    return docs


@pytest.fixture(scope="module")
def module_docs(run_tool: RunTool) -> dict[str, Any]:
    return _documentation(run_tool, "module", MODULES)


@pytest.fixture(scope="module")
def role_docs(run_tool: RunTool) -> dict[str, Any]:
    return _documentation(run_tool, "role", ROLES)


def test_there_is_something_to_check() -> None:
    assert "criu_check" in MODULES
    assert {"criu", "docker", "checkpointing"} <= set(ROLES)


def test_action_group_names_every_module() -> None:
    groups = _yaml(ROOT / "meta" / "runtime.yml")["action_groups"]
    assert groups["criu"] == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_module(module: str, module_docs: dict[str, Any], run_tool: RunTool) -> None:
    docs = module_docs[f"{COLLECTION}.{module}"]
    attributes = docs["doc"]["attributes"]
    assert {"check_mode", "diff_mode", "idempotent"} <= set(attributes)
    for name, attribute in attributes.items():
        if attribute["support"] == "partial" or (attribute["support"] == "none" and name != "diff_mode"):
            assert attribute.get("details"), f"{name}: says {attribute['support']}, but not when or why"
    examples = yaml.safe_load(docs["examples"])
    assert examples
    # Tasks may sit in a block or a play.
    assert f"{COLLECTION}.{module}" in docs["examples"]
    assert docs["return"], "returns nothing?"
    for name, value in docs["return"].items():
        assert {"description", "returned", "type"} <= set(value), name
    # The text for people, not only the data.
    assert module in run_tool(["ansible-doc", "-t", "module", f"{COLLECTION}.{module}"], name=f"ansible-doc-{module}")


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_has_a_module_that_documents_it(name: str) -> None:
    """The work of such a module is done on the control node. Both take the same argument spec; ansible-test holds "
    "it against the text."""
    assert name in MODULES


def test_the_list_of_rules_is_up_to_date() -> None:
    """docs/rules.md and the versions in docs/support.md say what the rules say (`make rules` writes them)."""
    assert stale() == []
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert "| `name_taken` | error |" in text


@pytest.mark.parametrize("path", sorted(DECISIONS.glob("0*.md")), ids=lambda path: path.name[:4])
def test_a_decision_has_a_title_and_says_what_was_decided_and_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    headings = [line for line in lines if line.startswith("## ")]
    assert headings[:2] == ["## Context", "## Decision"]
    assert headings[2:] in ([], ["## Consequences"])


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert len(pages) > 80
    assert broken == []


def test_the_matrix_is_up_to_date() -> None:
    """The matrix in docs/support.md says what tests/matrix.json says (`make matrix` writes it)."""
    assert matrix.SUPPORT.read_text(encoding="utf-8") == matrix.text()
    # Whoever changes the one by hand and not the other is found: the table is not empty.
    assert "| from | to |" in matrix.text()


@pytest.mark.parametrize("role", ROLES)
def test_role(role: str, role_docs: dict[str, Any]) -> None:
    assert role_docs[f"{COLLECTION}.{role}"]["entry_points"]["main"]["short_description"]
    assert (ROOT / "roles" / role / "README.md").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_role_defaults_are_the_documented_ones(role: str) -> None:
    """defaults/main.yml and meta/argument_specs.yml say the same, and the README names every variable."""
    defaults: dict[str, Any] = _yaml(ROOT / "roles" / role / "defaults" / "main.yml") or {}
    entries: dict[str, Any] = _yaml(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    options: dict[str, Any] = {}
    for entry in entries.values():
        options.update(entry.get("options", {}))
    assert set(defaults) - set(options) == set(), "a default without documentation"
    for name, option in options.items():
        value = defaults.get(name)
        if isinstance(value, str) and "{{" in value:
            # Computed: the documentation tells it in words.
            continue
        assert option.get("default") == value, f"{name}: its default and the documented one"
    readme = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    unnamed = [name for name in options if name not in readme]
    assert not unnamed, "not in the role's README.md"


def test_changelog_names_everything() -> None:
    text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    # One `antsibull-changelog release` (or `release --update-existing`) brings it up to date.
    imported = {play.get("ansible.builtin.import_playbook") for name in PLAYBOOKS for play in _playbook(name)}
    playbooks = [name for name in PLAYBOOKS if f"{name}.yml" not in imported]
    assert "migrate" in playbooks
    missing = [name for name in (*MODULES, *ROLES, *playbooks) if f"- {COLLECTION}.{name} -" not in text]
    assert not missing
