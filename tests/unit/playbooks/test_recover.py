# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which halves recover.yml closes, and what cleanup.yml forgets: the playbooks, beside a module that notes what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

# One for each case, in the order in which they are told below.
SESSIONS = [f"20261123T03450{number}Z-3f9a1c" for number in range(9)]

# Tells the sessions that a test has put down for a host, and notes what else it was asked.
_MODULE = """\
import json
import os
from ansible.module_utils.basic import AnsibleModule
names = ("state", "role", "session", "ignore_lease", "other_half_settled", "wait", "destination_lost", "destination_decision")
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

# Each run of the playbook takes ten seconds, and several times that beside other tests.
pytestmark = pytest.mark.timeout(300)

Sessions = list[dict[str, Any]]


def _session(number: int, role: str, phase: str, peer: str, **more: Any) -> dict[str, Any]:
    reported = {
        "session": SESSIONS[number],
        "container_name": f"web{number}",
        "story": "",
        "ended": False,
        "lease_left": 0.0,
    }
    reported.update(decision=None, unknown_to_source=False, declared_lost=False)
    return {**reported, "role": role, "phase": phase, "peer": peer, **more}


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


def _recover(place: Path, sources: dict[str, Sessions], destinations: dict[str, Sessions], *arguments: str) -> str:
    """Run the playbook for hosts that have these sessions; what it says."""
    printed = _play("recover.yml", place, sources, destinations, *arguments)
    # To the end, where it says that something is unfinished: here what sessions say never changes.
    assert "Tell what is unfinished still" in printed
    return printed


def _play(
    playbook: str, place: Path, sources: dict[str, Sessions], destinations: dict[str, Sessions], *arguments: str
) -> str:
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
        [program, "-i", place / "inventory.json", ROOT / "playbooks" / playbook, *arguments],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(place), "ANSIBLE_HOME": str(place / "ansible")},
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join(done.stdout.split())


def _asked(place: Path, host: str, **what: str) -> list[dict[str, str]]:
    """What the module was asked on a host, as far as it was this."""
    file = place / host / "asked"
    asked = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [one for one in asked if what.items() <= one.items()]


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The playbook has been run for all the cases at once: where the hosts' notes are, and what it said."""
    place = tmp_path_factory.mktemp("recovered")
    lost = {"decision": "GO_SENT", "declared_lost": True, "ended": True}
    alpha = [
        _session(0, "source", "aborted", "beta"),
        _session(1, "source", "committed", "beta"),
        # Closed there, and cut off here before that could be noted.
        _session(2, "source", "aborted", "beta"),
        # An inventory may have another name for the host.
        _session(3, "source", "aborted", "beta.example"),
        # Of hosts that are not looked at.
        _session(4, "source", "aborted", "delta"),
        _session(5, "source", "committed", "delta"),
        # Their destination was declared lost.
        *(_session(number, "source", "closed", "beta", **lost) for number in (6, 7, 8)),
    ]
    beta = [
        *(_session(number, "destination", "refused", "alpha", decision="REFUSED") for number in (0, 1, 3)),
        _session(6, "destination", "closed", "alpha", decision="RUN", ended=True),
        _session(7, "destination", "run", "alpha", decision="RUN"),
        _session(8, "destination", "refused", "alpha", decision="REFUSED"),
    ]
    return place, _recover(place, {"alpha": alpha}, {"beta": beta})


def test_halves_whose_other_half_was_looked_at_are_closed(recovered: tuple[Path, str]) -> None:
    """The others stay open: their other half may wait to be told, and the channel to it would go with this one."""
    place, _printed = recovered
    closed = [one["session"] for one in _asked(place, "alpha", role="source", other_half_settled="True")]
    assert closed == SESSIONS[:4]


def test_what_runs_twice_is_reported_and_not_made_to_last(recovered: tuple[Path, str]) -> None:
    """The source went on because its destination was declared lost, and that had said RUN and has come back."""
    place, printed = recovered
    for number in (6, 7):
        assert f"web{number} RUNS TWICE, or may: here, and on alpha" in printed
        assert f"cleanup_session={SESSIONS[number]}" in printed
        assert f"web{number} runs twice, see above" in printed
        assert not _asked(place, "beta", role="destination", session=SESSIONS[number])


def test_what_was_refused_does_not_run_twice(recovered: tuple[Path, str]) -> None:
    place, printed = recovered
    assert "web8 RUNS TWICE" not in printed
    assert _asked(place, "beta", role="destination", session=SESSIONS[8], other_half_settled="True")


def test_a_destination_that_ansible_reaches_is_not_lost(tmp_path: Path) -> None:
    """The hosts may have lost each other, and Ansible reach both by another network: the decision is carried, and not
    overridden."""
    mine = _session(0, "source", "held", "beta", decision="GO_SENT")
    theirs = _session(0, "destination", "run", "alpha", decision="RUN")
    printed = _recover(tmp_path, {"alpha": [mine]}, {"beta": [theirs]}, "-e", f"recover_destination_lost={SESSIONS[0]}")
    assert "It is not lost; its decision is carried to the source" in printed
    assert not [one for one in _asked(tmp_path, "alpha") if "destination_lost" in one]
    assert _asked(tmp_path, "beta", state="decided", session=SESSIONS[0])


def test_a_destination_that_was_not_looked_at_may_be_lost(tmp_path: Path) -> None:
    mine = _session(0, "source", "held", "beta", decision="GO_SENT")
    others = [_session(1, "destination", "held", "alpha")]
    printed = _recover(tmp_path, {"alpha": [mine]}, {"gamma": others}, "-e", f"recover_destination_lost={SESSIONS[0]}")
    assert "It is not lost" not in printed
    assert _asked(tmp_path, "alpha", state="settled", role="source", destination_lost=SESSIONS[0])


def test_a_session_that_its_source_has_not_ended_is_not_forgotten(tmp_path: Path) -> None:
    """Its destination has the only decision that the source waits for."""
    mine = _session(0, "source", "held", "beta", decision="GO_SENT")
    theirs = _session(0, "destination", "closed", "alpha", decision="REFUSED", ended=True, unknown_to_source=True)
    printed = _play(
        "cleanup.yml", tmp_path, {"alpha": [mine]}, {"beta": [theirs]}, "-e", f"cleanup_session={SESSIONS[0]}"
    )
    assert f"Session {SESSIONS[0]} is not at its end here" in printed
    assert not _asked(tmp_path, "alpha", state="cleaned") + _asked(tmp_path, "beta", state="cleaned")
