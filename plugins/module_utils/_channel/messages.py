# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the two hosts say to each other while what is moved stands still, over one connection that is open before it does.

Lines of JSON in both directions. A line that announces a file is followed by that file, see ``_channel/checkpoint_stream.py``.
"""

from __future__ import annotations

import json
import typing as t

from .._base.errors import MigrationError

# A manifest has about 120 bytes a file, and CRIU makes half a dozen files a process.
_LONGEST_LINE = 1 << 24

Message = dict[str, t.Any]


class Source(t.Protocol):
    """What is heard from."""

    def read(self, size: int, /) -> bytes:
        """As of a file."""

    def readline(self, limit: int, /) -> bytes:
        """As of a file."""


def read_into(stream: Source) -> t.Callable[[memoryview], int]:
    """The function that reads from a stream into a buffer, and tells how many bytes."""
    # Every buffered stream has it; typing's BinaryIO does not say so.
    return t.cast("t.Callable[[memoryview], int]", stream.readinto)  # type: ignore[attr-defined]


class Listener:
    """A stream on which whatever comes is a sign of life of the other end; that the connection stands is none.

    A host that has lost its power leaves it standing for hours.

    :param alive: called for every line and every piece of a file that has come.
    """

    def __init__(self, stream: Source, alive: t.Callable[[], None]) -> None:
        self._stream = stream
        self._alive = alive

    def _came(self, data: bytes) -> bytes:
        if data:
            self._alive()
        return data

    def read(self, size: int, /) -> bytes:
        """As of a file."""
        return self._came(self._stream.read(size))

    def readline(self, limit: int, /) -> bytes:
        """As of a file."""
        return self._came(self._stream.readline(limit))

    def readinto(self, buffer: memoryview, /) -> int:
        """As of a file."""
        count = read_into(self._stream)(buffer)
        if count:
            self._alive()
        return count


def say(stream: t.BinaryIO, message: Message) -> None:
    """Send one message."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def hear(stream: Source) -> Message | None:
    """The next message, None where the other end has hung up."""
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        if len(line) == _LONGEST_LINE:
            raise MigrationError("channel_failed", "The other end of the channel says something that has no end.")
        return None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise MigrationError("channel_failed", "The other end of the channel says something that is no message.")
    return message
