# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""recover.yml carries the destination's decision to a source that cannot ask any more, and nothing else lets that source go
on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.helpers.mounted_host import MountedHost
from tests.unit.helpers.support import ROOT

# Each session by what its destination has to say of it.
REFUSED = "20261123T000001Z-3f9a1c"
REFUSED_LONG_AGO = "20261123T000002Z-3f9a1c"
RUN_LONG_AGO = "20261123T000003Z-3f9a1c"
UNDECIDED = "20261123T000004Z-3f9a1c"
SESSIONS = (REFUSED, REFUSED_LONG_AGO, RUN_LONG_AGO, UNDECIDED)

HANDED_OVER = ["prepared", "arming", "armed", "freezing", "dumped", "sent", "held"]


@pytest.fixture
def hosts(tmp_path: Path, needs_namespaces: None) -> Iterator[tuple[MountedHost, MountedHost]]:  # noqa: ARG001
    """A source whose key opens nothing any more, and its destination."""
    made: list[MountedHost] = []
    try:
        made.append(MountedHost("alpha", tmp_path, ssh=("root@127.0.0.1: Permission denied (publickey).", 255)))
        made.append(MountedHost("beta", tmp_path, ssh=("nobody asks from here", 255)))
        source, destination = made
        for number, session in enumerate(SESSIONS):
            container = f"{number:064x}"
            facts = {
                "container_id": container,
                "container_name": f"web{number}",
                "engine": "runtime",
                "data_root": "/var/lib/docker",
            }
            source.open(session, "source", HANDED_OVER, "GO_SENT", **facts)
            if session == UNDECIDED:
                destination.open(session, "destination", ["creating", "created"], "REFUSED", **facts)
            elif session == RUN_LONG_AGO:
                destination.open(
                    session, "destination", ["creating", "created", "starting", "run"], "RUN", closed=True, **facts
                )
            else:
                phases = ["creating", "created", "starting", "refused"]
                closed = session == REFUSED_LONG_AGO
                destination.open(session, "destination", phases, "REFUSED", closed=closed, **facts)
        yield source, destination
    finally:
        for host in made:
            host.stop()


def _recover(
    hosts: tuple[MountedHost, MountedHost], directory: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the playbook."""
    group = {
        role: {
            "hosts": {
                host.name: {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": str(host.interpreter),
                    "ansible_become": False,
                }
            }
        }
        for role, host in zip(("source", "destination"), hosts, strict=True)
    }
    inventory = directory / "inventory.json"
    inventory.write_text(json.dumps({"all": {"children": group}}))
    return subprocess.run(
        [
            "ansible-playbook",
            "-i",
            str(inventory),
            str(ROOT / "playbooks" / "recover.yml"),
            "-e",
            "migrate_wait=1",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(300)
def test_the_decision_is_carried_where_the_key_is_gone(hosts: tuple[MountedHost, MountedHost], tmp_path: Path) -> None:
    source, destination = hosts
    before = source.sessions()
    assert {phases[-1] for _decision, phases in before.values()} == {"held"}

    # Without the destination nothing is known: a key that is refused is no host that is lost.
    lost = ["--limit", "alpha", "-e", f"recover_destination_lost={REFUSED}"]
    done = _recover(hosts, tmp_path, *lost)
    assert done.returncode != 0
    printed = " ".join(done.stdout.split())
    assert "a destination counts as lost only when no connection to it can be made" in printed
    assert source.sessions() == before

    done = _recover(hosts, tmp_path)
    assert done.returncode == 0, done.stdout
    phases = {session: phases[-2:] for session, (_decision, phases) in source.sessions().items()}
    assert phases == {
        REFUSED: ["aborted", "closed"],
        REFUSED_LONG_AGO: ["aborted", "closed"],
        RUN_LONG_AGO: ["committed", "closed"],
        UNDECIDED: ["aborted", "closed"],
    }
    # What has been heard need not stay.
    assert list(destination.sessions()) == [RUN_LONG_AGO]
