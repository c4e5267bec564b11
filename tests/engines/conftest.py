# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two pairs of hosts: alpha and beta with Debian 13's Docker (26.1), delta and epsilon with forky's (28.5)."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LAB_SCRIPT, RunTool
from tests.lab.api import Lab
from tests.migration.conftest import Pair
from tests.migration.conftest import pair as _pair
from tests.migration.inventory import write_inventory
from tests.migration.migration import Migration
from tests.migration.tidy import forget, nothing_left
from tests.workloads.host import Host
from tests.workloads.probe import Answer, wait_for_answer
from tests.workloads.recipes import RECIPES

_PORTS = itertools.count(9301)

# The hosts of Docker 26.1.
older = _pair


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
        time.sleep(0.4)
        assert wait_for_answer(self.url(host), timeout=timeout).count > answer.count, "it does not count"
        for other in self.hosts:
            if other.name != host.name:
                running = other.docker("ps", "--filter", f"name=^{self.name}", "--format", "{{.Names}} {{.State}}")
                assert not running, f"a second copy on {other.name}: {running}"
        return answer


@contextmanager
def criu_fails(host: Host) -> Iterator[None]:
    """No restore succeeds on a host meanwhile."""
    script = "/usr/local/lib/livemigrate/livemigrate-criu-action"
    host.run(["sh", "-c", f"cp -p {script} {script}.kept; printf '#!/bin/sh\nexit 1\n' > {script}"])
    try:
        yield
    finally:
        host.run(["mv", f"{script}.kept", script])


@contextmanager
def containerd_store(*hosts: Host) -> Iterator[None]:
    """Docker's containerd image store on these hosts; their other images and containers are out of sight meanwhile."""
    change = "import json; p='/etc/docker/daemon.json'; d=json.load(open(p)); {}; json.dump(d, open(p,'w'))"

    def switch(host: Host, statement: str) -> None:
        host.run(["python3", "-c", change.format(statement)])
        host.run(["sh", "-c", "systemctl reset-failed docker; systemctl restart docker"])

    for host in hosts:
        switch(host, "d['features']={'containerd-snapshotter': True}")
    try:
        yield
    finally:
        for host in hosts:
            switch(host, "d.pop('features', None)")


def gap_told(output: str) -> float:
    """The gap in seconds that the playbook's summary tells."""
    found = re.search(r"Gap ([0-9.]+) s", output)
    assert found, "the summary tells no gap"
    return float(found.group(1))


def provision(run_tool: RunTool, inventory: str, name: str, *arguments: str) -> None:
    """Provision hosts with the collection's own playbook."""
    run_tool(
        ["ansible-playbook", "-i", inventory, "playbooks/provision.yml", *arguments],
        name=name,
        timeout=900,
        show=r"^TASK",
    )


@pytest.fixture(scope="session")
def forky_base(run_tool: RunTool) -> str:
    """The flavour of forky's hosts; its base is in the cache, made while another process starts the other hosts."""
    flavour = "forky-ready"
    run_tool([sys.executable, LAB_SCRIPT, "base", flavour], name="lab-base-forky", timeout=1200, show=r"\S")
    return flavour


def start_pair(lab: Lab, flavour: str, names: Sequence[str], run_tool: RunTool, directory: Path) -> Pair:
    """Two hosts of a flavour, provisioned, with the counter's image. directory: for an inventory."""
    mark = "-".join(names)
    run_tool(
        [sys.executable, LAB_SCRIPT, "up", *names, "--flavour", flavour],
        name=f"lab-up-{mark}",
        timeout=1200,
        show=r"\S",
    )
    inventory = write_inventory(directory / f"{mark}.yml", source=[names[0]], destination=[names[1]])
    provision(run_tool, inventory, f"provision-{mark}")
    found = Pair(lab, Host.of_lab(names[0]), Host.of_lab(names[1]))
    for host in found.hosts:
        host.load(RECIPES["counter"])
    return found


@pytest.fixture(scope="session")
def newer(
    # Before the lab, which another process may be making.
    forky_base: str,
    lab: Lab,
    run_tool: RunTool,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    """delta and epsilon with Docker 28.5."""
    return start_pair(lab, forky_base, ["delta", "epsilon"], run_tool, tmp_path_factory.mktemp("newer"))


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Moving]]:
    """A function that starts a counter on a host: start(host, hosts, *arguments of docker run).

    command: instead of the image's own. url: where it answers, if not at its published port.
    At the end the hosts of the test's pairs hold what they held before it.
    """
    # Before anything of the test: it may change what its hosts show (another image store).
    pairs: list[Pair] = [request.getfixturevalue(name) for name in ("newer", "older") if name in request.fixturenames]
    watched = [host for pair in pairs for host in pair.hosts]
    names: list[str] = []

    def begin(host: Host, hosts: Sequence[Host], *arguments: str, command: Sequence[str] = (), url: str = "") -> Moving:
        port = next(_PORTS)
        name = f"engine-{port}"
        # Of a session of tests that was killed.
        forget(watched, [name], _of_all(tmp_path, watched))
        names.append(name)
        host.start(name, RECIPES["counter"].tag, ["--publish", f"{port}:8080", *arguments], command)
        first = wait_for_answer(url or f"http://{host.address}:{port}/")
        return Moving(name, port, tmp_path, first, list(hosts))

    with nothing_left(pairs[0], names, hosts=watched, inventory=_of_all(tmp_path, watched)):
        yield begin


def _of_all(directory: Path, hosts: Sequence[Host]) -> str:
    """An inventory for recover.yml."""
    return write_inventory(directory / "all.yml", source=[host.name for host in hosts], destination=[])


def remove(moving: Moving) -> None:
    """Settle what is unfinished, then remove the counter, its old copies and its sessions' records."""
    forget(moving.hosts, [moving.name], _of_all(moving.inventories, moving.hosts))


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
