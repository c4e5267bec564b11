# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Who has made a unix socket listen (SO_PEERCRED of its clients), which CRIU makes root; a part of the topic of sockets.

Only what root has not made listen is noted. On the held copy such a socket is made to listen again as who made it listen. Nothing
can be done about connections that exist: the preflight warns of them (``peer_credentials``).
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import typing as t

from .._host import namespaces, unix_peers
from .._host.borrowed_descriptor import Lender
from .._host.process_sockets import opened
from .._host.unix_peers import Peer
from .._network import backlog
from .side import Side
from .socket_options import UNIX_CONNECTED, is_number, kind_of

# A process is in no more groups (NGROUPS_MAX), and this is the largest number of a user.
_MOST_GROUPS, _LARGEST_ID = 65536, (1 << 32) - 2


class Noted(t.NamedTuple):
    """A unix socket that somebody else than root has made listen; a list in JSON."""

    process: str
    """One that holds it, as the container counts it."""
    descriptor: int
    """Its number there."""
    uid: int
    gid: int
    groups: t.Sequence[int] = ()

    @property
    def peer(self) -> Peer:
        """Who that is."""
        return Peer(self.uid, self.gid, tuple(self.groups))


def listener(one: socket.SocketType, process: str, descriptor: int) -> Noted | None:
    """What is to be noted of a unix socket of a kind that connects; None where it does not listen, or root made it listen."""
    if not unix_peers.listens(one):
        return None
    peer = unix_peers.of_listener(one)
    return Noted(process, descriptor, *peer) if (peer.uid, peer.gid) != unix_peers.ROOT else None


def carry(side: Side, source: t.Any) -> None:
    """Have the sockets of a held copy listen as who made them listen on the source. What fails shows in the comparison."""
    for noted in checked(source):
        pid = side.processes.get(noted.process)
        if pid is not None:
            with contextlib.suppress(OSError):
                _listen_again(side, pid, noted)


def _listen_again(side: Side, pid: int, noted: Noted) -> None:
    with Lender(pid) as lender, lender.borrowed(noted.descriptor) as ours, opened(ours) as one:
        if _listens(one) and unix_peers.of_listener(one) != noted.peer:
            inode = os.fstat(ours).st_ino
            may_wait = namespaces.inside(side.init, ["net"], functools.partial(backlog.of_unix, inode))
            unix_peers.listen_again(one, may_wait, noted.peer)


def _listens(one: socket.SocketType) -> bool:
    return kind_of(one) in UNIX_CONNECTED and unix_peers.listens(one)


def compare(side: Side, source: t.Any) -> list[str]:
    """Whose sockets are not the same on the copy: a part of a sentence each. Of a copy that runs not what it has closed."""
    found: list[str] = []
    for one in checked(source):
        pid = side.processes.get(one.process)
        where = f"descriptor {one.descriptor} of process {one.process}"
        try:
            # A process that is missing, other topics tell.
            now = _now(pid, one) if pid is not None else one.peer
        except OSError as exc:
            if side.group.frozen:
                found.append(f"who listens at {where} cannot be read ({exc.strerror})")
            continue
        if now is None:
            if side.group.frozen:
                found.append(f"{where} is no unix socket that listens")
        elif now != one.peer:
            found.append(
                f"the one who listens at {where} was of user and group {one.peer} and is of {_difference(now, one.peer)}"
            )
    return found


def _difference(now: Peer, before: Peer) -> str:
    return str(now) if (now.uid, now.gid) != (before.uid, before.gid) else f"{now} in other groups"


def _now(pid: int, noted: Noted) -> Peer | None:
    """Whose it is on the copy; None where that is another kind of thing.

    :raises OSError: where it cannot be borrowed.
    """
    with Lender(pid) as lender, lender.borrowed(noted.descriptor) as ours, opened(ours) as one:
        try:
            if not _listens(one):
                return None
            return unix_peers.of_listener(one)
        except OSError:
            # No socket.
            return None


def checked(source: t.Any) -> list[Noted]:
    """What has come from the source, which is another host.

    :raises ValueError: for what no source can have found.
    """
    try:
        noted = [Noted(*one) for one in source["listeners"]]
    except (KeyError, TypeError) as exc:
        raise ValueError(f"these are no listening sockets: {exc!r}") from exc
    for one in noted:
        if not isinstance(one.process, str) or not is_number(one.descriptor):
            raise ValueError(f"{one.process!r}, {one.descriptor!r} is no descriptor of a process")
        if not isinstance(one.groups, (list, tuple)) or len(one.groups) > _MOST_GROUPS:
            raise ValueError(f"{one.groups!r:.100} are no groups")
        for number in (one.uid, one.gid, *one.groups):
            if not is_number(number) or not 0 <= number <= _LARGEST_ID:
                raise ValueError(f"{number!r} is no number of a user or group")
    return noted
