# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that are provisioned, and a counter whose count is nowhere but in its memory."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT, RunTool
from tests.lab.api import Lab
from tests.moves.host_snapshot import assert_unchanged, snapshot
from tests.moves.nothing_left import forget, nothing_left
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host
from tests.workloads.probe import Answer, wait_for_answer
from tests.workloads.recipes import RECIPES

__all__ = ["Counter", "Pair"]

_PORTS = itertools.count(9001)
# A closed session's record, without secrets, is kept on the source.
RECORDS = ("/journal", "/session.json", "/decision")


@dataclass
class Counter:
    """A counter that runs on alpha when a test begins."""

    pair: Pair
    name: str
    port: int
    container_id: str
    first: Answer
    alpha_before: list[str]
    beta_before: list[str]

    def url(self, host: Host) -> str:
        """Where it answers if it runs there."""
        return f"http://{host.address}:{self.port}/"

    def assert_runs_on(self, host: Host, other: Host, *, timeout: float = 5, at_least: int = 0) -> Answer:
        """It counts there with the memory it had, and has no second copy that answers or runs."""
        answer = wait_for_answer(self.url(host), timeout=timeout)
        assert answer.token == self.first.token, "it was started afresh"
        assert answer.count >= max(self.first.count, at_least), "its count went back"
        time.sleep(0.5)
        assert wait_for_answer(self.url(host), timeout=timeout).count > answer.count, "it does not count"
        running = other.docker("ps", "--filter", f"name=^{self.name}", "--format", "{{.Names}} {{.State}}")
        assert not running, f"a second copy on {other.name}: {running}"
        return answer

    def assert_untouched(self, *, timeout: float = 5, at_least: int = 0) -> None:
        """It runs on alpha as if nothing had happened, and nothing is left on beta."""
        self.assert_runs_on(self.pair.alpha, self.pair.beta, timeout=timeout, at_least=at_least)
        inspect = self.pair.alpha.inspect(self.name)
        assert inspect["Id"] == self.container_id
        assert inspect["State"]["Status"] == "running"
        assert inspect["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped", "MaximumRetryCount": 0}
        assert_unchanged(self.pair.alpha, self.alpha_before, ignore=RECORDS)
        assert_unchanged(self.pair.beta, self.beta_before)

    def sessions(self, host: Host) -> list[dict[str, object]]:
        """The journals of its sessions on a host, newest last."""
        script = (
            "for s in /var/lib/livemigrate/2*; do test -d $s && cat $s/session.json | tr -d '\\n' && echo; done; true"
        )
        lines = host.run(["sh", "-c", script]).stdout.splitlines()
        found: list[dict[str, object]] = [json.loads(line) for line in lines]
        return [entry for entry in found if entry.get("container_name") == self.name]

    def migrate(self, *arguments: str, engine: str = "api") -> Migration:
        """Begin to move it to beta. The engine api goes in steps that can be met; tests/moves_runtime has the other one."""
        return Migration(self.name, ["-e", f"migrate_engine={engine}", *arguments])


@pytest.fixture(scope="session")
def pair(lab: Lab, run_tool: RunTool) -> Pair:
    """alpha and beta with Docker, CRIU and the counter's image, from the collection's own playbook."""
    run_tool(
        [
            "ansible-playbook",
            "-i",
            ROOT / ".lab" / "inventory",
            "playbooks/provision.yml",
            "-e",
            '{"criu_extra_suite": "forky", "checkpointing_engines": ["runtime", "api"]}',
        ],
        name="migration-provision",
        timeout=900,
        show=r"^TASK",
    )
    found = Pair(lab, Host.of_lab("alpha"), Host.of_lab("beta"))
    for host in (found.alpha, found.beta):
        host.load(RECIPES["counter"])
    return found


@pytest.fixture
def counter(pair: Pair) -> Iterator[Counter]:
    """One counter on alpha, removed at the end wherever it runs."""
    names: list[str] = []
    with nothing_left(pair, names):
        yield make_counter(pair, names)


@pytest.fixture
def counters(pair: Pair) -> Iterator[Callable[[int], list[Counter]]]:
    """Several counters on alpha."""
    names: list[str] = []
    with nothing_left(pair, names):
        yield lambda number: [make_counter(pair, names) for dummy in range(number)]


@pytest.fixture
def counter_with(pair: Pair) -> Iterator[Callable[[Sequence[str]], Counter]]:
    """A counter on alpha with further arguments of `docker run`."""
    names: list[str] = []
    with nothing_left(pair, names):
        yield lambda arguments: make_counter(pair, names, arguments)


def make_counter(pair: Pair, names: list[str], arguments: Sequence[str] = ()) -> Counter:
    """Start a counter on alpha under a name and port of its own; the name is added to NAMES first."""
    port = next(_PORTS)
    name = f"fault-{port}"
    # Of a session of tests that was killed.
    forget(pair.hosts, [name])
    names.append(name)
    common = ["--publish", f"{port}:8080", "--restart", "unless-stopped"]
    identity = pair.alpha.start(name, RECIPES["counter"].tag, [*common, *arguments])
    first = wait_for_answer(f"http://{pair.alpha.address}:{port}/")
    return Counter(pair, name, port, identity, first, snapshot(pair.alpha), snapshot(pair.beta))
