# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Who holds a session's lock: noted by the holder, and ended by the watchdog where it shows no sign of life any more.

The kernel drops a lock with its holder, but one that is stopped (SIGSTOP, a debugger) or hangs does not die by itself, and the
service that it has frozen would stand still for ever.
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
    """Note that this process has got the lock.

    :param path: in memory: what holds a lock does not outlive the boot.
    :param step: one that shows signs of life, and not somebody who settles what such a one has left.
    """
    own = _look(os.getpid())
    # Of a session that is closed there is no directory any more; and without a note nobody is ended.
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as handle:
        handle.write(f"{os.getpid()} {own.started if own else ''} {_STEP if step else _SETTLING}")


def _holders(lock: str) -> set[int]:
    """The processes that hold a lock, by the kernel's word. Devices are left out: some file systems show others in stat()."""
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
    """End the holder of a lock whose lease is over: a step that is stopped or silent, or one who settles and is stopped.

    Only a process of ours: that of the note, holding the lock now, and not another of its number. CRIU and the engine are no
    children of it and go on; what they do is waited for by whoever settles.

    :param lock: the file of the lock.
    :param path: of the note.
    :param alive: whether there is a sign of life after all. Asked for some time, unless the holder is stopped.
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
