# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Memory and disk space that the sessions of this host are going to use. A session reserves it before another one looks how
much is free.

Several sessions may be at work at once. Each looks for space before it freezes anything, and uses it seconds or minutes later.
A reservation is a file in the session's directory in memory: it ends when nothing more is going to be used, with the session, and
with the host.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import durable
from . import turns
from .session import Session

_FILE = "reserved.json"


class Reserved(t.NamedTuple):
    """Bytes that are going to be used and are not used yet."""

    memory: int
    disks: t.Mapping[int, int]
    """By the numbers of devices, as os.stat(2) has them."""

    def disk(self, directory: str) -> int:
        """Those on the file system of a directory."""
        return self.disks.get(os.stat(directory).st_dev, 0)


@contextlib.contextmanager
def in_turns(session: Session) -> t.Iterator[Reserved]:
    """In this block, look how much is free and reserve it. No other session does so meanwhile.

    :returns: what the other sessions of this host have reserved and not yet used.
    """
    os.makedirs(session.volatile_root, mode=0o700, exist_ok=True)
    with turns.taken(session.volatile_root):
        yield _of_others(session)


def reserve(
    session: Session, *, memory: int = 0, disk: int = 0, directory: str = "", used_in: t.Sequence[str] = ()
) -> None:
    """Reserve space for a session; this replaces what it had reserved before. Call it in the block of :func:`in_turns`.

    :param memory: bytes.
    :param disk: bytes on the file system of a directory.
    :param used_in: directories: what lies in them counts as used already.
    """
    device = os.stat(directory).st_dev if directory else 0
    entry = {"memory": memory, "disk": disk, "device": device, "used_in": list(used_in)}
    durable.write_json(session.memory_path(_FILE), entry)


def release(session: Session) -> None:
    """Give back what a session has reserved: it is not going to use more than it does now. This may be repeated.

    A session may stay open for a day after that, until the other host knows its end.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(session.volatile, _FILE))


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
