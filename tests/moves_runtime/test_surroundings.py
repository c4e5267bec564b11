# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container's processes can see beside their memory is the same after a move: the sysctls of its namespaces, and
what its files in memory have beside their content."""

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


# A list that lets a user in and the file's group out, a capability, a time with all its digits; then what there is of it.
_FILL = r"""
import os, struct, sys
place = f"/proc/{sys.argv[1]}/root/t"
entries = ((1, 6, -1), (2, 4, 1000), (4, 0, -1), (16, 4, -1), (32, 0, -1))
rights = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
os.makedirs(f"{place}/deep")
for name in ("deep/secret", "program"):
    open(f"{place}/{name}", "w").close()
os.chmod(f"{place}/deep/secret", 0o600)
os.setxattr(f"{place}/deep/secret", "system.posix_acl_access", rights)
os.setxattr(f"{place}/deep", "system.posix_acl_default", rights)
os.setxattr(f"{place}/program", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
os.setxattr("/proc/%s/root/dev/shm" % sys.argv[1], "trusted.note", b"kept")
os.utime(f"{place}/program", ns=(1111111111222333444, 1555555555666777888))
"""
_LOOK = r"""
import os, sys
for place in ("t", "t/deep", "t/deep/secret", "t/program", "dev/shm"):
    path = f"/proc/{sys.argv[1]}/root/{place}"
    status = os.stat(path)
    names = [one for one in os.listxattr(path) if one != "security.selinux"]
    print(place, oct(status.st_mode), status.st_mtime_ns, [(name, os.getxattr(path, name)) for name in sorted(names)])
"""


def test_files_in_memory_keep_access_control_lists_and_times(newer: Pair, start: Start) -> None:
    """CRIU packs them with tar, which leaves that out."""
    moving = start(newer.alpha, newer.hosts, "--tmpfs", "/t")

    def run(host: Host, program: str) -> str:
        pid = host.inspect(moving.name)["State"]["Pid"]
        return host.run(["python3", "-c", program, str(pid)]).stdout

    run(newer.alpha, _FILL)
    before = run(newer.alpha, _LOOK)
    assert "1555555555666777888" in before
    for source, destination in ((newer.alpha, newer.beta), (newer.beta, newer.alpha)):
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        assert run(destination, _LOOK) == before
