# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was made inside of a network namespace is made in another one, which an engine has made with other addresses."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._network import state as network_state
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import network as facts_of_network
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import network as topic
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.support import ROOT, wait_for


class Container:
    """A network namespace as an engine makes it: eth0, ... on networks of the host."""

    def __init__(self, directory: Path, networks: list[dict[str, Any]]) -> None:
        self.sleeper = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        pid = self.sleeper.pid
        wait_for(partial(_elsewhere, pid), "a process in a network namespace of its own")
        directory.mkdir()
        self.directory = directory
        self.ip("link set lo up")
        self.hosts = [f"lm{pid % 100000}h{number}" for number, _network in enumerate(networks)]
        for number, network in enumerate(networks):
            _run(f"ip link add {self.hosts[number]} type veth peer name eth{number} netns {pid}")
            _run(f"ip link set {self.hosts[number]} up")
            self.ip(f"link set eth{number} address {network['MacAddress']}")
            self.ip(f"address add {network['IPAddress']}/{network['IPPrefixLen']} dev eth{number}")
            self.ip(f"link set eth{number} up")
            if network.get("GlobalIPv6Address"):
                six = f"{network['GlobalIPv6Address']}/{network['GlobalIPv6PrefixLen']}"
                self.ip(f"address add {six} dev eth{number} nodad")
                self.ip(f"route add default via {network['IPv6Gateway']} dev eth{number}")
        self.ip(f"route add default via {networks[0]['Gateway']} dev eth0")
        reported = {"NetworkSettings": {"Networks": {f"net{at}": one for at, one in enumerate(networks)}}}
        (directory / "config.v2.json").write_text(json.dumps(reported))

    def side(self, *ignored: str) -> Side:
        return Side(self.sleeper.pid, TaskGroup("/nowhere"), str(self.directory), own_network=True, ignored=ignored)

    def ip(self, words: str) -> str:
        return _run(f"nsenter --net=/proc/{self.sleeper.pid}/ns/net ip {words}")

    def sysctl(self, name: str, value: str) -> None:
        inside = ["nsenter", f"--net=/proc/{self.sleeper.pid}/ns/net", "sh", "-c", 'echo "$1" >"/proc/sys/net/$0"']
        subprocess.run([*inside, name, value], check=True)

    def sysctl_now(self, name: str) -> str:
        inside = ["nsenter", f"--net=/proc/{self.sleeper.pid}/ns/net", "cat", f"/proc/sys/net/{name}"]
        return subprocess.run(inside, check=True, capture_output=True, text=True).stdout.strip()

    def as_docker_switches_ipv6(self) -> None:
        """Off in the namespace, and on at each device that has IPv6."""
        shown = [line.split() for line in self.ip("-o -6 address show scope global").splitlines()]
        routes = self.ip("-6 route show default").splitlines()
        self.sysctl("ipv6/conf/all/disable_ipv6", "1")
        for words in shown:
            self.sysctl(f"ipv6/conf/{words[1]}/disable_ipv6", "0")
            self.ip(f"address add {words[3]} dev {words[1]} nodad")
        for route in routes:
            self.ip(f"-6 route add {route}")

    def close(self) -> None:
        self.sleeper.kill()
        self.sleeper.wait()


def _elsewhere(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def _run(words: str) -> str:
    done = subprocess.run(words.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


SOURCE = {
    "IPAddress": "198.18.20.5",
    "IPPrefixLen": 24,
    "Gateway": "198.18.20.1",
    "MacAddress": "02:42:c6:12:14:05",
    "GlobalIPv6Address": "2001:db8:20::5",
    "GlobalIPv6PrefixLen": 64,
    "IPv6Gateway": "2001:db8:20::1",
}
COPY = {
    "IPAddress": "198.18.30.7",
    "IPPrefixLen": 24,
    "Gateway": "198.18.30.254",
    "MacAddress": "0a:42:c6:12:1e:07",
    "GlobalIPv6Address": "2001:db8:30::7",
    "GlobalIPv6PrefixLen": 64,
    "IPv6Gateway": "2001:db8:30::1",
}
SECOND = {"IPAddress": "198.18.40.5", "IPPrefixLen": 24, "Gateway": "198.18.40.1", "MacAddress": "02:42:c6:12:28:05"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Container, Container]]:
    """A container and its copy. The engine there has taken the two networks in another order."""
    made = [Container(tmp_path / "source", [SOURCE, SECOND])]
    try:
        made.append(Container(tmp_path / "copy", [COPY, SECOND | {"IPAddress": "198.18.40.9"}]))
        yield made[0], made[1]
    finally:
        for one in made:
            one.close()


def _moved(source: Container, copy: Container, *ignored: str) -> list[str]:
    data = json.loads(json.dumps(topic.take(source.side(*ignored), None)))
    side = copy.side()
    topic.carry(side, data)
    return topic.compare(side, data)


def _all(container: Container) -> str:
    return "\n".join(
        container.ip(f"{family} {what}")
        for family in ("-4", "-6")
        for what in ("address show scope global", "route show", "rule show", "neighbour show nud permanent")
    )


def test_what_the_engine_made_is_left_alone(pair: tuple[Container, Container]) -> None:
    before = _all(pair[1])
    assert not _moved(*pair)
    assert _all(pair[1]) == before


# ruff: noqa: E501
# What was done inside, and what the copy has to show for it.
MADE = [
    ("address add 10.77.0.5/24 dev eth0", "-4 address show dev eth0", "inet 10.77.0.5/24 scope global eth0"),
    ("address add 10.77.0.6/24 dev eth0 label eth0:one", "-4 address show dev eth0", "secondary eth0:one"),
    ("address add 10.78.0.5 peer 10.78.0.6 dev eth0", "-4 address show dev eth0", "inet 10.78.0.5 peer 10.78.0.6/32"),
    ("address add 10.79.0.1/32 dev lo", "-4 address show dev lo", "inet 10.79.0.1/32"),
    ("address add 2001:db8:77::5/64 dev eth0", "-6 address show dev eth0", "inet6 2001:db8:77::5/64 scope global \n"),
    ("address add fe80::77/64 dev eth0 nodad", "-6 address show dev eth0", "inet6 fe80::77/64"),
    ("address add 10.76.0.1/24 dev eth0 valid_lft 900 preferred_lft 800", "-4 address show dev eth0", "scope global dynamic eth0"),
    ("route add 10.88.0.0/16 via 198.18.20.1", "route show", "10.88.0.0/16 via 198.18.30.254 dev eth0 \n"),
    ("route add 10.89.0.0/16 dev eth1 src 198.18.40.5 metric 7", "route show", "10.89.0.0/16 dev eth1 scope link src 198.18.40.9"),
    ("route add 10.90.0.0/16 via 10.1.2.3 dev eth0 onlink mtu 1400", "route show", "via 10.1.2.3 dev eth0 onlink mtu 1400"),
    ("route add blackhole 10.91.0.0/16", "route show", "blackhole 10.91.0.0/16"),
    ("route add 10.92.0.0/16 nexthop via 198.18.20.1 weight 3 nexthop via 198.18.40.1", "route show", "nexthop via 198.18.30.254"),
    ("route add default via 198.18.20.1 src 198.18.20.5 table 100", "route show table 100", "via 198.18.30.254 dev eth0 src 198.18.30.7"),
    ("route add 198.18.20.0/24 dev eth0 table 100", "route show table 100", "198.18.30.0/24 dev eth0 scope link"),
    ("route add local 10.93.0.0/16 dev lo", "route show table local", "local 10.93.0.0/16 dev lo"),
    ("-6 route add 2001:db8:88::/48 via 2001:db8:20::1", "-6 route show", "2001:db8:88::/48 via 2001:db8:30::1"),
    ("-6 route add 2001:db8:89::/48 dev eth0 expires 900", "-6 route show", "2001:db8:89::/48 dev eth0 metric 1024 expires "),
    ("rule add from 198.18.20.5 table 100", "rule show", "from 198.18.30.7 lookup 100"),
    ("rule add fwmark 0x7 iif eth0 priority 40 table 100", "rule show", "40:\tfrom all fwmark 0x7 iif eth0 lookup 100"),
    ("-6 rule add from 2001:db8:20::5 table 101", "-6 rule show", "from 2001:db8:30::7 lookup 101"),
    ("neighbour add 198.18.40.77 lladdr 02:00:00:00:00:77 dev eth1 nud permanent", "neighbour show nud permanent", "02:00:00:00:00:77"),
    ("neighbour add proxy 10.77.0.99 dev eth0", "neighbour show proxy", "10.77.0.99 dev eth0"),
    ("link set eth0 mtu 1400", "link show eth0", "mtu 1400"),
    ("link set eth0 address 02:00:00:00:00:01", "link show eth0", "02:00:00:00:00:01"),
    ("link set eth0 txqueuelen 77", "link show eth0", "qlen 77"),
    ("link set eth0 promisc on", "link show eth0", "PROMISC"),
    ("link set eth0 alias outside", "link show eth0", "alias outside"),
    ("link property add dev eth0 altname outside", "link show eth0", "altname outside"),
    ("nexthop add id 5 via 198.18.20.1 dev eth0", "nexthop show", "id 5 via 198.18.30.254 dev eth0"),
]  # fmt: skip


def test_what_was_made_inside_is_made_on_the_copy(pair: tuple[Container, Container]) -> None:
    source, copy = pair
    for words, _where, _shown in MADE:
        source.ip(words)
    source.ip("route add 10.94.0.0/16 nhid 5")
    assert not _moved(source, copy)
    for words, where, shown in MADE:
        assert shown in copy.ip(where), words
    assert "10.94.0.0/16 nhid 5" in copy.ip("route show")


def test_what_was_deleted_inside_is_deleted_on_the_copy(pair: tuple[Container, Container]) -> None:
    source, copy = pair
    source.ip("route delete default")
    source.ip("-6 route delete default")
    source.ip("route delete 198.18.40.0/24 dev eth1")
    source.ip("rule delete priority 32767")
    assert not _moved(source, copy)
    assert copy.ip("route show").split("\n") == ["198.18.30.0/24 dev eth0 proto kernel scope link src 198.18.30.7 ", ""]
    assert "default" not in copy.ip("-6 route show")
    assert "32767" not in copy.ip("rule show")


def test_an_address_of_the_engine_that_is_no_more(pair: tuple[Container, Container]) -> None:
    source, copy = pair
    source.ip("address delete 198.18.40.5/24 dev eth1")
    source.ip("address add 10.95.0.1/24 dev eth1")
    assert not _moved(source, copy)
    shown = copy.ip("-4 address show dev eth1")
    assert "10.95.0.1/24" in shown
    assert "198.18.40.9" not in shown


def test_the_default_route_was_replaced(pair: tuple[Container, Container]) -> None:
    source, copy = pair
    source.ip("route replace default via 198.18.40.1")
    assert not _moved(source, copy)
    assert copy.ip("route show default") == "default via 198.18.40.1 dev eth1 \n"


def test_a_device_that_is_down(pair: tuple[Container, Container]) -> None:
    source, copy = pair
    source.ip("link set eth1 down")
    assert not _moved(source, copy)
    assert "UP" not in copy.ip("link show eth1").split(">")[0].split(",")
    assert "eth1" not in copy.ip("route show")


@pytest.mark.parametrize("ignored", [(), (topic.DEVICES_RULE,)])
def test_a_device_that_was_made_inside(pair: tuple[Container, Container], ignored: tuple[str, ...]) -> None:
    """It is told; a user who can do without it moves without all that needs it."""
    source, copy = pair
    source.ip("link add br9 type bridge")
    source.ip("link set br9 up")
    source.ip("address add 10.96.0.1/24 dev br9")
    source.ip("route add 10.97.0.0/16 via 10.96.0.9")
    source.ip("rule add iif br9 table 7")
    source.ip("address add 10.77.0.5/24 dev eth0")
    reported = _moved(source, copy, *ignored)
    assert ("the network device br9" in reported) == (not ignored)
    assert "10.77.0.5/24" in copy.ip("address show dev eth0")
    if ignored:
        assert not reported
        assert "br9" not in _all(copy)


def test_a_route_over_somebody_who_is_not_there(pair: tuple[Container, Container]) -> None:
    """The other container on the host's network is not on the destination's."""
    source, copy = pair
    source.ip("route add 10.98.0.0/16 via 198.18.20.9")
    assert _moved(source, copy) == ["the route to 10.98.0.0/16 via 198.18.20.9"]


def test_what_cannot_be_brought_over_is_seen(pair: tuple[Container, Container]) -> None:
    source = pair[0]
    inspect = json.loads((source.directory / "config.v2.json").read_text())
    names = ("addresses", "devices", "shaped", "gateways", "ipsets", "stateful")
    nothing = {**{name: [] for name in names}, "ipsec": 0}
    assert facts_of_network.look(source.sleeper.pid, inspect) == nothing
    source.ip("link add br9 type bridge")
    source.ip("address add 10.96.0.1/24 dev br9")
    source.ip("address add 10.77.0.5/24 dev eth0")
    source.ip("neighbour replace 198.18.20.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
    source.ip("xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out")
    _run(
        f"nsenter --net=/proc/{source.sleeper.pid}/ns/net tc qdisc add dev eth1 root tbf rate 1mbit burst 4k latency 9ms"
    )
    seen = facts_of_network.look(source.sleeper.pid, inspect)
    reported = {
        "addresses": ["10.77.0.5"],
        "devices": ["br9 (bridge)"],
        "shaped": ["eth1 (tbf)"],
        "gateways": ["198.18.20.1"],
        "ipsec": 1,
        "ipsets": [],
        "stateful": [],
    }
    assert seen == reported
    # The neighbour is left out.
    assert set(_moved(*pair)) > {"the network device br9", "the traffic control of eth1 (tbf)"}


@pytest.mark.parametrize("value", ["4", "333"])
def test_docker_that_made_the_interface_before_the_sockets_keeps_its_ipv6(
    pair: tuple[Container, Container], tmp_path: Path, value: str
) -> None:
    """The sysctls that are set before the sockets: one that is so already would take the addresses away, if it were set again."""
    source, copy = pair
    for one in pair:
        one.as_docker_switches_ipv6()
    copy.sysctl("core/somaxconn", "4096")
    before = _all(copy)
    lines = ("net/ipv6/conf/all/disable_ipv6 1", "net/no/such_thing 1", f"net/core/somaxconn {value}")
    (tmp_path / "sysctls").write_text("".join(f"{line}\n" for line in lines))
    script = ROOT / "roles" / "checkpointing" / "files" / "livemigrate-network"
    subprocess.run([script, "prepare", str(copy.sleeper.pid), tmp_path], check=True)
    assert _all(copy) == before
    assert "2001:db8:30::7" in before
    assert copy.sysctl_now("core/somaxconn") == value
    assert not _moved(source, copy)


def test_addresses_of_the_engine_that_a_sysctl_takes_away_come_back(pair: tuple[Container, Container]) -> None:
    """The source has it switched off for devices to come, and the copy does not yet."""
    source, copy = pair
    source.as_docker_switches_ipv6()
    shown = ("-6 address show dev eth0 scope global", "-6 route show dev eth0")
    before = [copy.ip(words) for words in shown]
    side, data = copy.side(), json.loads(json.dumps(topic.take(source.side(), None)))
    topic.device_names(side, data)
    copy.sysctl("ipv6/conf/all/disable_ipv6", "1")
    copy.sysctl("ipv6/conf/eth0/disable_ipv6", "0")
    side.sysctls_written = True
    assert "the address 2001:db8:30::7/64" in topic.compare(side, data)
    topic.carry(side, data)
    assert topic.compare(side, data) == []
    assert [copy.ip(words) for words in shown] == before


@pytest.mark.parametrize("where", ["eth0", "lo"])
def test_ipv6_that_the_source_does_not_have_is_not_brought_back(where: str, tmp_path: Path) -> None:
    """The copy's network has it, or its engine gives it to every loopback device; a sysctl of the source's takes it away."""
    four_only = {key: value for key, value in SOURCE.items() if "IPv6" not in key}
    source, copy = Container(tmp_path / "source", [four_only]), Container(tmp_path / "copy", [COPY])
    try:
        source.sysctl(f"ipv6/conf/{where}/disable_ipv6", "1")
        side, data = copy.side(), json.loads(json.dumps(topic.take(source.side(), None)))
        topic.device_names(side, data)
        copy.sysctl(f"ipv6/conf/{where}/disable_ipv6", "1")
        side.sysctls_written = True
        topic.carry(side, data)
        assert copy.sysctl_now(f"ipv6/conf/{where}/disable_ipv6") == "1"
        assert not copy.ip(f"-6 address show dev {where}")
        assert topic.compare(side, data) == []
    finally:
        source.close()
        copy.close()


def test_an_address_of_the_engine_of_which_the_copy_has_none(pair: tuple[Container, Container]) -> None:
    """Its network has no IPv6 there, or it was lost before anybody looked."""
    source, copy = pair
    copy.sysctl("ipv6/conf/eth0/disable_ipv6", "1")
    reported = _moved(source, copy)
    assert "the address 2001:db8:20::5 (its network has none to stand for it)" in reported
    source.ip("address delete 2001:db8:20::5/64 dev eth0")
    source.ip("address add 2001:db8:20::5/60 dev eth0 nodad")
    assert "the length of the prefix of 2001:db8:20::5" in _moved(source, copy)


def test_a_kernel_that_has_no_ipv6(pair: tuple[Container, Container], monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was started with ipv6.disable=1 does with IPv6, this one does with DECnet, which no kernel has any more."""
    source = pair[0].side()
    with_it = topic.made_of(topic.take(source, None)).state
    monkeypatch.setattr(network_state, "INET6", 12)
    found = topic.made_of(topic.take(source, None)).state
    for name in ("addresses", "routes", "rules", "neighbours"):
        reported = getattr(found, name)
        assert reported == tuple(one for one in getattr(with_it, name) if one.head[0] == network_state.INET), name
        assert len(reported) < len(getattr(with_it, name)) or name == "neighbours"
    assert not _moved(*pair)


def test_a_copy_whose_kernel_has_no_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source's kernel has made rules, and ::1 of the loopback device. Only what somebody has set of IPv6 is missed."""
    four_only = {key: value for key, value in SOURCE.items() if "IPv6" not in key}
    source, copy = Container(tmp_path / "source", [four_only]), Container(tmp_path / "copy", [four_only])
    try:
        plain = json.loads(json.dumps(topic.take(source.side(), None)))
        source.ip("address add 2001:db8::9/128 dev lo")
        source.ip("-6 rule add priority 99 from 2001:db8::9 table 100")
        more = json.loads(json.dumps(topic.take(source.side(), None)))
        read = network_state._of_family
        monkeypatch.setattr(
            network_state,
            "_of_family",
            lambda netlink, kind, head: [] if head[0] == network_state.INET6 else read(netlink, kind, head),
        )
        for data, missed in (
            (plain, []),
            (more, ["the address 2001:db8::9/128", "the routing rule of priority 99"]),
        ):
            assert any(one.head[0] == network_state.INET6 for one in topic.made_of(data).state.rules)
            # Before it is carried: this machine's kernel would let it be.
            reported = topic.compare(copy.side(), data)
            assert [one for one in reported if not one.startswith("the route to 2001:db8::9")] == missed
    finally:
        source.close()
        copy.close()
