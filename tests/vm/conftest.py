# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stock Debian machines under QEMU, with their own kernels: what the nspawn lab cannot show."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunTool
from tests.lab.api import Lab
from tests.moves.inventories import write_inventory
from tests.moves.moving_counter import Moving
from tests.moves.nothing_left import forget, nothing_left
from tests.moves.pair import Pair
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer
from tests.workloads.recipes import RECIPES

_PORTS = itertools.count(9601)

# An emulated machine takes ten times as long for everything, and shares two cores with another one.
SLOW = 10
# At the very worst: on a machine with nothing else to do it is two minutes.
MOVE_SECONDS = 1800
# A counter's ten counts a second are a fifth of such a machine.
_CALMER = ("--env", "COUNTER_INTERVAL=1")

Start = Callable[..., Moving]


@pytest.fixture(scope="session", autouse=True)
def _pipelining() -> Iterator[None]:
    """Ansible's modules go through one SSH command each and not through five; the tests in tests/scenarios go without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSIBLE_PIPELINING", "true")
        yield


@pytest.fixture(scope="session")
def stock(
    lab_ground: Lab,  # noqa: ARG001 - the lab goes down at its end
    run_tool: RunTool,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., list[Host]]:
    """A function that has virtual machines running and provisioned, with the playbook's defaults and the counter's image.

    stock("trixie", "vma", "vmb") -> these two hosts. arguments: of ansible-playbook, where the defaults are not what is wanted.
    """
    ready: dict[str, Host] = {}
    directory = tmp_path_factory.mktemp("inventories")

    def hosts(suite: str, *names: str, arguments: Sequence[str] = ()) -> list[Host]:
        new = [name for name in names if name not in ready]
        if new:
            script = ROOT / "tests" / "lab" / "lab.py"
            run_tool(
                [sys.executable, script, "up", *new, "--flavour", f"vm-{suite}"],
                name=f"lab-up-{'-'.join(new)}",
                timeout=1800,
                show=r"\S",
            )
            inventory = write_inventory(directory / f"{'-'.join(new)}.yml", source=new[:1], destination=new[1:])
            run_tool(
                ["ansible-playbook", "-i", inventory, "playbooks/provision.yml", *arguments],
                name=f"provision-{'-'.join(new)}",
                timeout=1800,
                show=r"^TASK",
            )
            for name in new:
                ready[name] = Host.of_lab(name)
                ready[name].load(RECIPES["counter"])
                # Docker does not: after a power cut its programs would be empty files.
                ready[name].run(["sync"])
        return [ready[name] for name in names]

    return hosts


@pytest.fixture(scope="session")
def debian13(lab_ground: Lab, stock: Callable[..., list[Host]]) -> Pair:
    """Two Debian 13 as released: kernel 6.12, CRIU 4.1.1, Docker 26.1."""
    return Pair(lab_ground, *stock("trixie", "vma", "vmb"))


@pytest.fixture(scope="session")
def forky(stock: Callable[..., list[Host]]) -> Host:
    """The next Debian with its own kernel: 7.2, CRIU 4.2, Docker 28.5."""
    return stock("forky", "vmf")[0]


@pytest.fixture(scope="session")
def debian13_newer_criu(stock: Callable[..., list[Host]]) -> Host:
    """Debian 13 with forky's CRIU, as one prepares it for moves to and from forky."""
    return stock("trixie", "vmn", arguments=["-e", "criu_extra_suite=forky", "-e", "criu_minimal_version=4.2"])[0]


@pytest.fixture(scope="session")
def forky_experimental(stock: Callable[..., list[Host]]) -> Host:
    """The next Debian with what experimental has beyond it: CRIU 4.3, and runc 1.4."""
    arguments = ["-e", "criu_extra_suite=experimental", "-e", "criu_minimal_version=4.3"]
    host = stock("forky", "vme", arguments=arguments)[0]
    # The role has made the suite known; it takes nothing from there but CRIU.
    host.run(
        ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qy", "-t", "experimental", "runc"],
        timeout=180 * SLOW,
    )
    return host


@pytest.fixture
def start(request: pytest.FixtureRequest, lab_ground: Lab, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a counter on a host: start(host, hosts, *arguments of docker run, command=, url=).

    At the end the hosts of the test hold what they held before it.
    """
    watched: list[Host] = []
    for name in ("debian13", "forky", "debian13_newer_criu", "forky_experimental"):
        if name in request.fixturenames:
            found = request.getfixturevalue(name)
            watched += found.hosts if isinstance(found, Pair) else [found]
    inventory = write_inventory(tmp_path / "all.yml", source=[host.name for host in watched], destination=[])
    names: list[str] = []

    def begin(host: Host, hosts: Sequence[Host], *arguments: str, command: Sequence[str] = (), url: str = "") -> Moving:
        port = next(_PORTS)
        name = f"stock-{port}"
        # Of a session of tests that was killed.
        forget(watched, [name], inventory)
        names.append(name)
        host.start(name, RECIPES["counter"].tag, ["--publish", f"{port}:8080", *_CALMER, *arguments], command)
        first = wait_for_answer(url or f"http://{host.address}:{port}/", timeout=60 * SLOW)
        return Moving(name, port, tmp_path, first, list(hosts))

    pair = Pair(lab_ground, watched[0], watched[-1])
    with nothing_left(pair, names, hosts=watched, inventory=inventory, seconds=10 * SLOW):
        yield begin
