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

from ansible_collections.livemigrate.criu.plugins.module_utils import _durable
from ansible_collections.livemigrate.criu.plugins.module_utils._session import Session

# What lies at a path of the host, as far as it decides whether it can travel.
DIRECTORY, FILE, OTHER, MISSING = "directory", "file", "other", "missing"

_ARRIVAL = ".livemigrate-"


def form_of(path: str) -> str:
    """What a path is; a link is what it leads to, but as a file it must have the same name: it arrives under that."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return MISSING
    if stat.S_ISDIR(mode):
        return DIRECTORY
    same_name = os.path.basename(os.path.realpath(path)) == os.path.basename(path)
    return FILE if stat.S_ISREG(mode) and same_name else OTHER


def first_missing(path: str) -> str:
    """The uppermost directory that has to be made for a path, or the path itself; empty where it is there."""
    found = ""
    while not os.path.lexists(path):
        found = path
        path = os.path.dirname(path)
    return found


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
            _durable.own_directory(entry["arrival"]) as arrived,
        ):
            # A regular file and nothing else, whatever the source has sent.
            if stat.S_ISREG(os.stat(name, dir_fd=arrived, follow_symlinks=False).st_mode):
                _move_up(arrived, name)
        shutil.rmtree(entry["arrival"], ignore_errors=True)


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


def discard(session: Session) -> None:
    """Take away what was made for files that are not to come, and what has come."""
    for entry in session.data("creating").get("files", ()):
        shutil.rmtree(entry["arrival"], ignore_errors=True)
        if entry["made"]:
            # Where the directory around was missing it goes with that. Whatever somebody makes of the way there, the refusal
            # comes to its end: the source may be waiting for it.
            parent, name = os.path.split(entry["path"])
            with contextlib.suppress(OSError), _durable.same_directory(parent, entry.get("around")) as around:
                os.unlink(name, dir_fd=around)
