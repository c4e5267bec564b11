# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Memory and disk that the sessions of this host are going to use: one reserves them before another one looks what is free.

Several sessions may be under way at once. Each looks for room before it freezes anything, and uses it seconds or minutes later. A
reservation is a file in the session's directory in memory: it ends with the session, and with the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from .._base import durable
from .session import Session

_FILE = "reserved.json"
_LOCK = ".reservations"


class Reserved(t.NamedTuple):
    """Bytes that are going to be used and are not yet."""

    memory: int
    disks: t.Mapping[int, int]
    """By the numbers of devices, as os.stat(2) has them."""

    def disk(self, directory: str) -> int:
        """Those on the file system of a directory."""
        return self.disks.get(os.stat(directory).st_dev, 0)


@contextlib.contextmanager
def in_turns(session: Session) -> t.Iterator[Reserved]:
    """Look what is free, and reserve it, with no other session doing so.

    :returns: what the other sessions of this host have reserved and not yet used.
    """
    os.makedirs(session.volatile_root, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(session.volatile_root, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield _of_others(session)
    finally:
        os.close(fd)


def reserve(
    session: Session, *, memory: int = 0, disk: int = 0, directory: str = "", used_in: t.Sequence[str] = ()
) -> None:
    """Reserve for a session, instead of what it had reserved before. To be called in the block of :func:`in_turns`.

    :param memory: bytes.
    :param disk: bytes on the file system of a directory.
    :param used_in: directories: what lies in them has been taken out of the reservation.
    """
    device = os.stat(directory).st_dev if directory else 0
    entry = {"memory": memory, "disk": disk, "device": device, "used_in": list(used_in)}
    durable.write_json(session.memory_path(_FILE), entry)


def _of_others(session: Session) -> Reserved:
    memory = 0
    disks: dict[int, int] = {}
    for other in Session.all(state_root=session.state_root, volatile_root=session.volatile_root):
        # Not memory_path(), which would make the directory of one that is closed.
        entry = None if other.id == session.id else durable.read_json(os.path.join(other.volatile, _FILE))
        if entry:
            used = sum(map(_bytes_in, entry["used_in"]))
            memory += max(0, entry["memory"] - used) if entry["memory"] else 0
            disks[entry["device"]] = disks.get(entry["device"], 0) + max(0, entry["disk"] - used)
    return Reserved(memory, disks)


def _bytes_in(directory: str) -> int:
    """What the files of a directory take, as far as they are there now."""
    total = 0
    for place, _below, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
