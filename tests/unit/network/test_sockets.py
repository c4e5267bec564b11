# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets as a kernel told them (Linux 6.18, a container of Docker 28.5.2), and the rules about them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_resources, process_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._network import sockets as network_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import Addresses
from ansible_collections.livemigrate.criu.plugins.module_utils._network.sockets import Socket, Sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import ERROR, WARNING
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.rules import network as rules_network
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.rules.network import View
from tests.unit.helpers.netns import Namespaces

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 020011AC:2328 00000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 827021 2 00000000b61d1d68 100 0 0 10 0
   1: 020011AC:EA86 010011AC:0016 01 00000000:00000021 00:00000000 00000000     0        0 827026 2 000000000ca9362c 20 4 30 10 -1
   2: 020011AC:2328 020011AC:D0B4 01 00000000:00000000 00:00000000 00000000     0        0 0 1 000000006a8fea2a 20 0 0 10 -1
   3: 020011AC:2328 020011AC:D0AA 01 00000000:00000000 00:00000000 00000000     0        0 827024 1 0000000068a85ce7 20 0 0 10 -1
   4: 020011AC:D0AA 020011AC:2328 01 00000000:00000000 00:00000000 00000000     0        0 827023 2 000000009b49a509 20 0 0 10 -1
   5: 020011AC:D0B4 020011AC:2328 01 00000000:00000000 00:00000000 00000000     0        0 827025 2 0000000055b266f8 20 0 0 10 -1
"""

TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:2329 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 827022 1 0000000002cf9050 100 0 0 10 0
   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 827587 1 0000000030c3793a 100 0 0 10 0
   2: 0000000000000000FFFF0000020011AC:EA90 0000000000000000FFFF0000010011AC:0016 01 00000000:00000021 00:00000000 00000000     0        0 827027 2 00000000b8fb69df 20 4 30 10 -1
"""  # noqa: E501

UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 5680: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 827029 2 000000009642bb81 0
 7692: 020011AC:9CC5 010011AC:0035 01 00000000:00000000 00:00000000 00000000     0        0 827028 2 0000000063ee80f5 0
"""

IGMP = """\
Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
2\teth0      :     2      V3
\t\t\t\tFB0000E0     1 0:00000000\t\t0
\t\t\t\t010000E0     1 0:00000000\t\t0
"""

IGMP6 = """\
1    lo              ff020000000000000000000000000001     1 0000000C 0
2    eth0            ff0200000000000000000001ff000005     1 00000004 0
2    eth0            ff0200000000000000000000000000fb     1 00000004 0
2    eth0            ff010000000000000000000000000001     1 00000008 0
"""

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 172.17.0.0/16 2 0 2
        +-- 172.17.0.0/30 2 0 2
           |-- 172.17.0.0
              /16 link UNICAST
           |-- 172.17.0.2
              /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
"""

UNIX = """\
u_str ESTAB 0      0      /run/docker.sock 827737 * 827031
u_str ESTAB 0      0                     * 827032 * 827033
u_str ESTAB 0      0                     * 827033 * 827032
u_dgr ESTAB 0      0                     * 827035 * 827034
u_str ESTAB 0      0                     * 827031 * 827737
u_dgr ESTAB 0      0                @hello 827034 * 0
u_str LISTEN 0     128       /with a blank 827039 * 0
"""

OWN = {827031, 827032, 827033, 827034, 827035}


@pytest.fixture
def sockets() -> Sockets:
    """What the samples say."""
    inet = [
        *network_sockets.parse_inet("tcp", TCP),
        *network_sockets.parse_inet("tcp", TCP6),
        *network_sockets.parse_inet("udp", UDP),
    ]
    return Sockets(
        tuple(inet),
        network_sockets.parse_own_addresses(FIB_TRIE, "fd000000000000000000000000000005 02 40 00 80     eth0\n"),
        network_sockets.parse_groups(IGMP, IGMP6),
        network_sockets.outside(network_sockets.parse_unix(UNIX), OWN),
    )


def test_lines_are_read(sockets: Sockets) -> None:
    listening, outgoing = sockets.inet[:2]
    assert str(outgoing) == "tcp 172.17.0.2:60038 - 172.17.0.1:22"
    assert (outgoing.state, outgoing.inode, outgoing.queued) == (network_sockets.ESTABLISHED, 827026, 33)
    assert (listening.state, listening.queued) == (network_sockets.LISTEN, 1)
    assert str(sockets.inet[6]).startswith("tcp [::1]:9001")
    assert sockets.own_addresses == {ip_address("172.17.0.2"), ip_address("fd00::5")}


def test_what_speaks_ipv4_in_an_ipv6_socket_is_ipv4(sockets: Sockets) -> None:
    assert str(sockets.inet[8]) == "tcp 172.17.0.2:60048 - 172.17.0.1:22"


def test_sockets_of_ipv6_are_distinguished_though_they_speak_ipv4() -> None:
    """A kernel without IPv6 makes none of them, not even one that listens for IPv4 too."""
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both,
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_connection(("127.0.0.1", both.getsockname()[1])) as client,
        both.accept()[0] as accepted,
    ):
        seen = network_sockets.own(network_sockets.look([os.getpid()]), [os.getpid()])
        inodes = {os.fstat(one.fileno()).st_ino for one in (both, accepted)}
        others = {os.fstat(one.fileno()).st_ino for one in (four, client)}
    six = {one.inode for one in seen.six}
    assert inodes <= six
    assert not others & six
    assert network_sockets.of_plain(network_sockets.plain(seen)).six == seen.six
    # As an earlier release has told it.
    assert (
        network_sockets.of_plain({key: value for key, value in network_sockets.plain(seen).items() if key != "six"}).six
        == ()
    )


def test_connections_within_the_container_do_not_count(sockets: Sockets) -> None:
    assert [str(one) for one in sockets.connections] == [
        "tcp 172.17.0.2:60038 - 172.17.0.1:22",
        "tcp 172.17.0.2:60048 - 172.17.0.1:22",
    ]


def test_bound_are_those_tied_to_one_address(sockets: Sockets) -> None:
    # Not loopback, not "any", not a datagram socket that is connected: it is asked anew when an answer does not come.
    assert [str(one) for one in sockets.bound] == ["tcp 172.17.0.2:9000 - 0.0.0.0:0"]


def test_groups_are_those_that_a_program_has_joined(sockets: Sockets) -> None:
    assert sockets.groups == {ip_address("224.0.0.251"), ip_address("ff02::fb")}


def test_a_unix_stream_to_the_host_is_seen_and_those_within_are_not(sockets: Sockets) -> None:
    assert sockets.outside == ("/run/docker.sock",)
    assert network_sockets.outside(network_sockets.parse_unix("u_str ESTAB 0 0 * 5 * 6\n"), {5}) == ("unnamed",)
    assert network_sockets.outside(network_sockets.parse_unix("u_dgr ESTAB 0 0 * 5 * 6\n"), {5}) == ()


def test_a_request_that_comes_and_goes_does_not_last(sockets: Sockets) -> None:
    passing = sockets.inet[1]._replace(port=5000, inode=99)
    now = sockets._replace(inet=(*sockets.inet, passing))
    assert passing in now.connections
    assert passing not in network_sockets.lasting(sockets, now)
    assert len(network_sockets.lasting(sockets, now)) == 2


def test_a_real_look_at_ourselves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        seen = network_sockets.look([os.getpid()])
        port = server.getsockname()[1]
        assert any(one.port == port and one.state == network_sockets.LISTEN for one in seen.inet)
        assert [one.port for one in network_sockets.left_behind(os.getpid()) if one.port == port] == [port]


# -- in a network that others use too -----------------------------------------------------------------------------

_JOINS = """
import socket, struct
device = socket.if_nametoindex("eth0")
def joins(family, level, group):
    one = socket.socket(family, socket.SOCK_DGRAM)
    packed = socket.inet_pton(socket.AF_INET if level == 0 else socket.AF_INET6, group)
    if level == 0:
        one.setsockopt(0, socket.IP_ADD_MEMBERSHIP, packed + struct.pack("@4xI", device))
    else:
        one.setsockopt(level, socket.IPV6_JOIN_GROUP, packed + struct.pack("@I", device))
    return one
def listens(protocol):
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    one.bind(("127.0.0.1", 0))
    one.listen()
    return one
"""


@contextmanager
def _program(net: Namespaces, text: str) -> Iterator[int]:
    """A program in the network of the container, by its number."""
    argv = ["nsenter", f"--net=/proc/{net.container}/ns/net", sys.executable, "-c"]
    with subprocess.Popen(
        [*argv, f"{_JOINS}{text}\nprint('ready', flush=True)\nimport time\ntime.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the program failed, see above"
            yield process.pid
        finally:
            process.kill()


# By both protocols, and as Java does it: a group of IPv4 by a socket of IPv6. None of the sockets is bound.
_OURS = """
held = [joins(socket.AF_INET, 0, "239.1.2.3"), joins(socket.AF_INET6, 41, "ff02::fb"), joins(socket.AF_INET6, 0, "239.1.2.4")]
held += [socket.create_server(("127.0.0.1", 0)), *socket.socketpair()]
"""
_THEIRS = 'held = [joins(socket.AF_INET, 0, "239.9.9.9"), joins(socket.AF_INET6, 41, "ff02::99"), listens(262)]'


def test_in_a_shared_network_groups_are_those_of_the_containers_own_sockets(net: Namespaces) -> None:
    """As with --network host: the kernel lists groups of the whole namespace, and none of them was told."""
    with _program(net, _OURS) as ours, _program(net, _THEIRS) as theirs:
        seen = network_sockets.look([ours])
        assert {ip_address("239.9.9.9"), ip_address("ff02::fb")} < seen.groups
        wanted = set(map(ip_address, ("239.1.2.3", "239.1.2.4", "ff02::fb")))
        own = network_sockets.own(seen, [ours])
        assert own.groups == wanted
        assert not own.unknown_groups
        assert _codes(own, KEPT) == {"multicast_joined"}
        assert network_sockets.own(seen, [theirs]).groups == {ip_address("239.9.9.9"), ip_address("ff02::99")}
        # Nobody joins a group meanwhile, so whoever holds no socket has joined none.
        assert network_sockets.own(seen, [net.container]).groups == frozenset()


@pytest.mark.parametrize("how", ["not here", "takes long"])
def test_where_sockets_cannot_be_asked_it_is_reported_that_nobody_knows(
    how: str, net: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.6, and where there are more sockets and groups than a second lets ask."""

    class NotHere:
        def __init__(self, _pid: int) -> None:
            raise OSError(errno.ENOSYS, "not here")

    if how == "not here":
        monkeypatch.setattr(process_sockets, "Lender", NotHere)
    else:
        monkeypatch.setattr(process_sockets.joined, "__defaults__", ((), -1.0))
    bound = f"{_OURS}\nheld[0].bind(('', 5353))"
    with _program(net, bound) as ours, _program(net, f"{_JOINS}\nheld = listens(0)") as without_datagrams:
        own = network_sockets.own(seen := network_sockets.look([ours]), [ours])
        assert own.groups == frozenset()
        assert own.unknown_groups == set(map(ip_address, ("239.1.2.3", "239.1.2.4", "ff02::fb")))
        reported = rules_network.judge(View(own, (), KEPT, False), WARNING)
        assert [one.rule for one in reported] == ["multicast_unknown"]
        assert network_sockets.own(seen, [without_datagrams]).unknown_groups == frozenset()
        assert network_sockets.of_plain(network_sockets.plain(own)) == own


def test_protocols_of_others_in_a_shared_network_do_not_count(net: Namespaces) -> None:
    """Go from 1.24 on listens with MPTCP: a program of the host's refused every container on the host's network."""
    with _program(net, _OURS) as ours, _program(net, _THEIRS) as theirs:
        assert process_resources.look([ours], ours)["protocols"] == {"MPTCP": 1}
        assert process_resources.look([ours], ours, own_network=False)["protocols"] == {}
        assert process_resources.look([ours, theirs], ours, own_network=False)["protocols"] == {"MPTCP": 1}


# -- rules --------------------------------------------------------------------------------------------------------

NOWHERE = Addresses(frozenset(), frozenset())
ADDRESS = ip_address("172.17.0.2")
KEPT = Addresses(frozenset({ADDRESS}), frozenset({ADDRESS}))
HIDDEN = Addresses(frozenset({ADDRESS}), frozenset())


def _codes(sockets: Sockets, after: Addresses, *, close: bool = False) -> set[str]:
    connections = sockets.connections
    return {one.rule for one in rules_network.judge(View(sockets, tuple(connections), after, close), ERROR)}


def test_a_kept_address_breaks_nothing_of_tcp(sockets: Sockets) -> None:
    assert _codes(sockets, KEPT) == {"multicast_joined", "unix_stream_outside"}
    assert rules_network.judge(View(sockets, tuple(sockets.connections), KEPT, True), WARNING) == []


def test_a_changed_address_breaks_connections_and_bound_sockets(sockets: Sockets) -> None:
    assert {"connections_break", "socket_bound_to_address"} < _codes(sockets, NOWHERE)
    assert "connections_break" not in _codes(sockets, NOWHERE, close=True)
    # The same address on a bridge is enough to be bound to, but a connection goes by the host's.
    assert "socket_bound_to_address" not in _codes(sockets, HIDDEN)
    assert "connections_break" in _codes(sockets, HIDDEN)


def test_clients_are_informed_and_not_waited_for() -> None:
    client = Socket("tcp", ADDRESS, 8080, ip_address("192.0.2.1"), 4000, network_sockets.ESTABLISHED, 77, 0)
    served = Sockets((client, *network_sockets.parse_inet("tcp", TCP6)[:2]), frozenset({ADDRESS}), frozenset(), ())
    assert served.is_incoming(client)
    assert _codes(served, NOWHERE) == set()
    (warning,) = rules_network.judge(View(served, tuple(served.connections), NOWHERE, False), WARNING)
    assert warning.rule == "connections_close"
    assert "192.0.2.1:4000" in warning.message


def test_many_connections_make_a_short_message(sockets: Sockets) -> None:
    many = [sockets.inet[1]._replace(port=port, inode=port) for port in range(1000, 1100)]
    view = View(Sockets(tuple(many), frozenset(), frozenset(), ()), tuple(many), NOWHERE, False)
    (finding,) = rules_network.judge(view, ERROR)
    assert "and 97 more" in finding.message
