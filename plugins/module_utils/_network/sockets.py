# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a container has open on the network, as the kernel tells it. What a move would break of it:
``_preflight/rules/network.py``.

Parsers are pure; :func:`look` and :func:`left_behind` read /proc/PID/net, which shows the network
namespace of a process without entering it. No socket's content is looked at.
"""

from __future__ import annotations

import ipaddress
import os
import re
import struct
import time
import typing as t

from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._host import process_sockets

Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# include/net/tcp_states.h
ESTABLISHED, SYN_SENT, SYN_RECEIVED, FIN_WAIT1, TIME_WAIT, CLOSED, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = (
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
    10,
    11,
)
_NO_CONNECTION = (TIME_WAIT, CLOSED, LISTEN, SYN_RECEIVED)
# Without a program: not accepted yet, or closed with something still on its way to the other end.
_UNACCEPTED = (ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT)
_UNFINISHED = (FIN_WAIT1, LAST_ACK, CLOSING)

# Groups in which every host is, and those of a node's own addresses.
_EVERYBODY = (
    ipaddress.ip_network("224.0.0.1/32"),
    ipaddress.ip_network("ff02::1/128"),
    ipaddress.ip_network("ff01::1/128"),
)
_SOLICITED_NODE = ipaddress.ip_network("ff02::1:ff00:0/104")
# Groups that a kernel joins by itself where it is a router or has a bridge: of all routers, and of all snoopers.
_OF_ROUTERS = frozenset(
    map(ipaddress.ip_address, ("224.0.0.2", "224.0.0.106", "ff01::2", "ff02::2", "ff05::2", "ff02::6a"))
)

_POLL_SECONDS = 0.002


class Socket(t.NamedTuple):
    """A line of /proc/PID/net/tcp and the like."""

    protocol: str
    """``tcp``, ``udp``, ``udplite`` or ``raw``."""
    address: Address
    """The local one. One of IPv4 in an IPv6 socket counts as IPv4."""
    port: int
    peer: Address
    peer_port: int
    state: int
    inode: int
    """0 for a connection that no program has accepted yet."""
    queued: int
    """Bytes not read yet; for a listening socket, connections not accepted yet."""

    def __str__(self) -> str:
        return f"{self.protocol} {_join(self.address, self.port)} - {_join(self.peer, self.peer_port)}"

    @property
    def is_connection(self) -> bool:
        """Whether it is a TCP connection that has a program on this side."""
        return self.protocol == "tcp" and self.state not in _NO_CONNECTION and bool(self.inode)

    @property
    def bound_to(self) -> Address | None:
        """The one address to which it is tied; None where any address of the container will do, and on loopback."""
        return None if self.address.is_unspecified or self.address.is_loopback else self.address


class UnixPair(t.NamedTuple):
    """A unix socket with both ends, by inode."""

    kind: str
    """As ss has it: ``u_str``, ``u_dgr`` or ``u_seq``."""
    inode: int
    peer: int
    path: str


class Sockets(t.NamedTuple):
    """All that is open in one network namespace."""

    inet: tuple[Socket, ...]
    own_addresses: frozenset[Address]
    groups: frozenset[Address]
    """Multicast groups that programs have joined."""
    outside: tuple[str, ...]
    """Unix streams whose other end is not the container's, by path or as ``unnamed``."""
    six: tuple[Socket, ...] = ()
    """Those of ``inet`` that programs have made as sockets of IPv6; they may well serve IPv4 too."""
    unknown_groups: frozenset[Address] = frozenset()
    """Groups that somebody in a shared network namespace has joined, and perhaps the container, see :func:`own`."""

    @property
    def connections(self) -> list[Socket]:
        """TCP connections to somewhere else that have a program on this side. Those within the container travel as they are."""
        return [
            socket
            for socket in self.inet
            if socket.is_connection and not socket.peer.is_loopback and socket.peer not in self.own_addresses
        ]

    @property
    def bound(self) -> list[Socket]:
        """Sockets without a connection that are tied to one address: whoever has another one cannot reach them."""
        return [socket for socket in self.inet if socket.bound_to is not None and socket.state in (LISTEN, CLOSED)]

    def is_incoming(self, connection: Socket) -> bool:
        """Whether a connection came in through a port on which the container listens."""
        return any(
            socket.state == LISTEN
            and socket.port == connection.port
            and (socket.address.is_unspecified or socket.address == connection.address)
            for socket in self.inet
        )


# -- parsers ------------------------------------------------------------------------------------------------------


def _join(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _address(text: str) -> Address:
    """An address as /proc/net/tcp has it: 32-bit words, each in the byte order of this machine."""
    numbers = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(numbers)}I", *numbers)
    if len(numbers) == 1:
        return ipaddress.IPv4Address(packed)
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address


def parse_inet(protocol: str, text: str) -> list[Socket]:
    """The sockets in /proc/PID/net/tcp, tcp6, udp, udp6, raw, raw6 and the like."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10:
            continue
        (local, port), (peer, peer_port) = (field.split(":") for field in fields[1:3])
        found.append(
            Socket(
                protocol,
                _address(local),
                int(port, 16),
                _address(peer),
                int(peer_port, 16),
                int(fields[3], 16),
                int(fields[9]),
                int(fields[4].split(":")[1], 16),
            )
        )
    return found


def parse_memberships(igmp: str, igmp6: str) -> list[tuple[int, Address]]:
    """The number of the device and the group of each line in /proc/PID/net/igmp and igmp6 that is there for a program."""
    found: list[tuple[int, Address]] = []
    device = 0
    for line in igmp.splitlines():
        fields = line.split()
        # Lines of devices begin with a number, those of their groups with blanks.
        if fields and fields[0].isdecimal() and not line[:1].isspace():
            device = int(fields[0])
        elif line[:1].isspace() and fields and re.fullmatch("[0-9A-F]{8}", fields[0]):
            found.append((device, _address(fields[0])))
    for line in igmp6.splitlines():
        fields = line.split()
        if len(fields) >= 3:
            found.append((int(fields[0]), ipaddress.IPv6Address(bytes.fromhex(fields[2]))))
    return [
        (number, group)
        for number, group in found
        if not any(group in net for net in (*_EVERYBODY, _SOLICITED_NODE) if net.version == group.version)
    ]


def parse_groups(igmp: str, igmp6: str) -> frozenset[Address]:
    """The multicast groups in /proc/PID/net/igmp and igmp6 that are there because a program joined them."""
    return frozenset(group for _device, group in parse_memberships(igmp, igmp6))


def parse_own_addresses(fib_trie: str, if_inet6: str) -> frozenset[Address]:
    """The addresses of the namespace itself, from /proc/PID/net/fib_trie and if_inet6, loopback included."""
    found: set[Address] = set()
    last = ""
    for line in fib_trie.splitlines():
        fields = line.split()
        if fields[:1] == ["|--"]:
            last = fields[1]
        elif fields == ["/32", "host", "LOCAL"]:
            found.add(ipaddress.IPv4Address(last))
    for line in if_inet6.splitlines():
        found.add(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    return frozenset(found)


def parse_unix(text: str) -> list[UnixPair]:
    """The connected unix sockets in what ``ss -x -a -H -n`` says."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        # Paths may hold blanks; the two inodes are the third last and the last word.
        if len(fields) >= 8 and fields[-1].isdecimal() and fields[-3].isdecimal() and fields[-1] != "0":
            found.append(UnixPair(fields[0], int(fields[-3]), int(fields[-1]), " ".join(fields[4:-3])))
    return found


def outside(pairs: t.Iterable[UnixPair], own: t.Container[int]) -> tuple[str, ...]:
    """The connected unix streams of which just one end is the container's, by path where either end has one.

    Datagram sockets (the way to syslog) are connected again by their path: CRIU can do that.

    :param own: the inodes of the sockets that the container's processes hold.
    """
    paths: dict[int, str] = {}
    ends: dict[int, str] = {}
    for pair in pairs:
        paths[pair.inode] = "" if pair.path == "*" else pair.path
        # The end outside may be in a namespace that this list does not show, so only the own end is asked for.
        if pair.inode in own and pair.peer not in own and pair.kind != "u_dgr":
            ends[pair.peer] = paths[pair.inode]
    return tuple(sorted(paths.get(peer) or name or "unnamed" for peer, name in ends.items()))


# -- looking ------------------------------------------------------------------------------------------------------


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/net/{name}", encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            raise MigrationError("process_gone", f"Process {pid} has ended.", pid=pid) from None
        # No IPv6 on this host, or none of that protocol.
        return ""


def _inodes(pids: t.Iterable[int]) -> set[int]:
    return {inode for pid in pids for _number, inode in process_sockets.of_process(pid)}


def look(pids: t.Sequence[int], runner: Runner = run) -> Sockets:
    """What a container has open. A few milliseconds; nothing is stopped for it.

    :param pids: its processes, the first one being in its network namespace.
    :raises MigrationError: ``process_gone``; ``program_missing`` where the host has no ss or nsenter.
    """
    pid = pids[0]
    inet: list[Socket] = []
    six: list[Socket] = []
    for protocol in ("tcp", "udp", "udplite", "raw"):
        for version in ("", "6"):
            found = parse_inet(protocol, _read(pid, protocol + version))
            inet.extend(found)
            # Without an inode it is no program's: what is left of a connection that is over.
            six.extend(one for one in found if version and one.inode)
    unix = runner(["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-x", "-a", "-H", "-n"])
    return Sockets(
        tuple(inet),
        parse_own_addresses(_read(pid, "fib_trie"), _read(pid, "if_inet6")),
        parse_groups(_read(pid, "igmp"), _read(pid, "igmp6")),
        outside(parse_unix(unix.stdout), _inodes(pids)),
        tuple(six),
    )


def look_at_tcp(pid: int) -> list[Socket]:
    """TCP alone in the network namespace of a process, without starting a program."""
    return [socket for version in ("", "6") for socket in parse_inet("tcp", _read(pid, "tcp" + version))]


def own(sockets: Sockets, pids: t.Sequence[int]) -> Sockets:
    """Of what is open in a network that a container shares with others, only what its processes hold.

    The kernel lists multicast groups by devices, not by who joined them, so the container's sockets are asked, for a second at
    most. Where that cannot be done, and there are some that can have joined a group, the groups are unknown ones.

    :param pids: its processes, the first one being in that network.
    :raises MigrationError: ``process_gone``.
    """
    inodes = _inodes(pids)
    mine = sockets._replace(
        inet=tuple(one for one in sockets.inet if one.inode in inodes),
        six=tuple(one for one in sockets.six if one.inode in inodes),
        groups=frozenset(),
        unknown_groups=frozenset(),
    )
    if not sockets.groups:
        return mine
    listed = parse_memberships(_read(pids[0], "igmp"), _read(pids[0], "igmp6"))
    tcp = {one.inode for one in mine.inet if one.protocol == "tcp"}
    try:
        joined = process_sockets.joined(pids, [(device, group.packed) for device, group in listed], tcp)
    except OSError:
        can_have_joined = any(one.protocol != "tcp" for one in mine.inet)
        return mine._replace(unknown_groups=sockets.groups - _OF_ROUTERS if can_have_joined else frozenset())
    return mine._replace(groups=frozenset(map(ipaddress.ip_address, joined)))


def plain(sockets: Sockets) -> dict[str, t.Any]:
    """What was seen, as plain data."""
    return {
        "inet": [list(map(str, one)) for one in sockets.inet],
        "own_addresses": sorted(map(str, sockets.own_addresses)),
        "groups": sorted(map(str, sockets.groups)),
        "outside": list(sockets.outside),
        "six": [list(map(str, one)) for one in sockets.six],
        "unknown_groups": sorted(map(str, sockets.unknown_groups)),
    }


def socket_of(fields: t.Sequence[str]) -> Socket:
    """A socket out of its fields in plain text."""
    protocol, address, port, peer, peer_port, state, inode, queued = fields
    return Socket(
        protocol,
        ipaddress.ip_address(address),
        int(port),
        ipaddress.ip_address(peer),
        int(peer_port),
        int(state),
        int(inode),
        int(queued),
    )


def of_plain(data: t.Mapping[str, t.Any]) -> Sockets:
    """The opposite of :func:`plain`."""
    return Sockets(
        tuple(socket_of(fields) for fields in data["inet"]),
        frozenset(map(ipaddress.ip_address, data["own_addresses"])),
        frozenset(map(ipaddress.ip_address, data["groups"])),
        tuple(data["outside"]),
        tuple(socket_of(fields) for fields in data.get("six") or ()),
        # Facts of an older version have none.
        frozenset(map(ipaddress.ip_address, data.get("unknown_groups", ()))),
    )


def lasting(before: Sockets, after: Sockets) -> list[Socket]:
    """The connections that are there in both of two looks: not those of a request that comes and goes."""
    then = {(socket.inode, socket[1:5]) for socket in before.connections}
    return [socket for socket in after.connections if (socket.inode, socket[1:5]) in then]


def left_behind(pid: int) -> list[Socket]:
    """The connections of a container that no program of it holds, and that are not over: CRIU does not take them along.

    The kernel has accepted them and the program has not; or the program has closed them, and the other end does not have all yet.
    """
    return [socket for socket in look_at_tcp(pid) if not socket.inode and socket.state in (*_UNACCEPTED, *_UNFINISHED)]


def drain(pid: int, timeout: float) -> int:
    """Wait until no connection would be left behind, with new ones kept out (``network_fence.NEW``).

    What was acknowledged on such a connection is lost, so that it has to be reset in the end.

    :param timeout: seconds; neither a program that is slow to accept nor a slow client is waited for any longer.
    :returns: how many are left.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = len(left_behind(pid))
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(_POLL_SECONDS)
