# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""One session of this host after the other, where one looks at what all of them use and then notes what it takes of that."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t


@contextlib.contextmanager
def taken(directory: str) -> t.Iterator[None]:
    """In this block no other process has its turn at the same directory. It waits for its turn, however long that takes.

    :param directory: one that all sessions of the host have in common.
    :raises OSError: where it is not there.
    """
    # The directory itself is locked, so that no file stays.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
