# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What programs have changed in their container's network, in the files that the engine binds and at its mounts moves with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.mounts import differences, looks_of
from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.workloads.host import Host
from tests.workloads.recipes import RECIPES

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")

NETWORK = "seen-inside"
SIX = "2001:db8:67"

# ruff: noqa: E501
# What is done in the container's network, and by which command it can be seen; {me} is its address on Docker's own network,
# which is another one on the destination, {way} the gateway there, {one} and {two} the devices of its two networks: Docker
# 26 gives them other names at each start.
NETWORK_MADE = [
    ("ip address add 10.77.0.5/24 dev {one}", "ip -4 address show dev {one}", "inet 10.77.0.5/24 "),
    (f"ip address add {SIX}:7::5/64 dev {{two}} nodad", "ip -6 address show dev {two}", f"inet6 {SIX}:7::5/64 "),
    ("ip route add 10.88.0.0/16 via {way} mtu 1300", "ip route show", "10.88.0.0/16 via {way} dev {one} mtu 1300"),
    ("ip route add default via {way} src {me} table 100", "ip route show table 100", "via {way} dev {one} src {me}"),
    ("ip rule add from {me} table 100", "ip rule show", "from {me} lookup 100"),
    (f"ip -6 route add {SIX}:8::/64 via {SIX}::1", "ip -6 route show", f"{SIX}:8::/64 via {SIX}::1 dev {{two}}"),
    ("ip link set {one} mtu 1380", "ip link show {one}", "mtu 1380"),
    ("ip link set {two} address 02:00:00:00:00:99", "ip link show {two}", "02:00:00:00:00:99"),
    # After that: another MAC address takes all neighbours away.
    ("ip neighbour add 198.18.67.9 lladdr 02:00:00:00:00:09 dev {two} nud permanent", "ip neighbour show", "02:00:00:00:00:09"),
    ("nft add table inet mine", "nft list ruleset", "table inet mine {"),
    ("nft add chain inet mine c { type filter hook input priority 5 ; }", "nft list ruleset", "priority filter + 5"),
    ("nft add rule inet mine c iif {one} counter accept", "nft list ruleset", 'iif "{one}" counter packets'),
    ("iptables -t nat -A OUTPUT -d 10.201.0.1 -p tcp -j REDIRECT", "iptables-save -t nat", "-d 10.201.0.1/32 -p tcp -j REDIRECT"),
    ("iptables -A INPUT -s 10.202.0.1 -m comment --comment x -j DROP", "iptables-save", "--comment x -j DROP"),
    ("ip6tables -P FORWARD DROP", "ip6tables-save", ":FORWARD DROP"),
]  # fmt: skip
FILES_EDITED = (
    "echo 10.9.8.7 legacy-db >> /etc/hosts; sed 's/timeout.*//; s/nameserver.*/& # ours/' /etc/resolv.conf > /tmp/r;"
    "echo options timeout:7 >> /tmp/r; cat /tmp/r > /etc/resolv.conf; echo renamed > /etc/hostname; chmod 640 /etc/hosts"
)
MOUNTED = (
    "mkdir -p /m /b; mount -t tmpfs -o size=1m,ro,mode=700 one /m; mount -t tmpfs -o size=2m,nodev two /m; echo kept > /m/file;"
    "mount --bind /usr /b; mount -o remount,ro,bind /b; mount -o remount,noexec,bind /kept; umount /proc/acpi;"
    "mount -o remount,ro,bind /etc/hostname; mount --make-private /kept"
)


@pytest.fixture
def network(older: Pair, newer: Pair) -> Iterator[str]:
    """A network with IPv6 on the hosts that the container comes to, and on Docker's own network somebody with the first address."""
    hosts = (older.alpha, newer.alpha)
    for host in hosts:
        _without(host)
        host.docker("network", "create", "--ipv6", "--subnet", "198.18.67.0/24", "--subnet", f"{SIX}::/64", NETWORK)
    newer.alpha.start("seen-neighbour", RECIPES["counter"].tag)
    try:
        yield NETWORK
    finally:
        for host in hosts:
            _without(host)


def _without(host: Host) -> None:
    host.run(["sh", "-c", f"docker ps -aq --filter network={NETWORK} | xargs -r docker rm -f"])
    host.docker("rm", "-f", "seen-neighbour", check=False)
    host.docker("network", "rm", NETWORK, check=False)


def _in_network(host: Host, name: str, command: str) -> str:
    pid = host.inspect(name)["State"]["Pid"]
    return host.run(["nsenter", "-n", "-t", str(pid), *command.split()]).stdout


def _put(text: str, terms: dict[str, str]) -> str:
    """The terms of a host put into a text, which may have braces of its own."""
    for key, value in terms.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _terms(host: Host, name: str) -> dict[str, str]:
    """What the container's address, gateway and devices are on a host."""
    endpoints = host.inspect(name)["NetworkSettings"]["Networks"]
    devices = {}
    for key, network in (("one", "bridge"), ("two", NETWORK)):
        shown = _in_network(host, name, f"ip -o -4 address show to {endpoints[network]['IPAddress']}")
        devices[key] = shown.split()[1]
    return {
        "me": endpoints["bridge"]["IPAddress"],
        "way": endpoints["bridge"]["Gateway"],
        "six": endpoints[NETWORK]["GlobalIPv6Address"],
        **devices,
    }


def _mounts(host: Host, name: str) -> dict[str, list[list[str]]]:
    pid = host.inspect(name)["State"]["Pid"]
    return looks_of(host.run(["cat", f"/proc/{pid}/mountinfo"]).stdout, ["/kept"])


def _files(host: Host, name: str) -> str:
    three = "/etc/hosts /etc/resolv.conf /etc/hostname"
    return host.docker("exec", name, "sh", "-c", f"cat {three}; stat -c '%a %u %g %n' {three}")


def test_what_was_made_inside_there_and_back(older: Pair, newer: Pair, network: str, start: Start) -> None:
    """Between Docker versions that name devices otherwise and mask other places, to a host where the address is another one."""
    hosts = [older.alpha, newer.alpha]
    rights = ("--cap-add", "NET_ADMIN", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    moving = start(hosts[0], hosts, *rights, "--security-opt", "apparmor=unconfined", "--volume", "/kept")
    name = moving.name
    hosts[0].docker("network", "connect", network, name)
    terms = _terms(hosts[0], name)
    for made, _command, _shown in NETWORK_MADE:
        _in_network(hosts[0], name, _put(made, terms))
    hosts[0].docker("exec", name, "sh", "-c", FILES_EDITED)
    hosts[0].docker("exec", name, "sh", "-c", MOUNTED)
    files, mounts = _files(hosts[0], name), _mounts(hosts[0], name)
    assert "legacy-db" in files
    assert "timeout:7" in files
    changed = []
    for source, destination in ((hosts[0], hosts[1]), (hosts[1], hosts[0])):
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        now = _terms(destination, name)
        for made, command, shown in NETWORK_MADE:
            assert _put(shown, now) in _in_network(destination, name, _put(command, now)), made
        # Docker's own, which a sysctl of Docker's can take away after the interface was made.
        assert now["six"]
        assert f"inet6 {now['six']}/64 " in _in_network(destination, name, f"ip -6 address show dev {now['two']}")
        assert _files(destination, name) == files.replace(f"{terms['me']}\t", f"{now['me']}\t")
        assert not differences(mounts, _mounts(destination, name))
        assert destination.docker("exec", name, "cat", "/m/file") == "kept"
        changed.append(now["me"] != terms["me"])
    assert changed[0], "it has the address that it had: nothing was mapped"
    # At its next start the engine writes what is its own anew, as on the source.
    hosts[0].docker("restart", "-t", "0", name)
    assert "legacy-db" not in hosts[0].docker("exec", name, "cat", "/etc/hosts")
    assert "10.77.0.5" not in _in_network(hosts[0], name, "ip address")
