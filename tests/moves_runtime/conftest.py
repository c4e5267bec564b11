# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two pairs of hosts: alpha and beta with Debian 13's Docker (26.1), delta and epsilon with forky's (28.5)."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import LAB_SCRIPT, RunTool
from tests.lab.api import Lab
from tests.moves.inventories import of_all, write_inventory
from tests.moves.moving_counter import Moving
from tests.moves.nothing_left import forget, nothing_left
from tests.moves.pair import Pair
from tests.moves_api.conftest import pair as _pair
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer
from tests.workloads.recipes import RECIPES

_PORTS = itertools.count(9301)

# The hosts of Docker 26.1.
older = _pair


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
        forget(watched, [name], of_all(tmp_path, watched))
        names.append(name)
        host.start(name, RECIPES["counter"].tag, ["--publish", f"{port}:8080", *arguments], command)
        first = wait_for_answer(url or f"http://{host.address}:{port}/")
        return Moving(name, port, tmp_path, first, list(hosts))

    with nothing_left(pairs[0], names, hosts=watched, inventory=of_all(tmp_path, watched)):
        yield begin
