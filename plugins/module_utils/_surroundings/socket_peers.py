# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whose the other end of a unix socket is (SO_PEERCRED), which CRIU makes root's; a part of the topic of sockets.

Only what is not root's already is noted. On the held copy sockets that listen are made to listen again as who made them listen.
Of connections it can only be compared: a service that asks who its client is would take any client for root. The preflight looks
for them before anything is frozen (``peer_credentials``).
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

#: the rule of the preflight
RULE = "peer_credentials"

# A process is in no more groups (NGROUPS_MAX), and these are the largest number of a user and how long a name may be.
_MOST_GROUPS, _LARGEST_ID, _NAME_LENGTH = 65536, (1 << 32) - 2, 200


class Noted(t.NamedTuple):
    """A unix socket of which somebody else than root has the other end, or made it listen; a list in JSON."""

    process: str
    """One that holds it, as the container counts it."""
    descriptor: int
    """Its number there."""
    listens: bool
    uid: int
    gid: int
    groups: t.Sequence[int] = ()

    @property
    def peer(self) -> Peer:
        """Who that is."""
        return Peer(self.uid, self.gid, tuple(self.groups))


class Found:
    """What the sockets of the source are asked.

    :param connections: whether connections are looked at; not where the user does not heed the rule.
    """

    def __init__(self, *, connections: bool) -> None:
        self._connections = connections
        self._noted: list[Noted] = []
        self._waiting: list[str] = []

    def look(self, one: socket.SocketType, process: str, descriptor: int) -> None:
        """Ask a unix socket of a kind that connects."""
        if unix_peers.listens(one):
            peer = unix_peers.of_listener(one)
            if (peer.uid, peer.gid) != unix_peers.ROOT:
                self._noted.append(Noted(process, descriptor, True, *peer))
            if self._connections and unix_peers.has_waiting(one):
                self._waiting.append(unix_peers.name(one))
        elif self._connections:
            other = unix_peers.of_connection(one)
            if other is not None:
                self._noted.append(Noted(process, descriptor, False, *other))

    def as_data(self, *, all_are_root: t.Callable[[], bool]) -> dict[str, t.Any]:
        """What was found.

        :param all_are_root: whether all programs of the container are root, and so are connections that nobody can ask.
        """
        return {"peers": self._noted, "waiting": self._waiting if self._waiting and not all_are_root() else []}


def all_are_root(side: Side) -> bool:
    """Whether the effective user and group of all processes are root."""
    ids = [
        line.split()[2]
        for status in side.statuses.values()
        for line in status.splitlines()
        if line.startswith(("Uid:", "Gid:"))
    ]
    return set(ids) <= {"0"}


def carry(side: Side, source: t.Any) -> None:
    """Have the sockets of a held copy listen as who made them listen on the source. What fails shows in the comparison."""
    for noted in checked(source)[0]:
        pid = side.processes.get(noted.process)
        if noted.listens and pid is not None:
            with contextlib.suppress(OSError):
                _listen_again(side, pid, noted)


def _listen_again(side: Side, pid: int, noted: Noted) -> None:
    with Lender(pid) as lender, lender.borrowed(noted.descriptor) as ours, opened(ours) as one:
        if _same_kind(one, noted) and unix_peers.of_listener(one) != noted.peer:
            inode = os.fstat(ours).st_ino
            may_wait = namespaces.inside(side.init, ["net"], functools.partial(backlog.of_unix, inode))
            unix_peers.listen_again(one, may_wait, noted.peer)


def _same_kind(one: socket.SocketType, noted: Noted) -> bool:
    return kind_of(one) in UNIX_CONNECTED and unix_peers.listens(one) is noted.listens


def compare(side: Side, source: t.Any) -> list[str]:
    """Whose sockets are not the same on the copy: a part of a sentence each. Of a copy that runs not what it has closed."""
    noted, waiting = checked(source)
    found = [f"whose the connections are that wait at {name} cannot be read" for name in waiting]
    for one in noted:
        pid = side.processes.get(one.process)
        where = f"descriptor {one.descriptor} of process {one.process}"
        try:
            # A process that is missing, other topics tell.
            now = _now(pid, one) if pid is not None else one.peer
        except OSError as exc:
            if side.group.frozen:
                found.append(f"whose the other end of {where} is cannot be read ({exc.strerror})")
            continue
        if now is None:
            if side.group.frozen:
                found.append(f"{where} is no unix socket that {'listens' if one.listens else 'has a connection'}")
        elif now != one.peer:
            what = "the one who listens at" if one.listens else "the other end of"
            found.append(f"{what} {where} was of user and group {one.peer} and is of {_difference(now, one.peer)}")
    return found


def _difference(now: Peer, before: Peer) -> str:
    return str(now) if (now.uid, now.gid) != (before.uid, before.gid) else f"{now} in other groups"


def _now(pid: int, noted: Noted) -> Peer | None:
    """Whose it is on the copy; None where that is another kind of thing.

    :raises OSError: where it cannot be borrowed.
    """
    with Lender(pid) as lender, lender.borrowed(noted.descriptor) as ours, opened(ours) as one:
        try:
            if not _same_kind(one, noted):
                return None
            return unix_peers.of_listener(one) if noted.listens else unix_peers.other_end(one)
        except OSError:
            # No socket.
            return None


def checked(source: t.Any) -> tuple[list[Noted], list[str]]:
    """What has come from the source, which is another host.

    :raises ValueError: for what no source can have found.
    """
    try:
        noted = [Noted(*one) for one in source["peers"]]
        waiting = list(source["waiting"])
    except (KeyError, TypeError) as exc:
        raise ValueError(f"these are no peers of sockets: {exc!r}") from exc
    for one in noted:
        if not isinstance(one.process, str) or not is_number(one.descriptor) or not isinstance(one.listens, bool):
            raise ValueError(f"{one.process!r}, {one.descriptor!r}, {one.listens!r} is no descriptor of a process")
        if not isinstance(one.groups, (list, tuple)) or len(one.groups) > _MOST_GROUPS:
            raise ValueError(f"{one.groups!r:.100} are no groups")
        for number in (one.uid, one.gid, *one.groups):
            if not is_number(number) or not 0 <= number <= _LARGEST_ID:
                raise ValueError(f"{number!r} is no number of a user or group")
    if not all(isinstance(name, str) and len(name) <= _NAME_LENGTH for name in waiting):
        raise ValueError("there are no such names of sockets")
    return noted, waiting
