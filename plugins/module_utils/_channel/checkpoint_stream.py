# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A checkpoint on its way from one host to the other, through the connection of ``_channel/messages.py``.

A line ``{"put": NAME, "size": BYTES}`` is followed by that many bytes of a file. A file that is still being written goes in
parts: ``{"put": NAME, "parts": true}``, then ``{"part": BYTES}`` and so many bytes, again and again, until ``{"part": 0}``. Both
ends hash what passes, so that nothing is read twice for its SHA-256.

A checkpoint may have directories: memory that was sent in rounds lies in one for each round. Names are paths from the directory
of the checkpoint. CRIU finds the round before by a link, ``{"put": NAME, "link": TARGET}``, which leads to another directory of
the same checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import stat
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from .._base.errors import MigrationError
from .._criu import images as criu_images
from .._criu.images import Manifest
from . import messages

# A part of a name: CRIU's images and the directories of rounds have no others.
_PART_OF_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}"
_NAME = re.compile(rf"{_PART_OF_NAME}(/{_PART_OF_NAME}){{0,3}}")
# From the directory of the link, upwards and down again.
_TARGET = re.compile(rf"(\.\./){{0,3}}{_PART_OF_NAME}(/{_PART_OF_NAME}){{0,3}}")
_CHUNK = 1 << 20
# CRIU's files of memory pages, the only large ones.
_PAGES = re.compile(r"pages-\d{1,9}\.img")
# The most that a growing file is announced with at once, in bytes, and how often it is looked at, in seconds.
_PART = 16 << 20
_LOOK_SECONDS = 0.003


class _Sha256:
    """A SHA-256 of many bytes, which is computed in a thread while the same bytes are read and written."""

    # Below this a thread costs more than it saves.
    _WORTHWHILE = 1 << 17

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Sha256:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def update(self, data: memoryview) -> None:
        """Begin to hash these bytes; they must not change before :meth:`settle`."""
        self.settle()
        if len(data) < self._WORTHWHILE:
            self._digest.update(data)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending = self._pool.submit(self._digest.update, data)

    def settle(self) -> None:
        """Wait until all of it has been hashed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def hexdigest(self) -> str:
        """Of everything so far."""
        self.settle()
        return self._digest.hexdigest()


# -- sending -----------------------------------------------------------------------------------------------------------


class _Image:
    """One file of a checkpoint, read from its beginning to its end and hashed on the way."""

    def __init__(self, directory: str, name: str) -> None:
        path = os.path.join(directory, name)
        # Before it is opened: that follows links, and waits at a pipe for ever.
        if not stat.S_ISREG(os.lstat(path).st_mode) or not _NAME.fullmatch(name):
            raise _none_of_criu(name)
        self.name = name
        self.sent = 0
        self._sha256 = _Sha256()
        self._handle = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this object)

    def __enter__(self) -> _Image:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._sha256.__exit__()
        self._handle.close()

    @property
    def size(self) -> int:
        """What it has now."""
        return os.fstat(self._handle.fileno()).st_size

    def send(self, stream: t.BinaryIO, count: int, buffer: memoryview) -> None:
        """Send its next bytes.

        :raises MigrationError: ``checkpoint_incomplete`` when there are not so many.
        """
        while count:
            # The buffer is free again: update() below has been waited for.
            got = self._handle.readinto(buffer[: min(count, _CHUNK)])
            if not got:
                raise MigrationError("checkpoint_incomplete", f"The checkpoint's file {self.name} has become shorter.")
            self._sha256.update(buffer[:got])
            stream.write(buffer[:got])
            self._sha256.settle()
            self.sent += got
            count -= got

    def entry(self) -> dict[str, int | str]:
        """What a manifest says of it."""
        return {"size": self.sent, "sha256": self._sha256.hexdigest()}


def _buffer() -> memoryview:
    return memoryview(bytearray(_CHUNK))


def put(stream: t.BinaryIO, directory: str, done: t.Container[str] = ()) -> tuple[Manifest, int]:
    """Send every file and link of a checkpoint.

    :param done: names of those that have been sent already.
    :returns: the manifest of what was sent now, and the number of bytes.
    :raises MigrationError: ``checkpoint_incomplete`` for what is neither a regular file nor a link to one of its directories.
    """
    manifest: Manifest = {}
    total = 0
    buffer = _buffer()
    # Links last: what one leads to is there then.
    for name in sorted(
        criu_images.files(directory), key=lambda one: (os.path.islink(os.path.join(directory, one)), one)
    ):
        if name in done:
            continue
        if os.path.islink(os.path.join(directory, name)):
            target = os.readlink(os.path.join(directory, name))
            if not _leads_inside(name, target):
                raise _none_of_criu(name)
            messages.send(stream, {"put": name, "link": target})
            manifest[name] = {"size": 0, "link": target}
            continue
        with _Image(directory, name) as image:
            size = image.size
            messages.send(stream, {"put": name, "size": size})
            image.send(stream, size, buffer)
            manifest[name] = image.entry()
        total += size
    stream.flush()
    return manifest, total


def _leads_inside(name: str, target: str) -> bool:
    """Whether a link leads to another place of the same checkpoint."""
    if not _NAME.fullmatch(name) or not _TARGET.fullmatch(target):
        return False
    place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return bool(_NAME.fullmatch(place)) and not f"{name}/".startswith(f"{place}/")


def _none_of_criu(name: str) -> MigrationError:
    return MigrationError("checkpoint_incomplete", f"The checkpoint has a file that is none of CRIU's: {name!r}")


class Follower:
    """Sends a checkpoint while it is still being written: CRIU's pages as they come, everything else when it is complete.

    Pages are nearly all there is to send, and CRIU writes them once, from the beginning to the end and one file after the
    other. If CRIU ever does otherwise, the sizes do not match at the end and the checkpoint is not used.
    """

    def __init__(self, stream: t.BinaryIO, directory: str, disconnect: t.Callable[[], None]) -> None:
        """
        :param disconnect: ends the connection at once, so that nothing waits in a write to it.
        """
        self._stream = stream
        self._directory = directory
        self._disconnect = disconnect
        self._complete = threading.Event()
        self._given_up = False
        self._finished = False
        self._failure: BaseException | None = None
        self._manifest: Manifest = {}
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if not self._finished:
            self._given_up = True
            self._complete.set()
            self._disconnect()
            self._thread.join()

    def finish(self) -> tuple[Manifest, int]:
        """The checkpoint is complete: send what is left of it.

        :returns: its manifest, and the number of bytes.
        :raises MigrationError: ``checkpoint_incomplete``; OSError where the connection has ended.
        """
        self._complete.set()
        self._thread.join()
        self._finished = True
        if self._failure is not None:
            raise self._failure
        rest, _total = put(self._stream, self._directory, self._manifest)
        manifest = {**self._manifest, **rest}
        for name, entry in self._manifest.items():
            if os.path.getsize(os.path.join(self._directory, name)) != entry["size"]:
                raise MigrationError(
                    "checkpoint_incomplete", f"The checkpoint's file {name} was written to after it had been sent."
                )
        return manifest, sum(int(entry["size"]) for entry in manifest.values())

    def _work(self) -> None:
        try:
            while not self._complete.is_set():
                for name in self._pages():
                    if name not in self._manifest:
                        self._follow(name)
                        break
                else:
                    self._complete.wait(_LOOK_SECONDS)
        except BaseException as exc:  # pylint: disable=broad-exception-caught  # noqa: BLE001 (raised where it is waited for)
            self._failure = exc

    def _pages(self) -> list[str]:
        """CRIU's files of pages that are there now, in the order in which it writes them."""
        found = [name for name in os.listdir(self._directory) if _PAGES.fullmatch(name)]
        return sorted(found, key=lambda name: int(name.split("-")[1].split(".")[0]))

    def _follow(self, name: str) -> None:
        """Send one file as it grows, until the checkpoint is complete or CRIU has begun another."""
        buffer = _buffer()
        with _Image(self._directory, name) as image:
            messages.send(self._stream, {"put": name, "parts": True})
            while not self._given_up:
                # Before the look at the size: what was written before it was complete is seen then.
                ended = self._complete.is_set() or self._pages()[-1] != name
                count = image.size - image.sent
                if count:
                    # Not more at once than what goes out in a moment, so that a failed dump ends this soon.
                    count = min(count, _PART)
                    self._stream.write(json.dumps({"part": count}).encode() + b"\n")
                    image.send(self._stream, count, buffer)
                    # What lies in our own buffer is not on its way.
                    self._stream.flush()
                elif ended:
                    messages.send(self._stream, {"part": 0})
                    self._manifest[name] = image.entry()
                    return
                else:
                    self._complete.wait(_LOOK_SECONDS)


# -- receiving ---------------------------------------------------------------------------------------------------------


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refused()
    return value


def take(stream: messages.Readable, message: messages.Message, directory: str) -> dict[str, int | str]:
    """Receive the file or link that a ``put`` announces, into a directory that is ours alone.

    :returns: what a manifest says of it.
    :raises MigrationError: ``channel_refused`` for a name that is not valid, and for a link that leads elsewhere;
        ``checkpoint_corrupt`` where the connection ends in the middle of the file.
    """
    name, parts = message["put"], message.get("parts") is True
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused()
    path = os.path.join(directory, name)
    _make_directories(directory, name)
    if "link" in message:
        target = message["link"]
        if not isinstance(target, str) or not _leads_inside(name, target):
            raise _refused()
        os.symlink(target, path)
        return {"size": 0, "link": target}
    size = 0 if parts else _count(message["size"])
    # What is hashed here is what came, not what lies there.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=0), _Sha256() as digest:
        if not parts:
            _receive(stream, size, name, fd, digest)
        while parts:
            announced = messages.receive(stream)
            if announced is None:
                raise _cut_off(name)
            count = _count(announced["part"])
            if not count:
                break
            _receive(stream, count, name, fd, digest)
            size += count
        return {"size": size, "sha256": digest.hexdigest()}


def _make_directories(directory: str, name: str) -> None:
    """Make the directories of a name. A link does not count as one: the source could write through it to another place."""
    place = directory
    for part in name.split("/")[:-1]:
        place = os.path.join(place, part)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                raise _refused() from None


def _refused() -> MigrationError:
    return MigrationError("channel_refused", "The channel does not take that file.")


def _cut_off(name: str) -> MigrationError:
    return MigrationError("checkpoint_corrupt", f"The connection ended in the middle of {name}.")


def _receive(stream: messages.Readable, left: int, name: str, fd: int, digest: _Sha256) -> None:
    # One buffer for all of it, and not a new one for each chunk.
    buffer = memoryview(bytearray(min(left, _CHUNK)))
    read_into = messages.read_into(stream)
    while left:
        got = read_into(buffer[: min(left, _CHUNK)])
        if not got:
            raise _cut_off(name)
        digest.update(buffer[:got])
        _write_all(fd, buffer[:got])
        digest.settle()
        left -= got


def _write_all(fd: int, data: memoryview) -> None:
    # The kernel may take a part only (a full disk); the next write says why then.
    while data:
        data = data[os.write(fd, data) :]
