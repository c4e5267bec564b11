# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container and two hosts in a bad state, and what the real playbooks say to that."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.moves.nothing_left import forget, nothing_left
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host

IMAGE = "livemigrate/counter:1"
# What every container, volume and network of these tests is called by.
PREFIX = "preflight-"
PLACE = "/srv/preflight"
# The counter's image has no Python: the host's, by its own loader. Not at /usr, where the counter lies.
_LIBRARIES = "/host/lib/x86_64-linux-gnu"
_PYTHON = f"PYTHONHOME=/host {_LIBRARIES}/ld-linux-x86-64.so.2 --library-path {_LIBRARIES} /host/bin/python3"
MOUNTS = ("--volume", "/usr:/host:ro", "--volume", f"{PLACE}:/hold:ro")

_VERDICT = re.compile(r'^(?:ok|fatal): \[[^\]]+\].*?=> (\{.*"findings": .*\})$', re.MULTILINE)


def holding(*kinds: str, address: str = "") -> tuple[str, ...]:
    """A command that holds these things (hold.py) beside the counter, each in a process of its own."""
    programs = " ".join(f"{_PYTHON} /hold/hold.py {kind} {address} &" for kind in kinds)
    return ("sh", "-c", f"{programs} exec /usr/local/bin/counter")


@dataclass(frozen=True)
class Verdict:
    """What the task that judges has told, as data."""

    data: dict[str, Any]
    output: str

    @classmethod
    def of(cls, output: str) -> Verdict:
        """Out of what a playbook has printed with -v."""
        found = _VERDICT.findall(output)
        assert found, f"no verdict was told:\n{output[-6000:]}"
        return cls(json.loads(found[-1]), output)

    def of_severity(self, *severities: str) -> dict[str, list[str]]:
        """The messages of these severities, by rule."""
        reported: dict[str, list[str]] = {}
        for one in self.data["findings"]:
            if one["severity"] in severities:
                reported.setdefault(one["rule"], []).append(one["message"])
        return reported


def preflight(container: str, inventory: str, *arguments: str) -> tuple[int, Verdict]:
    """The exit code of playbooks/preflight.yml, and its verdict."""
    asked = Migration(container, ["-v", *arguments], playbook="preflight.yml", inventory=inventory)
    code = asked.end()
    return code, Verdict.of(asked.output)


def ignoring(*rules: str) -> tuple[str, str]:
    """The argument by which a playbook does not heed rules."""
    return "-e", json.dumps({"migrate_ignore_rules": list(rules)})


def shell(host: Host, script: str, *words: str) -> str:
    """What a script on a host prints; it ends at its first failure. Its $1, $2... are the words."""
    return host.run(["sh", "-ec", script, "sh", *words]).stdout


def look(host: Host, name: str) -> dict[str, Any]:
    """Which container and which process it is, and how it was made: all that inspect tells."""
    found = host.inspect(name)
    # In another order every time.
    found["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
    return found


def count(host: Host, name: str) -> int:
    """How far a counter has counted, by its log: that needs no network, which may be the bad thing."""
    lines = host.docker("logs", "--tail", "5", name).split()
    return max((int(line) for line in lines if line.isdigit()), default=0)


def assert_counts(host: Host, name: str, *, at_least: int = 0) -> None:
    """It goes on, and not from the beginning."""
    first = count(host, name)
    assert first >= at_least, "its count went back"
    deadline = time.monotonic() + 5
    while count(host, name) <= first:
        assert time.monotonic() < deadline, "it does not count"
        time.sleep(0.2)


def wait_until_held(host: Host, name: str, *kinds: str) -> None:
    """Until each of hold.py's programs has what it shall hold."""
    deadline = time.monotonic() + 60
    while True:
        log = shell(host, 'docker logs "$1" 2>&1 | grep -v "^[0-9]*$" || true', name)
        missing = [kind for kind in kinds if f"held {kind}\n" not in log]
        if not missing:
            return
        assert time.monotonic() < deadline, f"not held: {missing}:\n{log[-3000:]}"
        time.sleep(0.3)


@contextmanager
def ground(pair: Pair, inventory: str) -> Iterator[None]:
    """Nothing of these tests is there before, and nothing at the end."""

    def sweep() -> None:
        for host in pair.hosts:
            shell(
                host,
                'docker network ls -q --filter "name=^$1" | xargs -r docker network rm >/dev/null;'
                'docker volume ls -q --filter "name=^$1" | xargs -r docker volume rm >/dev/null',
                PREFIX,
            )

    # Of a session of tests that was killed.
    forget(pair.hosts, [PREFIX], inventory)
    sweep()
    with nothing_left(pair, [PREFIX], sweep, inventory=inventory):
        yield


def refusals(output: str) -> Sequence[str]:
    """The rules for which a playbook refuses to begin, as its last words name them."""
    found = re.findall(r"^fatal: .*$", output, re.MULTILINE)
    return sorted(set(re.findall(r"\[([a-z0-9_]+)\] ", found[-1]))) if found else []
