# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Tasks that sleep for a time they have named: nanosleep(2), clock_nanosleep(2), and poll(2) without descriptors.

The kernel goes on with such a sleep by a note of its own that nothing outside of it can read, so CRIU ends it with EINTR: the
program goes on after the move as if it had been woken by a signal. The engine ``runtime`` has the call made again instead, see
``_criu/core_image.py``. Who sleeps until a moment (TIMER_ABSTIME) or waits in select(2) is not affected.

Of the task's memory nothing is read but the 16 bytes that say how long it wants to sleep.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import typing as t

# How the kernel numbers the calls, by machine: nanosleep, clock_nanosleep, poll, restart_syscall. arm64 has no poll.
_CALLS = {"x86_64": (35, 230, 7, 219), "aarch64": (101, 115, -1, 128)}
_TIMER_ABSTIME = 1
# A call that the kernel has begun again (restart_syscall, after docker pause for instance) has the first one's arguments, but not
# its number. Where it stands (/proc/PID/wchan) tells waiting for descriptors or locks from sleeping, and the first argument tells
# the two kinds of sleep apart: clocks are small numbers, and times lie in memory.
_WAITS = ("poll", "futex")
_CLOCKS = 16
# Sleeps up to this long are over soon in any case: loops that look for something now and then.
SHORT_SECONDS = 10.0
_LARGEST_PROGRAM = 16 << 20


class Sleep(t.NamedTuple):
    """One task that sleeps."""

    program: str
    seconds: float
    rest_known: bool
    """Whether the kernel tells the program how much of it is left when it is interrupted."""


class Asked(t.NamedTuple):
    """What a task has asked the kernel for."""

    kind: str
    """``timespec`` (in its memory) or ``milliseconds``."""
    value: int
    rest_known: bool = False


def requested(call: t.Sequence[int], machine: str, place: str) -> Asked | None:
    """What a task waits for; None where it is no such sleep.

    :param call: number of the system call and its arguments.
    :param place: the function of the kernel in which it stands (/proc/PID/wchan).
    """
    if machine not in _CALLS or len(call) < 5:
        return None
    nanosleep, clock_nanosleep, poll, restarted = _CALLS[machine]
    number, first, second, third, fourth = call[:5]
    if number == restarted and "poll" in place:
        number = poll
    elif number == restarted and not any(call in place for call in _WAITS):
        number = clock_nanosleep if first < _CLOCKS else nanosleep
    if number == nanosleep:
        return Asked("timespec", first, bool(second))
    if number == clock_nanosleep and not second & _TIMER_ABSTIME:
        return Asked("timespec", third, bool(fourth))
    if number == poll and second == 0 and 0 < third < 1 << 31:
        return Asked("milliseconds", third)
    return None


def _parse(text: str) -> list[int]:
    fields = text.split()
    # "running", or "-1" for a task that waits for no call of its own.
    if len(fields) < 7:
        return []
    return [int(fields[0]), *(int(field, 16) for field in fields[1:])]


def _seconds(pid: int, asked: Asked) -> float:
    if asked.kind == "milliseconds":
        return asked.value / 1000
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(asked.value)
        seconds, nanoseconds = struct.unpack("=qq", memory.read(16))
    return float(seconds + nanoseconds / 1e9)


def _begins_again(pid: int, kind: str) -> bool:
    """Whether the program goes on with its sleep when it is interrupted.

    The one of GNU coreutils does (gnulib, xnanosleep), and so does Python with poll(2) (PEP 475; its sleep(3) is not affected).
    """
    with open(f"/proc/{pid}/exe", "rb") as program:
        if kind == "milliseconds":
            return re.fullmatch(r"python3(\.\d+)?", os.path.basename(os.readlink(f"/proc/{pid}/exe"))) is not None
        return b"GNU coreutils" in program.read(_LARGEST_PROGRAM)


def _is_64_bit(pid: int) -> bool:
    """Whether the calls of a program are numbered as this machine's own."""
    with open(f"/proc/{pid}/exe", "rb") as program:
        return program.read(5)[4:] == b"\x02"


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as handle:
        return handle.read()


def look(pid: int, program: str) -> list[Sleep]:
    """The long sleeps of a process' tasks that a move would end.

    :param program: what it is called.
    """
    machine = os.uname().machine
    found: list[Sleep] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, ValueError, struct.error):
                place = f"/proc/{pid}/task/{task}"
                call = _parse(_read(f"{place}/syscall"))
                asked = requested(call, machine, _read(f"{place}/wchan")) if call else None
                if asked is None or not _is_64_bit(pid):
                    continue
                seconds = _seconds(pid, asked)
                if seconds > SHORT_SECONDS and not _begins_again(pid, asked.kind):
                    found.append(Sleep(program, seconds, asked.rest_known))
    return found
