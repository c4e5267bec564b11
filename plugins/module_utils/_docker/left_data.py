# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The data that a move leaves on its source: how it is known again when the container comes back.

A name or a path alone does not do: somebody may have removed the volume, and another project has made one of the same name. So
a session notes which directory or file it is. What came in its place later is somebody else's.
"""

from __future__ import annotations

import os
import stat
import typing as t

from .._base import durable

Note = t.Mapping[str, t.Any]
#: what sessions have noted, by the name of the volume or the path of the bind mount
Notes = t.Mapping[str, t.Sequence[Note]]

# Numbers of a file system and of a directory in it, and what tells those apart that had the second number in turn.
_WITH_GENERATION = 3


def note(path: str, created_at: str = "") -> dict[str, t.Any]:
    """What is to be known again.

    :param path: a directory, or a file that is mounted by itself.
    :param created_at: of a volume, when the engine says that it was made, as the engine writes it.
    """
    return {"identity": _identity(path), "created_at": created_at}


def _identity(path: str) -> list[int] | None:
    """None for what is neither a directory nor a file: to open a device may do something."""
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return durable.lasting_identity(descriptor)
    finally:
        os.close(descriptor)


def is_left(notes: Notes, name: str, path: str, created_at: str = "") -> bool:
    """Whether what is at a path now is what a move has left. Without a note, as in records of older versions, it is not.

    The number of the file system is no part of it: it may be another one after the next boot. The time of the engine is asked
    only where the file system cannot tell two directories of one number apart: to restore a backup can change it.

    :param name: of the volume, or the path of the bind mount.
    :param path: where that lies.
    :param created_at: see :func:`note`.
    """
    noted = notes.get(name, ())
    now = _identity(path) if noted else None
    if now is None:
        return False
    for one in noted:
        known = one.get("identity") or []
        if known[1:] == now[1:] and (len(now) == _WITH_GENERATION or one.get("created_at", "") == created_at):
            return True
    return False
