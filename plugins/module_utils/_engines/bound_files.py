# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.
"""Files of the host that a container mounts one by one, and whose content moves with it.

The channel writes into directories. So a file arrives in a directory of its own beside its place, on the same file system, and
takes its place by a rename just before the copy is started; the source can write nothing else there. Until then an empty file
keeps the place where there was none, because the engine makes no container that mounts what is not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

from .._base import durable
from .._session.session import Session

_ARRIVAL = ".livemigrate-"
# In the session's directory in memory: which files have taken their places.
_ADOPTED = "adopted.json"


def arrival(session: Session, number: int, path: str) -> str:
    """The directory in which a file arrives.

    :param number: of the bind mount, as in its target in the channel.
    """
    return os.path.join(os.path.dirname(path), f"{_ARRIVAL}{session.id}-{number}")


def make_place(session: Session, number: int, path: str) -> str:
    """Make the directory in which a file arrives, and keep its place; may be repeated.

    :returns: the directory.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    directory = arrival(session, number, path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    if not os.path.lexists(path):
        # Readable for nobody: what it is to be is not known yet.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    return directory


def adopt(session: Session) -> None:
    """Put what has arrived in its place. May be repeated; what has not arrived has not changed since it was adopted.

    Who may change the directory around may put something else there, a link above all: only what is in a directory of root's
    alone is taken.
    """
    for entry in session.data("creating").get("files", ()):
        name = os.path.basename(entry["path"])
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            durable.own_directory(entry["arrival"]) as arrived,
        ):
            # A regular file and nothing else, whatever the source has sent.
            if stat.S_ISREG(os.stat(name, dir_fd=arrived, follow_symlinks=False).st_mode):
                _note_adopted(session, entry["path"], arrived)
                _move_up(arrived, name)
        shutil.rmtree(entry["arrival"], ignore_errors=True)


def _note_adopted(session: Session, path: str, arrived: int) -> None:
    """Note which file takes a place: a refusal removes that and no other.

    In memory, for nothing of this may wait for a disk. After a boot of the host what has arrived is left.
    """
    descriptor = os.open(os.path.basename(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=arrived)
    try:
        known = durable.read_json(session.memory_path(_ADOPTED)) or {}
        durable.write_json(session.memory_path(_ADOPTED), {**known, path: durable.lasting_identity(descriptor)})
    finally:
        os.close(descriptor)


def _move_up(arrived: int, name: str) -> None:
    """Give a file its place in the directory in which that is where it has arrived, whatever a path to it leads to by now."""
    around = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=arrived)
    try:
        os.rename(name, name, src_dir_fd=arrived, dst_dir_fd=around)
        os.fsync(around)
    finally:
        os.close(around)


def is_arrival(path: str) -> bool:
    """Whether a path is one of :func:`arrival`."""
    return os.path.basename(path).startswith(_ARRIVAL)


def is_own(session: Session, path: str, around: int) -> bool:
    """Whether a file is what this session has put there: the empty one that keeps the place, or the one that has arrived.

    :param around: a descriptor of the directory that it is in.
    :raises OSError: where it is not there, or a link is.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(os.path.basename(path), flags, dir_fd=around)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return False
        adopted = (durable.read_json(session.memory_path(_ADOPTED)) or {}).get(path)
        return status.st_size == 0 or (adopted is not None and durable.lasting_identity(descriptor) == adopted)
    finally:
        os.close(descriptor)
