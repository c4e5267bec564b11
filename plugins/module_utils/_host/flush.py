# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whole file systems are flushed, so that what other programs have written there outlives a power cut.

By syncfs(2), called through ctypes, and not by:

* rsync's ``--fsync``, which flushes the content of files before they get their names. A power cut could still take back names,
  deletions, owners and directories. It is not in every rsync either (3.2.4).
* ``sync -f``, which calls syncfs(2) as well, but once for each of its arguments, and with a descriptor that it has just opened.
  The kernel tells an error of its own writing (a full thin volume, a broken disk) to each descriptor that was open when it
  happened, and besides only to the first that asks (Linux 5.8, ``errseq_t``). When another program has asked in between,
  ``sync -f`` reports success, and the file is damaged. So descriptors are opened here before the first byte is written.
  Before Linux 5.8 none of these calls reports such errors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
import typing as t

from .._base.errors import MigrationError
from . import mountinfo

_LIBC = ctypes.CDLL(None, use_errno=True)

# How long the source's own disk may take for what the container has written.
_WRITE_OUT_SECONDS = 600.0


def _syncfs(descriptor: int) -> None:
    # ctypes lets other threads work meanwhile.
    if _LIBC.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _FileSystem:
    """One file system, flushed in a thread of its own."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.error: OSError | None = None
        self.ended = 0.0
        self._descriptor = descriptor
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        self.error = None
        # A daemon: nobody waits for a disk that hangs, not even the end of this program.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            _syncfs(self._descriptor)
        except OSError as exc:
            self.error = exc
        self.ended = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait until it is flushed, or that has failed; returns whether it came to that in time."""
        if self._thread is None:
            raise RuntimeError("it was never begun")
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def close(self) -> None:
        # One that is being flushed is left to the end of the process.
        if self._thread is None or not self._thread.is_alive():
            os.close(self._descriptor)


class Flush:
    """The file systems of some directories; each is flushed once, however many of the directories lie on it.

    To be made before something is written that has to be flushed, so that no error is missed: see above. :meth:`begin` and
    :meth:`finish` are called in turns, as often as needed.
    """

    def __init__(self, trees: t.Iterable[str], also: t.Iterable[str] = (), *, host: str) -> None:
        """
        :param trees: directories that are flushed with all that is mounted below them.
        :param also: directories whose own file systems are flushed, without what is mounted below them.
        :param host: which host this is, for messages: ``source`` or ``destination``.
        :raises MigrationError: ``flush_failed`` where one of them cannot be opened.
        """
        self._host = host
        self._began = 0.0
        self.seconds = 0.0
        """How long the last flush took, of its slowest file system."""
        self._found: dict[int, _FileSystem] = {}
        trees = list(trees)
        try:
            for path in (*trees, *also):
                self._add(path)
        except OSError as exc:
            self.close()
            raise MigrationError(
                "flush_failed",
                f"The directory {exc.filename} on the {host} cannot be opened to write its file system to the disk "
                f"({exc.strerror}).",
                path=exc.filename,
            ) from None
        for path in _mounted_below(trees):
            # What root cannot enter, rsync has not entered either.
            with contextlib.suppress(OSError):
                self._add(path)

    def _add(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Subvolumes of btrfs have numbers of their own, so theirs is flushed more often than once. That does no harm.
        device = os.fstat(descriptor).st_dev
        if device in self._found:
            os.close(descriptor)
        else:
            self._found[device] = _FileSystem(path, descriptor)

    def __enter__(self) -> Flush:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file systems go, which could not be unmounted meanwhile."""
        for one in self._found.values():
            with contextlib.suppress(OSError):
                one.close()
        self._found = {}

    def begin(self) -> None:
        """Flush all of them at once, beside whatever else is done."""
        self._began = time.monotonic()
        for one in self._found.values():
            one.begin()

    def finish(self, seconds: float) -> float:
        """Wait until everything that had been written when :meth:`begin` was called is on the disks.

        :param seconds: from the beginning, which it may take at most.
        :returns: how many seconds were waited for it here.
        :raises MigrationError: ``flush_failed``.
        """
        called = time.monotonic()
        for one in self._found.values():
            if not one.wait(self._began + seconds - time.monotonic()):
                raise MigrationError(
                    "flush_failed",
                    f"The disk below {one.path} on the {self._host} did not take within {seconds:g} seconds what was written to "
                    "it. It is broken, or other programs keep it busy (dmesg and iostat -x tell which): move the container when "
                    "it is quiet.",
                    path=one.path,
                    seconds=seconds,
                )
            if one.error is not None:
                raise MigrationError(
                    "flush_failed",
                    f"What was written below {one.path} on the {self._host} did not reach its disk ({one.error.strerror}), and "
                    "a power cut would lose it. The kernel's log of that host (dmesg) says more; look for a broken disk, or for "
                    "one that is full where df does not show it (a thin volume, a quota).",
                    path=one.path,
                    errno=one.error.errno,
                )
        self.seconds = max((one.ended for one in self._found.values()), default=self._began) - self._began
        return time.monotonic() - called

    def now(self, seconds: float) -> None:
        """Flush all of them and wait for it; parameters and errors as of :meth:`finish`."""
        self.begin()
        self.finish(seconds)


def _mounted_below(trees: t.Sequence[str]) -> list[str]:
    """The directories below others on which another file system is mounted."""
    return list(dict.fromkeys(one.place for one in mountinfo.below(mountinfo.of_host(), trees)))


def write_out(paths: t.Sequence[str]) -> None:
    """Make the file systems of these directories durable, on the source.

    :raises MigrationError: ``flush_failed``.
    """
    with Flush(paths, host="source") as flush:
        flush.now(_WRITE_OUT_SECONDS)
