# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The process that holds a session's lock. It notes itself, and the watchdog ends it when it shows no sign of life any more.

The kernel releases a lock when its holder ends. But a holder that is stopped (SIGSTOP, a debugger) or hangs does not end by
itself, and the service that it has frozen would stay frozen for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import typing as t

from .._host import procfs

_STEP, _SETTLING = "step", "settling"


class _Process(t.NamedTuple):
    state: str
    started: str


def _look(pid: int) -> _Process | None:
    try:
        fields = procfs.stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The start, in ticks since the boot, tells a process from a later one of its number.
    return _Process(fields[procfs.STATE], fields[procfs.STARTED])


def note(path: str, *, step: bool) -> None:
    """Note that this process holds the lock.

    :param path: a file in memory: the holder of a lock does not outlive the boot.
    :param step: whether this process does a step, and so shows signs of life. Else it settles what a step has left.
    """
    own = _look(os.getpid())
    # Of a session that is closed there is no directory any more; and without a note nobody is ended.
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as handle:
        handle.write(f"{os.getpid()} {own.started if own else ''} {_STEP if step else _SETTLING}")


def _holders(lock: str) -> set[int]:
    """The processes that hold a lock, as /proc/locks lists them. Numbers of devices are not compared: some file systems show
    others in stat()."""
    inode = str(os.stat(lock).st_ino)
    found = set()
    with open("/proc/locks", encoding="ascii") as handle:
        for line in handle:
            # "1: FLOCK  ADVISORY  WRITE 4242 fe:00:5832728 0 EOF"; who waits for one has "->" behind the number.
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                found.add(int(fields[4]))
    return found


def end(lock: str, path: str, alive: t.Callable[[], bool]) -> bool:
    """End the holder of a lock whose lease has run out. That is a step that is stopped or silent, or a process that settles and
    is stopped.

    Only our own process is ended: the one in the note, if it holds the lock now and its number has not been used again. CRIU
    and the engine are not its children and go on; whoever settles waits for them.

    :param lock: the file of the lock.
    :param path: of the note.
    :param alive: waits for some time whether there is a sign of life after all. It is not called when the holder is stopped.
    :returns: whether it was ended.
    """
    try:
        with open(path, encoding="ascii") as handle:
            number, started, kind = handle.read().split()
        pid = int(number)
    except (FileNotFoundError, ValueError):
        return False
    process = _look(pid)
    if process is None or process.started != started or pid not in _holders(lock):
        return False
    if process.state not in ("T", "t") and (kind != _STEP or alive()):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True
