# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Processes for which the kernel may have to undo System V semaphores when they end (SEM_UNDO of semop(2)).

The kernel keeps a list for that with each process. Nothing in /proc shows it and CRIU does not know it, but kcmp(2) tells whether
two tasks have the same one. A task that has just entered another IPC namespace has none (setns(2)), so whoever has not the
same has one.

A process has such a list from its first call with SEM_UNDO on, until it ends, whether something is to be undone or not. One that
has started a thread has it too, because threads share it (clone(2), CLONE_SYSVSEM).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
import typing as t

from . import namespaces

# kcmp(2), for which C libraries have no function, and what it compares.
_KCMP = {"x86_64": 312, "s390x": 343, "ppc64le": 354}.get(platform.machine(), 272)
_KCMP_SYSVSEM = 6

_LIBC = ctypes.CDLL(None, use_errno=True)


def with_undo_list(pids: t.Iterable[int], init: int) -> list[int]:
    """Those processes for which the kernel may have to undo something: none where no semaphores of the container were ever used.

    :param pids: as this host numbers them.
    :param init: one that is in the container's IPC namespace. Where that is the host's, nothing is asked.
    """
    found: list[int] = []
    # It has ended, or the kernel cannot compare; then it cannot checkpoint either.
    with contextlib.suppress(OSError):
        if not namespaces.shares(init, os.getpid(), "ipc"):
            found = namespaces.inside(init, ["ipc"], lambda: _unlike_us(pids) if _used() else [])
    return found


def _unlike_us(pids: t.Iterable[int]) -> list[int]:
    own = threading.get_native_id()
    # It answers -1 where one of them is gone.
    return [pid for pid in pids if _LIBC.syscall(_KCMP, own, pid, _KCMP_SYSVSEM, 0, 0) > 0]


def _used() -> bool:
    """Whether there are semaphores in this thread's namespace that somebody has used."""
    with open("/proc/sysvipc/sem", encoding="ascii") as handle:
        names = handle.readline().split()
        return any(dict(zip(names, line.split()))["otime"] != "0" for line in handle)
