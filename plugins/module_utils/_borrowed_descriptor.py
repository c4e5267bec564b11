# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A descriptor of our own for what another process has open: the same open file description, not another one of the same file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import typing as t

# pidfd_open(2) and pidfd_getfd(2) have one number on every architecture.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438

# Loaded once: it costs more than the calls.
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def borrowed(pid: int, number: int) -> t.Iterator[int]:
    """Have a descriptor of another process meanwhile.

    :param pid: the process, as this host numbers it.
    :param number: of the descriptor there.
    :raises OSError: where the process or the descriptor is gone, or the kernel cannot do it (before Linux 5.6).
    """
    process = _call(_PIDFD_OPEN, pid, 0)
    try:
        ours = _call(_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    try:
        yield ours
    finally:
        os.close(ours)


def _call(number: int, *arguments: int) -> int:
    answer = int(_LIBC.syscall(number, *arguments))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
