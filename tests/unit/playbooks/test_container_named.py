# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person may write as a container's name: the role's own tasks and the playbook, in one run of each, without any host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

# The next thing that the role misses when it is content with the name.
CONTENT = "The destination (not set) has to be a host of the inventory"
NAMED: list[tuple[Any, str]] = [
    ("web", CONTENT),
    (2200, CONTENT),
    ("2200", CONTENT),
    ("true", CONTENT),
    ("null", CONTENT),
    ("", "Name the container to move"),
    (None, "Name the container to move"),
    (True, "named by True, which is no text (bool)"),
    (1.1, "named by 1.1, which is no text (float)"),
    (["web"], "which is no text (list)"),
    ({}, "which is no text (dict)"),
]


def _play(container: Any) -> list[dict[str, Any]]:
    """Tasks that tell what the role says of a name."""
    role = {"name": "livemigrate.criu.migrate", "tasks_from": "preflight.yml"}
    return [
        {
            "block": [{"ansible.builtin.include_role": role, "vars": {"migrate_container": container}}],
            "rescue": [{"ansible.builtin.debug": {"msg": "TOLD {{ ansible_failed_result.msg }}"}}],
        }
    ]


def test_every_name_that_docker_takes_and_a_clear_error_for_what_is_none(tmp_path: Path) -> None:
    tasks = [task for container, _text in NAMED for task in _play(container)]
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    playbook = tmp_path / "names.yml"
    playbook.write_text(json.dumps(play), encoding="utf-8")
    printed = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", playbook], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    reported = [line for line in printed.splitlines() if '"msg": "TOLD ' in line]
    assert len(reported) == len(NAMED), printed[-3000:]
    wrong = [(name, line) for (name, text), line in zip(NAMED, reported, strict=True) if text not in line]
    assert wrong == []


@pytest.mark.parametrize("container", [None, ""])
def test_a_cleanup_that_names_nothing_does_not_mean_everything(container: str | None, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.json"
    hosts = {"hosts": {"nowhere": {"ansible_connection": "local"}}}
    inventory.write_text(json.dumps({"all": {"children": {"source": hosts}}}), encoding="utf-8")
    arguments = ["-e", json.dumps({"container": container, "ansible_become": False})]
    done = subprocess.run(
        ["ansible-playbook", "-i", inventory, "playbooks/cleanup.yml", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "names no container" in " ".join(done.stdout.split()), done.stdout
    assert "Remove the old copies of finished" not in done.stdout
