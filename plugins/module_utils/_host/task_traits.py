# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What can be read of a task from outside, and what can be set from outside: one small class for each kind of it.

The kernel has most of it for each thread. Such a number is called *task* here. ``/proc/TASK`` is there for a thread that is not
the first of its process too, though no listing shows it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import typing as t

from .tasks import read

# ioprio_set(2), ioprio_get(2), sched_setattr(2), sched_getattr(2). C libraries have no functions for them.
_NUMBERS = {"x86_64": (251, 252, 314, 315), "s390x": (282, 283, 345, 346), "ppc64le": (273, 274, 355, 356)}
# Of every architecture that Linux learnt after 2010.
_GENERIC = (30, 31, 274, 275)
_IOPRIO_SET, _IOPRIO_GET, _SCHED_SETATTR, _SCHED_GETATTR = _NUMBERS.get(platform.machine(), _GENERIC)

_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13
_SCHED_DEADLINE = 6
# struct sched_attr as of Linux 3.14: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_RESET_ON_FORK = 1

_LIMITS = {
    "Max cpu time": "CPU",
    "Max file size": "FSIZE",
    "Max data size": "DATA",
    "Max stack size": "STACK",
    "Max core file size": "CORE",
    "Max resident set": "RSS",
    "Max processes": "NPROC",
    "Max open files": "NOFILE",
    "Max locked memory": "MEMLOCK",
    "Max address space": "AS",
    "Max pending signals": "SIGPENDING",
    "Max msgqueue size": "MSGQUEUE",
    "Max nice priority": "NICE",
    "Max realtime priority": "RTPRIO",
    "Max realtime timeout": "RTTIME",
}
#: of :class:`Processors`
ALL = "all"
# Where the names in /proc/PID/limits end.
_LIMITS_NAMES = 26

_LIBC = ctypes.CDLL(None, use_errno=True)

Value = t.Any
"""Plain data, equal on both hosts where nothing differs; None where it does not apply."""


def _call(number: int, *arguments: t.Any) -> int:
    answer = int(_LIBC.syscall(number, *arguments))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


class Trait:
    """One kind of thing that a task has.

    :param label: what it is called in a message.
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def get(self, task: int) -> Value:
        """What a task has.

        :raises OSError: when that cannot be read.
        """
        raise NotImplementedError


class Settable(Trait):
    """One that can be set from outside. The others only the process itself could set."""

    def put(self, task: int, value: Value) -> None:
        """Let a task have what :meth:`get` returned elsewhere.

        :raises OSError: when that cannot be done.
        """
        raise NotImplementedError


class File(Trait):
    """A file below /proc/PID."""

    def __init__(self, label: str, name: str) -> None:
        super().__init__(label)
        self._name = name

    def get(self, task: int) -> Value:
        """Its text. None where this kernel has no such file."""
        try:
            return read(f"/proc/{task}/{self._name}").strip()
        except FileNotFoundError:
            if os.path.exists(f"/proc/{task}"):
                return None
            raise


class WritableFile(File, Settable):
    """One that takes what it tells.

    :param form: how it takes it.
    """

    def __init__(self, label: str, name: str, form: str = "{}") -> None:
        super().__init__(label, name)
        self._form = form

    def put(self, task: int, value: Value) -> None:
        """Write it."""
        if value is None:
            return
        descriptor = os.open(f"/proc/{task}/{self._name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, self._form.format(value).encode())
        finally:
            os.close(descriptor)


class Link(Trait):
    """A link below /proc/PID to a file or directory."""

    def __init__(self, label: str, name: str) -> None:
        super().__init__(label)
        self._name = name

    def get(self, task: int) -> Value:
        """The path. None for one that has no name any more: CRIU gives such files a passing one."""
        path = os.readlink(f"/proc/{task}/{self._name}")
        return None if path.endswith(" (deleted)") else path


class Scheduling(Settable):
    """Policy, whether children get the usual one, nice value, priority, and the times of SCHED_DEADLINE."""

    def get(self, task: int) -> Value:
        """By sched_getattr(2)."""
        buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
        _call(_SCHED_GETATTR, task, buffer, _ATTRIBUTES.size, 0)
        _size, policy, flags, nice, priority, *times = _ATTRIBUTES.unpack(buffer.raw)
        # Otherwise newer kernels tell the length of a slice there, which follows from the number of processors.
        return [policy, flags & _RESET_ON_FORK, nice, priority, *(times if policy == _SCHED_DEADLINE else (0, 0, 0))]

    def put(self, task: int, value: Value) -> None:
        """By sched_setattr(2)."""
        buffer = ctypes.create_string_buffer(_ATTRIBUTES.pack(_ATTRIBUTES.size, *value), _ATTRIBUTES.size)
        _call(_SCHED_SETATTR, task, buffer, 0)


class InputOutputPriority(Settable):
    """Class and level of ioprio_set(2)."""

    def get(self, task: int) -> Value:
        """By ioprio_get(2).

        Without a class there is no level: Linux before 5.15 tells one of a task that never read nor wrote, but takes none.
        """
        value = _call(_IOPRIO_GET, _WHO_PROCESS, task)
        return value if value >> _IOPRIO_CLASS_SHIFT else 0

    def put(self, task: int, value: Value) -> None:
        """By ioprio_set(2)."""
        _call(_IOPRIO_SET, _WHO_PROCESS, task, value)


class Processors(Settable):
    """The processors that a task is tied to: their numbers, or *all* where it may run on each that there is for the container.

    :param all_there_are: the processors of this container.
    """

    def __init__(self, label: str, all_there_are: t.Iterable[int]) -> None:
        super().__init__(label)
        self._all = frozenset(all_there_are)

    def get(self, task: int) -> Value:
        """By sched_getaffinity(2)."""
        own = os.sched_getaffinity(task)
        return ALL if own >= self._all else sorted(own)

    def put(self, task: int, value: Value) -> None:
        """Those of them that are here. Of the others the comparison will tell."""
        here = self._all if value == ALL else self._all.intersection(value)
        if here:
            os.sched_setaffinity(task, here)


class Limits(Settable):
    """Resource limits, see getrlimit(2)."""

    def get(self, task: int) -> Value:
        """Soft and hard limit of each, by the names that the kernel tells."""
        found = {}
        for line in read(f"/proc/{task}/limits").splitlines()[1:]:
            soft, hard = line[_LIMITS_NAMES:].split()[:2]
            found[line[:_LIMITS_NAMES].rstrip()] = [soft, hard]
        return found

    def put(self, task: int, value: Value) -> None:
        """Those that differ."""
        now = self.get(task)
        for name, limits in value.items():
            number = getattr(resource, f"RLIMIT_{_LIMITS.get(name, '')}", None)
            if number is not None and now.get(name) != limits:
                soft, hard = (resource.RLIM_INFINITY if one == "unlimited" else int(one) for one in limits)
                resource.prlimit(task, number, (soft, hard))


class Timers(Trait):
    """The timers that timer_create(2) has made."""

    def get(self, task: int) -> Value:
        """Of each its number, signal, way of notification and clock."""
        try:
            text = read(f"/proc/{task}/timers")
        except FileNotFoundError:
            # A kernel without CONFIG_CHECKPOINT_RESTORE, on which nothing moves.
            return None
        timers: list[list[str]] = []
        for line in text.splitlines():
            key, _colon, value = line.partition(": ")
            if key == "ID":
                timers.append([value])
            elif key == "ClockID":
                # That of another process' processor time has the number of that process in it.
                timers[-1].append(value if int(value) >= 0 else f"cpu {int(value) & 7}")
            elif timers:
                # Behind the dot is a number that this host gives a process.
                timers[-1].append(value.partition(".")[0])
        return sorted(timers)
