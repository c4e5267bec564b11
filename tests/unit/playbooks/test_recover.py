# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which halves recover.yml closes: the playbook itself, beside a module that notes what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SESSION = "20261123T034500Z-3f9a1c"

# Tells the sessions that a test has put down for a host, and notes what else it was asked.
_MODULE = """\
import json
import os
from ansible.module_utils.basic import AnsibleModule
names = ("state", "role", "session", "abandoned", "peer_settled", "wait", "destination_lost", "destination_word")
module = AnsibleModule({name: {"type": "raw"} for name in names}, supports_check_mode=True)
place = os.environ["HOST_PLACE"]
asked = {name: str(value) for name, value in module.params.items() if value is not None}
if asked:
    with open(os.path.join(place, "asked"), "a") as handle:
        handle.write(json.dumps(asked) + "\\n")
with open(os.path.join(place, "sessions.json")) as handle:
    module.exit_json(sessions=json.load(handle))
"""

_PYTHON = """\
#!/bin/sh
HOST_PLACE={place} exec {python} "$@"
"""

Sessions = list[dict[str, Any]]


def _session(role: str, phase: str, peer: str, **more: Any) -> dict[str, Any]:
    told = {"session": SESSION, "container_name": "web", "story": "a story", "ended": False, "lease_left": 0.0}
    told.update(decision=None, unheard=False)
    return {**told, "role": role, "phase": phase, "peer": peer, **more}


def _host(place: Path, sessions: Sessions) -> dict[str, Any]:
    """A host that has these sessions, for the inventory."""
    place.mkdir()
    (place / "sessions.json").write_text(json.dumps(sessions))
    python = place / "python"
    python.write_text(_PYTHON.format(place=place, python=sys.executable))
    python.chmod(0o755)
    return {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": str(python),
        "ansible_remote_tmp": str(place / "tmp"),
    }


def _recover(place: Path, sources: dict[str, Sessions], destinations: dict[str, Sessions]) -> None:
    """Run the playbook for hosts that have these sessions."""
    modules = place / "ansible_collections" / "livemigrate" / "criu" / "plugins" / "modules"
    modules.mkdir(parents=True)
    (modules / "migration_session.py").write_text(_MODULE)
    groups = {"source": sources, "destination": destinations}
    inventory = {
        group: {"hosts": {name: _host(place / name, sessions) for name, sessions in hosts.items()}}
        for group, hosts in groups.items()
    }
    (place / "inventory.json").write_text(json.dumps(inventory))
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", place / "inventory.json", ROOT / "playbooks" / "recover.yml"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(place), "ANSIBLE_HOME": str(place / "ansible")},
        capture_output=True,
        text=True,
        check=False,
    )
    # To the end, where it says that something is unfinished: here what sessions say never changes.
    assert "Tell what is unfinished still" in done.stdout, done.stdout + done.stderr


def _closed(place: Path, host: str) -> list[str]:
    """The sessions whose half on a source was closed in the belief that the other half knows."""
    told = (place / host / "asked").read_text().splitlines()
    asked = [json.loads(line) for line in told]
    return [one["session"] for one in asked if one.get("role") == "source" and one.get("peer_settled") == "True"]


@pytest.mark.parametrize("phase", ["aborted", "committed"])
def test_a_half_whose_other_half_was_looked_at_is_closed(phase: str, tmp_path: Path) -> None:
    mine, theirs = _session("source", phase, "beta"), _session("destination", "refused", "alpha")
    _recover(tmp_path, {"alpha": [mine]}, {"beta": [theirs]})
    assert _closed(tmp_path, "alpha") == [SESSION]


def test_a_half_whose_other_half_is_gone_from_its_host_is_closed(tmp_path: Path) -> None:
    """That was closed, and the source was cut off before it could note it."""
    _recover(tmp_path, {"alpha": [_session("source", "aborted", "beta")]}, {"beta": []})
    assert _closed(tmp_path, "alpha") == [SESSION]


def test_an_inventory_may_have_another_name_for_the_host(tmp_path: Path) -> None:
    mine, theirs = _session("source", "aborted", "beta"), _session("destination", "refused", "alpha")
    _recover(tmp_path, {"alpha": [mine]}, {"beta.example": [theirs]})
    assert _closed(tmp_path, "alpha") == [SESSION]


@pytest.mark.parametrize("phase", ["aborted", "committed"])
def test_a_half_whose_other_half_was_not_looked_at_stays_open(phase: str, tmp_path: Path) -> None:
    """It may wait there to be told, and the channel to it would go with this half."""
    others = [_session("destination", "held", "alpha", session="20261123T034501Z-000000")]
    _recover(tmp_path, {"alpha": [_session("source", phase, "beta")]}, {"gamma": others})
    assert _closed(tmp_path, "alpha") == []
