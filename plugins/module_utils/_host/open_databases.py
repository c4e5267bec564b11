# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""SQLite databases that processes have open. They do not survive a move, although every byte of them does.

SQLite notes the inode number of a database when it opens it, and compares it with what lies at the path (fileHasMoved and
findInodeInfo in its os_unix.c). A file that is made on another host gets another number there, and no file system lets one choose
it. So after a move the program reads on, and writes no more (SQLITE_READONLY_DBMOVED). With a write-ahead log it is worse: the
next connection of the same process takes the file for another one, believes to be the last one when it is closed, and removes the
log into which the first one goes on writing: what was acknowledged is in a file without a name (run). A program that opens its
database for each use loses nothing, as long as it is not open at the moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
import typing as t

from . import filesystems, mountinfo
from .borrowed_descriptor import borrowed

_HEADER = b"SQLite format 3\0"
# What SQLite has open beside a database with a write-ahead log. An encrypted database shows by these alone.
_COMPANIONS = ("-wal", "-shm")
# Before Linux 5.6 nothing can be borrowed, and a filter of system calls may forbid it.
_NOT_BORROWED = (errno.ENOSYS, errno.EPERM)
# Seconds between looks at what is open: what is there in all of them lasts. Uneven, because programs do things at even intervals.
_PAUSES = (0.03, 0.07, 0.2)


class Database(t.NamedTuple):
    """A database that a program has open."""

    path: str
    program: str
    shared: str
    """Where the file system is mounted that it lies on, if other hosts see that too; else empty. The file has the same inode
    number there, as long as nobody copies it."""


class _File(t.NamedTuple):
    path: str
    shared: str
    is_database: bool


class _Users(t.NamedTuple):
    """The processes that have a file open."""

    all: set[int]
    writing: set[int]


class Databases:
    """The databases among the open files of all processes of a container.

    What a file is, is read once for each change of it. So a second look at many files takes little time.

    :param shared: whether to look at files on file systems that other hosts see too. A server that does not answer is waited for.
    """

    def __init__(self, *, shared: bool = True) -> None:
        self._with_shared = shared
        self._places: dict[int, str] = {}
        self._known: dict[tuple[int, int, int], _File] = {}
        self._open: dict[_File, _Users] = {}

    def look(self, pids: t.Iterable[int]) -> list[Database]:
        """The databases that processes have open at this moment.

        :param pids: as this host numbers them.
        """
        self._open = {}
        for pid in pids:
            directory = f"/proc/{pid}/fd/"
            # A process may end while we look.
            with contextlib.suppress(OSError):
                for name in os.listdir(directory):
                    with contextlib.suppress(OSError):
                        status = os.stat(directory + name)
                        if stat.S_ISREG(status.st_mode):
                            self.see(pid, int(name), status)
        return self.found()

    def see(self, pid: int, descriptor: int, status: os.stat_result) -> None:
        """Take notice of an open file.

        :param status: of the file, a regular one. One without a name is a temporary database, which SQLite does not look for.
        :raises OSError: where the descriptor is gone.
        """
        if not status.st_nlink:
            return
        # Another file that gets the number of one that was removed has another time.
        key = status.st_dev, status.st_ino, status.st_ctime_ns
        file = self._known.get(key)
        if file is None:
            file = self._known[key] = self._file(pid, descriptor, status)
        users = self._open.setdefault(file, _Users(set(), set()))
        users.all.add(pid)
        if (file.is_database or file.path.endswith(_COMPANIONS)) and _is_for_writing(pid, descriptor):
            users.writing.add(pid)

    def _file(self, pid: int, descriptor: int, status: os.stat_result) -> _File:
        path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        if path.startswith("/proc/"):
            # To read some of them takes something away (kmsg).
            return _File(path, "", False)
        if status.st_dev not in self._places:
            self._places[status.st_dev] = _shared_place(pid, descriptor)
        place = self._places[status.st_dev]
        return _File(path, place, (self._with_shared or not place) and _is_database(pid, descriptor))

    def found(self) -> list[Database]:
        """All of them."""
        looked_at = [file for file in self._open if self._with_shared or not file.shared]
        paths = {file.path for file in looked_at}
        found = []
        for file in looked_at:
            users = self._open[file]
            if any(file.path + companion in paths for companion in _COMPANIONS):
                found += [Database(file.path, _program(pid), file.shared) for pid in users.all]
            elif file.is_database:
                # Who reads alone, from a file that nobody writes to, goes on reading.
                found += [Database(file.path, _program(pid), file.shared) for pid in users.writing]
        return sorted(found)


def lasting(found: list[Database], pids: t.Callable[[], t.Iterable[int]]) -> list[Database]:
    """Those that stay open for a while; of a program that opens its database for each use, none.

    :param found: those that are open now. Where there is none, nothing is waited for.
    :param pids: the processes.
    """
    databases = Databases()
    for pause in _PAUSES:
        if not found:
            break
        time.sleep(pause)
        again = databases.look(pids())
        found = [one for one in found if one in again]
    return found


def _program(pid: int) -> str:
    """The name of a process' program; a question mark where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return handle.read().rstrip("\n")
    except OSError:
        return "?"


def _is_for_writing(pid: int, descriptor: int) -> bool:
    """Whether a file may be written to by a descriptor. Where that cannot be read, it may."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as handle,
    ):
        flags = re.search(r"^flags:\s*([0-7]+)$", handle.read(), re.MULTILINE)
        if flags:
            return int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY
    return True


def _is_database(pid: int, descriptor: int) -> bool:
    """Whether a file begins as a database does. Nothing of the program's changes: neither the position nor a lock or a lease."""
    try:
        with borrowed(pid, descriptor) as ours:
            return os.pread(ours, len(_HEADER), 0) == _HEADER
    except OSError as exc:
        # What is open for writing alone is none of SQLite's, and what is gone is nobody's.
        if exc.errno not in _NOT_BORROWED:
            return False
    with contextlib.suppress(OSError):
        ours = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(ours, len(_HEADER), 0) == _HEADER
        finally:
            os.close(ours)
    return False


def _shared_place(pid: int, descriptor: int) -> str:
    """Where the file system is mounted that a file lies on, if other hosts see it too; else, or where it is not known, empty."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as handle:
            number = re.search(r"^mnt_id:\s*(\d+)$", handle.read(), re.MULTILINE)
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as handle:
            mounts = mountinfo.parse(handle.read())
        for one in mounts:
            if number and one.number == int(number.group(1)) and filesystems.is_shared(one.kind, {}):
                return one.place
    return ""
