# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the two hosts say to each other while the container stands still, over one connection that is open before it does.

Lines of JSON in both directions; a line ``{"put": NAME, "size": BYTES}`` is followed by that many bytes of a file. Both ends
hash what passes, so that nothing is read twice for its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._checkpoint_dir import Manifest
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError

# Flat names of regular files only: CRIU's images have no others.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_CHUNK = 1 << 20
# A manifest has about 120 bytes a file, and CRIU makes half a dozen files a process.
_LONGEST_LINE = 1 << 24

Message = dict[str, t.Any]


class Source(t.Protocol):
    """What is heard from."""

    def read(self, size: int, /) -> bytes:
        """As of a file."""

    def readline(self, limit: int, /) -> bytes:
        """As of a file."""


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


def put(stream: t.BinaryIO, directory: str) -> tuple[Manifest, int]:
    """Send every file of a flat directory.

    :returns: its manifest, and the number of bytes.
    :raises MigrationError: ``checkpoint_incomplete`` for what is no regular file.
    """
    manifest: Manifest = {}
    total = 0
    buffer = memoryview(bytearray(_CHUNK))
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        # Before it is opened: that follows links, and waits at a pipe for ever.
        if not stat.S_ISREG(os.lstat(path).st_mode) or not _NAME.fullmatch(name):
            raise MigrationError("checkpoint_incomplete", f"The checkpoint has a file that is none of CRIU's: {name!r}")
        with open(path, "rb", buffering=0) as handle:
            status = os.fstat(handle.fileno())
            say(stream, {"put": name, "size": status.st_size})
            digest = hashlib.sha256()
            left = status.st_size
            while left:
                count = handle.readinto(buffer[: min(left, _CHUNK)])
                if not count:
                    raise MigrationError("checkpoint_incomplete", f"The checkpoint's file {name} has become shorter.")
                digest.update(buffer[:count])
                stream.write(buffer[:count])
                left -= count
        manifest[name] = {"size": status.st_size, "sha256": digest.hexdigest()}
        total += status.st_size
    stream.flush()
    return manifest, total


def take(stream: Source, message: Message, directory: str) -> dict[str, int | str]:
    """Receive the file that a ``put`` announces, into a directory that is ours alone.

    :returns: what a manifest says of it.
    :raises MigrationError: ``channel_refused`` for a name that is none; ``checkpoint_corrupt`` where the connection ends in it.
    """
    name, size = message["put"], message["size"]
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or isinstance(size, bool)
        or not isinstance(size, int)
        or size < 0
    ):
        raise MigrationError("channel_refused", "The channel does not take that file.")
    digest = hashlib.sha256()
    path = os.path.join(directory, name)
    # Buffered: an unbuffered write may take a part only (a full disk), and what is hashed here is what came, not what lies there.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as handle:
        left = size
        while left:
            chunk = stream.read(min(left, _CHUNK))
            if not chunk:
                raise MigrationError("checkpoint_corrupt", f"The connection ended in the middle of {name}.")
            digest.update(chunk)
            handle.write(chunk)
            left -= len(chunk)
    return {"size": size, "sha256": digest.hexdigest()}
