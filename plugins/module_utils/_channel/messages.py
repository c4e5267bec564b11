# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The messages of a conversation between the two hosts. Its connection is open before what is moved is frozen.

Lines of JSON in both directions. A line that announces a file is followed by that file, see ``_channel/checkpoint_stream.py``.
"""

from __future__ import annotations

import json
import typing as t

from .._base.errors import MigrationError

# A manifest has about 120 bytes a file, and CRIU makes half a dozen files a process.
_LONGEST_LINE = 1 << 24

Message = dict[str, t.Any]


class Readable(t.Protocol):
    """A stream that messages are received from."""

    def read(self, size: int, /) -> bytes:
        """As of a file."""

    def readline(self, limit: int, /) -> bytes:
        """As of a file."""


def read_into(stream: Readable) -> t.Callable[[memoryview], int]:
    """The function that reads from a stream into a buffer, and tells how many bytes."""
    # Every buffered stream has it; typing's BinaryIO does not say so.
    return t.cast("t.Callable[[memoryview], int]", stream.readinto)  # type: ignore[attr-defined]


class KeepAliveReader:
    """A stream that takes all that arrives for a sign of life of the other host.

    An open connection is no such sign: when a host loses its power, its connections stay open for hours.

    :param alive: called for every line and every piece of a file that has arrived.
    """

    def __init__(self, stream: Readable, alive: t.Callable[[], None]) -> None:
        self._stream = stream
        self._alive = alive

    def _arrived(self, data: bytes) -> bytes:
        if data:
            self._alive()
        return data

    def read(self, size: int, /) -> bytes:
        """As of a file."""
        return self._arrived(self._stream.read(size))

    def readline(self, limit: int, /) -> bytes:
        """As of a file."""
        return self._arrived(self._stream.readline(limit))

    def readinto(self, buffer: memoryview, /) -> int:
        """As of a file."""
        count = read_into(self._stream)(buffer)
        if count:
            self._alive()
        return count


def send(stream: t.BinaryIO, message: Message) -> None:
    """Send one message."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: Readable) -> Message | None:
    """The next message, None where the other host has closed the connection."""
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        if len(line) == _LONGEST_LINE:
            raise MigrationError(
                "channel_failed", "The other host has sent a message through the channel that is too long."
            )
        return None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise MigrationError(
            "channel_failed", "The other host has sent something through the channel that is not a message."
        )
    return message
