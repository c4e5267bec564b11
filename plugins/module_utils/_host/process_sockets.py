# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The sockets that the processes of a container hold, each asked itself through a borrowed descriptor.

What /proc/PID/net tells is that of a whole network namespace. Where a container shares that with others (its host's network),
this tells what is the container's own. Nothing of a socket is changed, and its content is not looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import time
import typing as t

from .borrowed_descriptor import GONE, Lender

#: a group, and the device on which it was joined, by its number
Membership = tuple[int, bytes]

# Of socket.h, the same on all architectures on which this runs.
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
# Families and protocols that CRIU does not know, named as in /proc/net/protocols.
_FAMILIES = {21: "RDS", 30: "TIPC", 38: "ALG", 40: "AF_VSOCK", 41: "KCM", 43: "SMC", 44: "XDP"}
_PROTOCOLS = {33: "DCCP", 132: "SCTP", 256: "SMC", 262: "MPTCP"}

# in.h: a group on a device by its number, for IPv4 as for IPv6. As an answer: who may send to it. An error: not joined there.
_MCAST_MSFILTER = 48
# struct group_filter: the number of the device, a sockaddr_storage at the next multiple of a long, mode and number of senders.
_STORAGE_BYTES = 128
_LONG_BYTES = struct.calcsize("@l")

# tcp.h
_TCP_ULP, _TCP_ULP_BYTES = 31, 16

_LIBC = ctypes.CDLL(None, use_errno=True)


def of_process(pid: int) -> list[tuple[int, int]]:
    """The sockets of a process: the number of the descriptor, and the inode. None of a process that is gone."""
    found: list[tuple[int, int]] = []
    directory = f"/proc/{pid}/fd/"
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            # It may be closed meanwhile. (contextlib.suppress takes as long as the call.)
            try:
                target = os.readlink(directory + name)
            except OSError:
                continue
            if target.startswith("socket:["):
                found.append((int(name), int(target[8:-1])))
    return found


@contextlib.contextmanager
def opened(descriptor: int) -> t.Iterator[socket.socket]:
    """A descriptor of a socket as an object of Python's, which neither changes nor closes it; the family is not asked for."""
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        yield one
    finally:
        one.detach()


def taken(lender: Lender, number: int) -> socket.SocketType:
    """A socket of another process as an object that closes our descriptor of it, for who asks hundreds of them.

    The plain type of Python's: the one with a name of its own and the context managers take as long as the calls.

    :param number: of the descriptor there.
    :raises OSError: where the process or the descriptor is gone, or the kernel cannot do it (before Linux 5.6).
    """
    return socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, lender.take(number))


@contextlib.contextmanager
def of_family(one: socket.SocketType, family: int) -> t.Iterator[socket.SocketType]:
    """The same socket as an object that reads addresses: with another family Python gives less room than they need.

    :param family: of the socket.
    """
    same = socket.SocketType(family, socket.SOCK_STREAM, 0, one.fileno())
    try:
        yield same
    finally:
        same.detach()


def protocols(pids: t.Iterable[int]) -> dict[str, int]:
    """How many sockets of protocols that CRIU does not know the processes hold, by the names of /proc/net/protocols.

    :raises OSError: where sockets cannot be asked (before Linux 5.6).
    """
    found: dict[str, int] = {}

    def count(asked: Asked) -> None:
        name = _protocol(asked.socket)
        if name:
            found[name] = found.get(name, 0) + 1

    ask_each(pids, count)
    return found


def _protocol(one: socket.socket) -> str | None:
    family = one.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return _FAMILIES.get(family)
    name = _PROTOCOLS.get(one.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL))
    return f"{name}v6" if name and family == socket.AF_INET6 else name


def joined(
    pids: t.Iterable[int], groups: t.Collection[Membership], without: t.Container[int] = (), seconds: float = 1.0
) -> set[bytes]:
    """Which multicast groups the processes' own sockets have joined.

    :param groups: those of the network namespace.
    :param without: inodes of sockets that are not asked: TCP joins nothing.
    :param seconds: that it may take.
    :returns: their addresses, as the network has them.
    :raises OSError: where sockets cannot be asked (before Linux 5.6), or it took longer (``TimeoutError``).
    """
    deadline = time.monotonic() + seconds
    left = set(groups)
    found: set[bytes] = set()

    def ask(asked: Asked) -> None:
        one = asked.socket
        if left and time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "too many sockets and groups")
        if left and one.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN) in (socket.AF_INET, socket.AF_INET6):
            found.update([group for device, group in left if _has_joined(one, device, group)])
            left.difference_update([pair for pair in left if pair[1] in found])

    ask_each(pids, ask, without)
    return found


def _has_joined(one: socket.socket, device: int, group: bytes) -> bool:
    if len(group) == 4:
        # Programs join groups of IPv4 by sockets of IPv6 as well.
        level, address = socket.IPPROTO_IP, struct.pack("=HH", socket.AF_INET, 0) + group
    else:
        level, address = socket.IPPROTO_IPV6, struct.pack("=HHI", socket.AF_INET6, 0, 0) + group
    asked = (
        struct.pack("@I", device).ljust(_LONG_BYTES, b"\0")
        + address.ljust(_STORAGE_BYTES, b"\0")
        + struct.pack("@II", 0, 0)
    )
    # Python's getsockopt(2) cannot hand anything in.
    buffer = ctypes.create_string_buffer(asked, len(asked))
    size = ctypes.c_uint(len(asked))
    answer = _LIBC.getsockopt(one.fileno(), int(level), _MCAST_MSFILTER, buffer, ctypes.byref(size))
    return int(answer) == 0


class Asked(t.NamedTuple):
    """A socket that is borrowed at the moment."""

    socket: socket.socket
    pid: int
    """A process that holds it, as this host numbers it."""
    inode: int


def ask_each(
    pids: t.Iterable[int],
    ask: t.Callable[[Asked], None],
    without: t.Container[int] = (),
    only: t.Container[int] | None = None,
) -> None:
    """Ask each socket that the processes hold, once. What is closed meanwhile is left out.

    :param without: inodes of sockets that are not asked.
    :param only: inodes of those that are; all of them without it.
    :raises OSError: where sockets cannot be asked (before Linux 5.6), or as the function does.
    """
    seen: set[int] = set()
    for pid in pids:
        unknown = [
            (number, inode)
            for number, inode in of_process(pid)
            if inode not in seen and inode not in without and (only is None or inode in only)
        ]
        if unknown:
            with _passing_over(*GONE), Lender(pid) as lender:
                for number, inode in unknown:
                    # ENOTSOCK: something else has come in its place.
                    with _passing_over(*GONE, errno.ENOTSOCK), lender.borrowed(number) as ours, opened(ours) as one:
                        ask(Asked(one, pid, inode))
                        seen.add(inode)


def upper_protocols(pids: t.Iterable[int], connections: t.Container[int], seconds: float = 1.0) -> dict[int, str]:
    """The TCP connections that the kernel runs a protocol on top of (TCP_ULP: ``tls``, ``espintcp``), by their inodes.

    :param connections: the inodes of TCP connections.
    :param seconds: that it may take. What was not looked at then shows when the copy is compared.
    :raises OSError: where sockets cannot be asked (before Linux 5.6).
    """
    deadline = time.monotonic() + seconds
    found: dict[int, str] = {}

    def ask(asked: Asked) -> None:
        if time.monotonic() <= deadline:
            # A connection may be over, and another kind of socket be in its place.
            with contextlib.suppress(OSError):
                name = asked.socket.getsockopt(socket.IPPROTO_TCP, _TCP_ULP, _TCP_ULP_BYTES).partition(b"\0")[0]
                if name:
                    found[asked.inode] = name.decode("ascii", "replace")

    ask_each(pids, ask, only=connections)
    return found


@contextlib.contextmanager
def _passing_over(*errors: int) -> t.Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno not in errors:
            raise
