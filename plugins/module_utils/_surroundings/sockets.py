# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Options of the sockets of a container's processes that CRIU does not store: TCP_DEFER_ACCEPT, TCP_USER_TIMEOUT, IP_RECVERR ...

CRIU 4.2 stores what its images have fields for (sk-opts.proto, and the options of TCP and IP in sk-inet.proto). All others
are the kernel's defaults again after a restore. They are read here from each socket through a borrowed descriptor, and what
differs from a new socket of its kind is set on the held copy. What CRIU stores is left alone, and so is what is no setting but a
state (TCP_QUICKACK, SO_INCOMING_CPU).

Two settings are taken from sysctls of the network when a socket is made, and the copy's sockets are made before it has those
sysctls. They are set on all of its sockets.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import typing as t

from .._host import namespaces
from .._host.borrowed_descriptor import Lender
from .._host.process_sockets import of_process, opened
from .side import Side

NAME = "sockets"
OF_PROCESSES = True

Value = t.Union[int, str]
Values = dict[str, Value]
"""Values of options, by their names."""

#: kinds of sockets: how a new one is made
_KINDS: dict[str, tuple[int, int, int]] = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    "raw6": (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
}
# One kind for all protocols of datagrams, and for all that are raw: the options of the table are the same.
_KIND_OF = {(family, kind): name for name, (family, kind, _protocol) in _KINDS.items()}

_ALL, _TCP, _SIX = frozenset(_KINDS), frozenset({"tcp", "tcp6"}), frozenset({"tcp6", "udp6", "raw6"})
# Programs set options of IPv4 on sockets of IPv6 as well; raw ones have none.
_FOUR = _ALL - {"raw6"}

# The table: level, number (asm-generic/socket.h, tcp.h, in.h, in6.h; the same on all architectures on which this runs), and the
# kinds of sockets that have it. Nothing else is ever set.
_OPTIONS: dict[str, tuple[int, int, frozenset[str]]] = {
    "SO_TIMESTAMP": (socket.SOL_SOCKET, 29, _ALL),
    "SO_TIMESTAMPNS": (socket.SOL_SOCKET, 35, _ALL),
    "SO_BUSY_POLL": (socket.SOL_SOCKET, 46, _ALL),
    "TCP_SYNCNT": (socket.IPPROTO_TCP, 7, _TCP),
    "TCP_LINGER2": (socket.IPPROTO_TCP, 8, _TCP),
    "TCP_DEFER_ACCEPT": (socket.IPPROTO_TCP, 9, _TCP),
    "TCP_CONGESTION": (socket.IPPROTO_TCP, 13, _TCP),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, 18, _TCP),
    "TCP_FASTOPEN": (socket.IPPROTO_TCP, 23, _TCP),
    "TCP_NOTSENT_LOWAT": (socket.IPPROTO_TCP, 25, _TCP),
    "IP_MTU_DISCOVER": (socket.IPPROTO_IP, 10, _FOUR),
    "IP_RECVERR": (socket.IPPROTO_IP, 11, _FOUR),
    "IP_RECVTTL": (socket.IPPROTO_IP, 12, _FOUR),
    "IP_RECVTOS": (socket.IPPROTO_IP, 13, _FOUR),
    "IP_TRANSPARENT": (socket.IPPROTO_IP, 19, _FOUR),
    "IP_BIND_ADDRESS_NO_PORT": (socket.IPPROTO_IP, 24, _FOUR),
    # An accepted connection has the TTL of its client there.
    "IP_MULTICAST_TTL": (socket.IPPROTO_IP, 33, _FOUR - _TCP),
    "IP_MULTICAST_LOOP": (socket.IPPROTO_IP, 34, _FOUR - _TCP),
    "IPV6_UNICAST_HOPS": (socket.IPPROTO_IPV6, 16, _SIX),
    "IPV6_MULTICAST_HOPS": (socket.IPPROTO_IPV6, 18, _SIX - _TCP),
    "IPV6_MULTICAST_LOOP": (socket.IPPROTO_IPV6, 19, _SIX - _TCP),
    "IPV6_MTU_DISCOVER": (socket.IPPROTO_IPV6, 23, _SIX),
    "IPV6_RECVERR": (socket.IPPROTO_IPV6, 25, _SIX),
    "IPV6_RECVPKTINFO": (socket.IPPROTO_IPV6, 49, _SIX),
    "IPV6_RECVHOPLIMIT": (socket.IPPROTO_IPV6, 51, _SIX),
    "IPV6_RECVTCLASS": (socket.IPPROTO_IPV6, 66, _SIX),
    "IPV6_TCLASS": (socket.IPPROTO_IPV6, 67, _SIX),
}
# The one that is a text, with what the kernel takes as such a name (TCP_CA_NAME_MAX).
_TEXT = "TCP_CONGESTION"
_TEXT_BYTES = 16
_NAME = re.compile(r"[a-z0-9_-]{1,15}")
# What a socket takes from sysctls of its network (tcp_congestion_control, ip_no_pmtu_disc) when it is made.
_AT_CREATION = ("TCP_CONGESTION", "IP_MTU_DISCOVER")
# Of a socket that listens or may come to it. On a connection they have no effect and cannot be set.
_OF_LISTENERS = ("TCP_DEFER_ACCEPT", "TCP_FASTOPEN")
# Of tcp_states.h, as TCP_INFO begins with it.
_TCP_INFO, _CLOSED_OR_LISTENING = 11, (7, 10)
# The kernel notes a connection's ECN in the two lower bits.
_ECN = 3

_SO_PROTOCOL, _SO_DOMAIN = 38, 39
# Before Linux 5.6 nothing can be borrowed, and a filter of system calls may forbid it.
_NOT_BORROWED = (errno.ENOSYS, errno.EPERM)


class Special(t.NamedTuple):
    """A socket that is not as a new one; a list in JSON."""

    process: str
    """One that holds it, as the container counts it."""
    descriptor: int
    """Its number there."""
    kind: str
    """A key of the kinds."""
    values: Values
    """Those in which it differs."""


def look_ahead(side: Side) -> t.Any:
    """What each option is on a new socket of each kind, in the container's network: some defaults are sysctls of it."""
    return namespaces.inside(side.init, ["net"], _of_new_ones)


def _of_new_ones() -> dict[str, Values]:
    found: dict[str, Values] = {}
    for kind, how in _KINDS.items():
        # A host may have no IPv6; options that a kernel does not have are left out.
        with contextlib.suppress(OSError), socket.socket(*how) as one:
            found[kind] = {}
            for name, (_level, _number, kinds) in _OPTIONS.items():
                if kind in kinds:
                    with contextlib.suppress(OSError):
                        found[kind][name] = _get(one, name, kind)
    return found


def _get(one: socket.socket, name: str, kind: str) -> Value:
    """:raises OSError: for an option that the socket does not have."""
    level, number, _kinds = _OPTIONS[name]
    if name == _TEXT:
        return one.getsockopt(level, number, _TEXT_BYTES).partition(b"\0")[0].decode("ascii", "replace")
    value = one.getsockopt(level, number)
    return value & ~_ECN if name == "IPV6_TCLASS" and kind in _TCP else value


def _kind(one: socket.socket) -> str | None:
    """Which kind a socket is of; None for those of other families, and of protocols that CRIU does not know."""
    family = one.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    kind = _KIND_OF.get((family, one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)))
    if kind in _TCP and one.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL) != socket.IPPROTO_TCP:
        return None
    return kind


def take(side: Side, ahead: t.Any) -> t.Any:
    """The sockets that are not as new ones, each once; and what new ones take from sysctls, in a network of the container's own.

    Nothing where there are no such sockets, or nothing can be borrowed.
    """
    try:
        kinds, special = _look(side, ahead or look_ahead(side))
    except OSError as exc:
        if exc.errno not in _NOT_BORROWED:
            raise
        return None
    if not kinds:
        return None
    created = {
        kind: {name: value for name, value in values.items() if name in _AT_CREATION} for kind, values in kinds.items()
    }
    return {"created": created if side.own_network else {}, "special": special}


def _look(side: Side, fresh: t.Mapping[str, Values]) -> tuple[dict[str, Values], list[Special]]:
    """Of which kinds there are sockets, with what a new one has; and the special ones.

    :raises OSError: where nothing can be borrowed.
    """
    kinds: dict[str, Values] = {}
    special: list[Special] = []
    seen: set[int] = set()
    for number, pid in side.processes.items():
        sockets = [(descriptor, inode) for descriptor, inode in of_process(pid) if inode not in seen]
        if not sockets:
            continue
        with Lender(pid) as lender:
            for descriptor, inode in sockets:
                if inode in seen:
                    continue
                seen.add(inode)
                with lender.borrowed(descriptor) as ours, opened(ours) as one:
                    kind = _kind(one)
                    if (
                        kind is not None
                        and kind in fresh
                        and (side.keeps_connections or not _will_be_closed(one, kind))
                    ):
                        kinds[kind] = fresh[kind]
                        values = _special(one, kind, fresh[kind])
                        if values:
                            special.append(Special(number, descriptor, kind, values))
    return kinds, special


def _special(one: socket.socket, kind: str, fresh: Values) -> Values:
    found: Values = {}
    for name, usual in fresh.items():
        # Of a connection that is over not everything can be read. (contextlib.suppress takes longer than the call.)
        try:
            value = _get(one, name, kind)
        except OSError:
            continue
        if value != usual and not (name in _OF_LISTENERS and not _may_listen(one)):
            found[name] = value
    return found


def _will_be_closed(one: socket.socket, kind: str) -> bool:
    """Whether a socket is the end of a connection that leaves the container. There may be thousands of them."""
    if kind not in _TCP or _may_listen(one):
        return False
    try:
        here, there = one.getsockname()[0], one.getpeername()[0]
    except OSError:
        # It is over, or only just begun.
        return True
    # Between two ends within the container it goes on.
    return here != there and not ipaddress.ip_address(there.partition("%")[0]).is_loopback


def _may_listen(one: socket.socket) -> bool:
    return one.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] in _CLOSED_OR_LISTENING


def carry(side: Side, source: t.Any) -> None:
    """Set what differs from the source on the sockets of a held copy. One that runs may have changed them itself.

    :raises ValueError: for what no source can have found: numbers that are none, options that are not of the table.
    """
    created, special = _checked(source)
    if not side.group.frozen:
        return
    sockets_of = {number: of_process(pid) for number, pid in side.processes.items()}
    inodes = {(number, descriptor): inode for number, sockets in sockets_of.items() for descriptor, inode in sockets}
    wanted = {inodes.get((one.process, one.descriptor)): one for one in special}
    seen: set[int] = set()
    setting = _Setting()
    for number, sockets in sockets_of.items():
        new = {inode: descriptor for descriptor, inode in sockets if inode not in seen}
        seen.update(new)
        if not new:
            continue
        # What cannot be borrowed or set shows in the comparison.
        with contextlib.suppress(OSError), Lender(side.processes[number]) as lender:
            for inode, descriptor in new.items():
                with contextlib.suppress(OSError), lender.borrowed(descriptor) as ours, opened(ours) as one:
                    kind = _kind(one)
                    if kind is not None:
                        sent = wanted.get(inode)
                        of_network = created.get(kind, {}) if side.own_network else {}
                        setting.of(one, kind, {**of_network, **(sent.values if sent and sent.kind == kind else {})})


class _Setting:
    """Sets options, and remembers what cannot be had here."""

    def __init__(self) -> None:
        # Congestion controls that this host does not have. Each time the kernel would start modprobe(8) for one.
        self._missing: set[Value] = set()

    def of(self, one: socket.socket, kind: str, values: Values) -> None:
        """Give a socket what it has otherwise."""
        for name, value in values.items():
            level, number, _kinds = _OPTIONS[name]
            try:
                if value in self._missing or _get(one, name, kind) == value:
                    continue
                one.setsockopt(level, number, value if isinstance(value, int) else value.encode("ascii"))
            except FileNotFoundError:
                self._missing.add(value)
            except OSError:
                # It shows in the comparison.
                continue


def _checked(source: t.Any) -> tuple[dict[str, Values], list[Special]]:
    """What has come from the source, which is another host.

    :raises ValueError: for what no source can have found.
    """
    try:
        created = {str(kind): _checked_values(kind, values) for kind, values in source["created"].items()}
        special = [
            Special(process, descriptor, kind, _checked_values(kind, values))
            for process, descriptor, kind, values in source["special"]
        ]
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"these are no options of sockets: {exc!r}") from exc
    for one in special:
        if not isinstance(one.process, str) or not _is_number(one.descriptor):
            raise ValueError(f"{one.process!r}, {one.descriptor!r} is no descriptor of a process")
    return created, special


def _is_number(value: t.Any) -> bool:
    """Whether it is an int, and none of those that stand for true and false."""
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_values(kind: t.Any, values: t.Any) -> Values:
    for name, value in values.items():
        if name not in _OPTIONS or kind not in _OPTIONS[name][2]:
            raise ValueError(f"{name!r} is no option of a socket of the kind {kind!r}")
        if name == _TEXT:
            known = isinstance(value, str) and _NAME.fullmatch(value) is not None
        else:
            known = _is_number(value) and -(1 << 31) <= value < 1 << 31
        if not known:
            raise ValueError(f"{value!r} is no value of {name}")
    return dict(values)


def compare(side: Side, source: t.Any) -> list[str]:
    """The options that were special on the source and are not the same on the copy.

    On a copy that runs already nothing is set, so all differences are reported, but not those of sockets that its programs have
    closed meanwhile.
    """
    found: list[str] = []
    frozen = side.group.frozen
    for one in _checked(source)[1]:
        pid = side.processes.get(one.process)
        where = f"of descriptor {one.descriptor} of process {one.process}"
        try:
            # A process that is missing, other topics tell.
            now = _now(pid, one) if pid is not None else one.values
        except OSError as exc:
            if frozen or exc.errno in _NOT_BORROWED:
                found.append(f"{', '.join(one.values)} {where} cannot be read ({exc.strerror})")
            continue
        if now is None:
            if frozen:
                found.append(
                    f"descriptor {one.descriptor} of process {one.process} is no socket of the kind {one.kind}"
                )
            continue
        found.extend(
            f"{name} {where} was {value} and is {now.get(name, 'not there')}"
            for name, value in one.values.items()
            if now.get(name) != value
        )
    return found


def _now(pid: int, special: Special) -> Values | None:
    """The same options of a socket of the copy; None where that is another kind of thing.

    :raises OSError: where it cannot be borrowed.
    """
    with Lender(pid) as lender, lender.borrowed(special.descriptor) as ours, opened(ours) as one:
        found: Values = {}
        try:
            if _kind(one) != special.kind:
                return None
        except OSError:
            # No socket.
            return None
        for name in special.values:
            with contextlib.suppress(OSError):
                found[name] = _get(one, name, special.kind)
        return found
