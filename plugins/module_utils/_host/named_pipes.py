# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Named pipes (FIFOs) that a container reads and into which none of its programs writes.

CRIU opens such a pipe again with a writer beside it for a moment, because an open for reading alone would wait for one. To the
reader that is a writer that came and went: from then on poll(2) reports the end of file at once and for ever, where before the
move it waited. A reader whose writers have come and gone before has got an end of file already, and loses nothing.
"""

from __future__ import annotations

import os
import re
import select
import typing as t

from .borrowed_descriptor import borrowed


class Reader(t.NamedTuple):
    """A descriptor through which a program reads a named pipe."""

    pid: int
    descriptor: int
    program: str
    path: str


def access_of(fdinfo: str) -> int:
    """``os.O_RDONLY``, ``os.O_WRONLY`` or ``os.O_RDWR``, out of /proc/PID/fdinfo/N."""
    found = re.search(r"^flags:\s+([0-7]+)", fdinfo, re.MULTILINE)
    return int(found.group(1), 8) & os.O_ACCMODE if found else os.O_RDWR


class Pipes:
    """The named pipes of all processes of a container."""

    def __init__(self) -> None:
        self._readers: dict[tuple[int, int], list[Reader]] = {}
        self._written: set[tuple[int, int]] = set()

    def see(self, pipe: tuple[int, int], reader: Reader, fdinfo: str) -> None:
        """Take notice of a descriptor.

        :param pipe: device and inode.
        :param fdinfo: what /proc says of the descriptor.
        """
        if access_of(fdinfo) == os.O_RDONLY:
            self._readers.setdefault(pipe, []).append(reader)
        else:
            self._written.add(pipe)

    def without_writer(self) -> list[str]:
        """Those that wait for a writer that is not in the container, as ``PATH (PROGRAM)``."""
        return sorted(
            {
                f"{reader.path} ({reader.program})"
                for pipe, readers in self._readers.items()
                if pipe not in self._written
                for reader in readers
                if not _has_ended(reader)
            }
        )


def _has_ended(reader: Reader) -> bool:
    """Whether the reader gets an end of file already. A copy of its descriptor shows that, because both share the open file.

    Nothing of the pipe or of its position changes. Where the kernel cannot be asked (before Linux 5.6) the answer is no.
    """
    try:
        with borrowed(reader.pid, reader.descriptor) as copy:
            asked = select.poll()
            asked.register(copy, select.POLLIN)
            return any(events & select.POLLHUP for _descriptor, events in asked.poll(0))
    except OSError:
        return False
