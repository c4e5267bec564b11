# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whose the other end of a unix socket is, as the kernel answers a program that asks (SO_PEERCRED, see unix(7)).

The kernel notes the effective ids of who calls connect(2), listen(2) or socketpair(2). CRIU 4.2 stores none of it and makes these
calls as root, so that after a restore everybody is root. listen(2) can be called once more, by a thread with other ids. There is
no call that changes what is noted of a connection.

Numbers of users are those of this host: a container with a user namespace of its own is refused (``user_namespace``).
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import socket
import struct
import threading
import time
import typing as t

from . import namespaces, process_sockets
from .tasks import read

# Of asm-generic/socket.h.
_SO_ACCEPTCONN, _SO_PEERGROUPS = 30, 59
_CREDENTIALS = struct.Struct("=iII")
_NOBODY = 0xFFFFFFFF
#: whom CRIU makes of everybody: user and group
ROOT = (0, 0)
# Python's getsockopt(2) takes no more at once. Whoever is in more groups is noted without them, which gives nobody any right.
_GROUPS_BYTES = 1024

# setgroups(2), setresgid(2) and setresuid(2). Those of the C library change all threads.
_NUMBERS = {"x86_64": (116, 119, 117), "s390x": (206, 210, 208), "ppc64le": (81, 169, 164)}
# Of every architecture that Linux learnt after 2010.
_GENERIC = (159, 149, 147)
_SETGROUPS, _SETRESGID, _SETRESUID = _NUMBERS.get(platform.machine(), _GENERIC)
_UNCHANGED = -1

# Of /proc/PID/net/unix: SOCK_STREAM and SOCK_SEQPACKET.
_CONNECTED_TYPES = ("0001", "0005")


class Peer(t.NamedTuple):
    """Who made a socket listen, or the other end of a connection; a list in JSON."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Of one who listens alone."""

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


def listens(one: socket.SocketType) -> bool:
    """Whether a unix socket listens."""
    return bool(one.getsockopt(socket.SOL_SOCKET, _SO_ACCEPTCONN))


def of_listener(one: socket.SocketType) -> Peer:
    """Who made it listen: what clients are answered when they ask who the server is.

    :raises OSError: where it cannot be asked.
    """
    groups: tuple[int, ...] = ()
    # Before Linux 4.13 nobody can ask.
    with contextlib.suppress(OSError):
        data = one.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
        groups = struct.unpack(f"={len(data) // 4}I", data)
    return Peer(*_ids(one), groups)


def _ids(one: socket.SocketType) -> tuple[int, int]:
    data = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, gid = _CREDENTIALS.unpack(data)
    return uid, gid


def of_connection(one: socket.SocketType) -> Peer | None:
    """Who has the other end of a connection that was made through a listening socket, where that is not root.

    None for others. The two ends of socketpair(2) are not looked at: both are made by one program, mostly for itself and its
    children, and programs that give up root afterwards have many of them. They are told by their names, of which they have none.

    :raises OSError: where it cannot be asked.
    """
    ids = _ids(one)
    if ids == ROOT or _NOBODY in ids or not name(one):
        return None
    return Peer(*ids)


def name(one: socket.SocketType) -> str:
    """The name by which a listener is found, or that of the listener through which a connection was made; empty for no name."""
    try:
        with process_sockets.of_family(one, socket.AF_UNIX) as unix:
            found = unix.getsockname() or unix.getpeername()
    except OSError:
        # It has no connection any more.
        return ""
    # As ss(8) and the kernel write a name that is no path.
    return "@" + found[1:].decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def listen_again(one: socket.SocketType, backlog: int, peer: Peer) -> None:
    """Have a socket that listens listen as somebody else. What waits there stays.

    The number of the process is noted as well: it is 0 for the container, because ours has none there.

    :param backlog: how many may wait, as it is now.
    :raises OSError: what the kernel says.
    """
    groups = (ctypes.c_uint * max(1, len(peer.groups)))(*peer.groups)
    failed: list[OSError] = []

    def work() -> None:
        # The user at last: who is not root may not change the others. The thread ends with what it has become.
        try:
            namespaces.call("syscall", _SETGROUPS, len(peer.groups), groups)
            namespaces.call("syscall", _SETRESGID, _UNCHANGED, peer.gid, _UNCHANGED)
            namespaces.call("syscall", _SETRESUID, _UNCHANGED, peer.uid, _UNCHANGED)
            one.listen(backlog)
        except OSError as exc:
            failed.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _connected(pid: int) -> set[int]:
    """The inodes of the unix sockets of a network that have a connection or wait for one."""
    found = set()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/net/unix", encoding="utf-8", errors="replace") as handle:
        for line in handle:
            fields = line.split(None, 7)
            if len(fields) > 6 and fields[4] in _CONNECTED_TYPES and fields[6].isdecimal():
                found.add(int(fields[6]))
    return found


def of_processes(pids: t.Sequence[int], seconds: float = 1.0) -> list[dict[str, t.Any]]:
    """The connections of which the other end is not root's, see :func:`of_connection`: program, name, user and group; each once.

    :param pids: as this host numbers them, all in one network.
    :param seconds: that it may take. What was not looked at then is not known.
    :raises OSError: where sockets cannot be asked (before Linux 5.6).
    """
    deadline = time.monotonic() + seconds
    found: set[tuple[str, str, int, int]] = set()

    def ask(asked: process_sockets.Asked) -> None:
        if time.monotonic() <= deadline:
            other = of_connection(asked.socket)
            if other is not None:
                found.add((read(f"/proc/{asked.pid}/comm").rstrip("\n"), name(asked.socket), other.uid, other.gid))

    process_sockets.ask_each(pids, ask, only=_connected(pids[0]) if pids else ())
    return [{"program": program, "name": place, "uid": uid, "gid": gid} for program, place, uid, gid in sorted(found)]
