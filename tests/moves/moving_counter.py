# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A counter that moves from host to host, and what its sessions and the summary of its move tell."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.moves.inventories import of_all, write_inventory
from tests.moves.nothing_left import forget
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host
from tests.workloads.probe import Answer, wait_for_answer


@dataclass
class Moving:
    """A counter that moves between hosts."""

    name: str
    port: int
    inventories: Path
    first: Answer
    hosts: list[Host] = field(default_factory=list)

    def url(self, host: Host) -> str:
        """Where it answers if it runs there."""
        return f"http://{host.address}:{self.port}/"

    def move(self, source: Host, destination: Host, *arguments: str) -> Migration:
        """Begin to move it."""
        path = self.inventories / f"{source.name}-{destination.name}.yml"
        inventory = write_inventory(path, source=[source.name], destination=[destination.name])
        return Migration(self.name, arguments, inventory=inventory)

    def assert_runs_on(self, host: Host, *, timeout: float = 10) -> Answer:
        """It counts there with the memory it had, and no other host runs a copy."""
        answer = wait_for_answer(self.url(host), timeout=timeout)
        assert answer.token == self.first.token, "it was started afresh"
        assert answer.count >= self.first.count, "its count went back"
        deadline = time.monotonic() + timeout
        while wait_for_answer(self.url(host), timeout=timeout).count <= answer.count:
            assert time.monotonic() < deadline, "it does not count"
            time.sleep(0.2)
        for other in self.hosts:
            if other.name != host.name:
                running = other.docker("ps", "--filter", f"name=^{self.name}", "--format", "{{.Names}} {{.State}}")
                assert not running, f"a second copy on {other.name}: {running}"
        return answer


def gap_reported(output: str) -> float:
    """The gap in seconds that the playbook's summary tells."""
    found = re.search(r"Gap ([0-9.]+) s", output)
    assert found, "the summary tells no gap"
    return float(found.group(1))


def remove(moving: Moving) -> None:
    """Settle what is unfinished, then remove the counter, its old copies and its sessions' records."""
    forget(moving.hosts, [moving.name], of_all(moving.inventories, moving.hosts))


def session_on(host: Host, name: str) -> dict[str, Any]:
    """The newest session of a container on a host, as its files tell: ``id``, ``phases``, ``decision``."""
    script = (
        f'd=$(grep -ls \'"container_name": "{name}"\' /var/lib/livemigrate/2*/session.json | xargs -r -n1 dirname | tail -n1); '
        'test -n "$d" || exit 0; basename "$d"; cat "$d/decision" 2>/dev/null || echo; cat "$d/journal"'
    )
    lines = host.run(["sh", "-c", script]).stdout.splitlines()
    if not lines:
        return {"id": "", "phases": [], "decision": ""}
    entries = [json.loads(line) for line in lines[2:]]
    return {"id": lines[0], "decision": lines[1], "phases": [entry["phase"] for entry in entries]}
