# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A descriptor of our own for what another process has open: the same open file description, not another one of the same file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import typing as t

# pidfd_open(2) and pidfd_getfd(2) have one number on every architecture.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
#: Errors of a process or of a descriptor that is gone: programs that run end and close as they like.
GONE = (errno.ESRCH, errno.EBADF, errno.ENOENT)

# Loaded once: it costs more than the calls.
_LIBC = ctypes.CDLL(None, use_errno=True)


class Lender:
    """A process of which several descriptors are borrowed: it is looked up once.

    :param pid: the process, as this host numbers it.
    :raises OSError: where the process is gone, or the kernel cannot do it.
    """

    def __init__(self, pid: int) -> None:
        self._process = _call(_PIDFD_OPEN, pid, 0)

    def __enter__(self) -> Lender:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._process)

    def take(self, number: int) -> int:
        """A descriptor of our own, which the caller closes.

        :param number: of the descriptor there.
        :raises OSError: as :meth:`borrowed` does.
        """
        return _call(_PIDFD_GETFD, self._process, number, 0)

    @contextlib.contextmanager
    def borrowed(self, number: int) -> t.Iterator[int]:
        """Have one of its descriptors meanwhile.

        :param number: of the descriptor there.
        :raises OSError: where the process or the descriptor is gone, or the kernel cannot do it (before Linux 5.6).
        """
        ours = self.take(number)
        try:
            yield ours
        finally:
            os.close(ours)


@contextlib.contextmanager
def borrowed(pid: int, number: int) -> t.Iterator[int]:
    """Have a descriptor of another process meanwhile.

    :param pid: the process, as this host numbers it.
    :param number: of the descriptor there.
    :raises OSError: where the process or the descriptor is gone, or the kernel cannot do it (before Linux 5.6).
    """
    with Lender(pid) as lender, lender.borrowed(number) as ours:
        yield ours


def _call(number: int, *arguments: int) -> int:
    answer = int(_LIBC.syscall(number, *arguments))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
