# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container's processes can see beside their memory is the same after a move: the sysctls of its namespaces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.workloads.host import Host

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")

# By docker run, by Docker itself, and by somebody who entered the namespace.
ASKED = {"net.core.somaxconn": "333", "kernel.msgmax": "12345"}
OF_DOCKER = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range")
INSIDE = {
    "net.ipv4.tcp_retries2": "7",
    "net.ipv4.ip_local_port_range": "20000 30000",
    "net.ipv4.conf.eth0.log_martians": "1",
}


def _sysctls(host: Host, name: str) -> dict[str, str]:
    """As a process of the container would read them."""
    wanted = [*ASKED, *OF_DOCKER, *INSIDE]
    pid = host.inspect(name)["State"]["Pid"]
    output = host.run(["nsenter", "-n", "-i", "-t", str(pid), "sysctl", *wanted]).stdout
    return {key: " ".join(value.split()) for key, value in (line.split(" = ") for line in output.splitlines())}


def test_sysctls_of_every_origin_between_docker_versions(older: Pair, newer: Pair, start: Start) -> None:
    """A user that is not root, whose program may listen on port 80 because Docker says so: from Docker 28 to 26 and back."""
    hosts = [newer.alpha, older.alpha]
    arguments = [word for key, value in ASKED.items() for word in ("--sysctl", f"{key}={value}")]
    moving = start(hosts[0], hosts, "--user", "1000", *arguments)
    pid = hosts[0].inspect(moving.name)["State"]["Pid"]
    for key, value in INSIDE.items():
        hosts[0].run(["nsenter", "-n", "-t", str(pid), "sysctl", "-w", f"{key}={value}"])
    before = _sysctls(hosts[0], moving.name)
    assert {key: before[key] for key in ASKED | INSIDE} == ASKED | INSIDE
    assert before["net.ipv4.ip_unprivileged_port_start"] == "0"
    for source, destination in ((hosts[0], hosts[1]), (hosts[1], hosts[0])):
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        assert _sysctls(destination, moving.name) == before
