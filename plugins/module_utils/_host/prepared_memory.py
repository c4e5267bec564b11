# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Memory made ready before it is needed.

Memory that MemAvailable promises is not free yet: the kernel has to write out and drop its page cache first. Memory that a
virtual machine has never used, its hypervisor has to provide first (measured: 16 s/GiB the first time, 1 s/GiB the second
time). Both would happen in the frozen time. So, before the freeze, as much memory as a checkpoint needs is written to once and
given back. The kernel hands out first what it was given back last, so that the checkpoint gets memory that is ready.
"""

from __future__ import annotations

import contextlib
import mmap
import os

_CHUNK = 1 << 20
# madvise(2); Python's mmap has the name from 3.8 on where the system's headers have it.
_MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", None)


def free_bytes_of_cgroups(path: str | None = None, root: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process' cgroups (version 2) still let it have; a process that takes more is killed.

    :param path: of its cgroup, for tests.
    """
    if path is None:
        path = ""
        with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as handle:
            path = next((line[3:].strip() for line in handle if line.startswith("0::")), "")
    free = 1 << 62
    while path.strip("/"):
        directory = root + path
        # A cgroup without the memory controller has no such files, and one without a limit says "max".
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(directory, "memory.max"), encoding="ascii") as handle:
                limit = int(handle.read())
            with open(os.path.join(directory, "memory.current"), encoding="ascii") as handle:
                free = min(free, limit - int(handle.read()))
        path = os.path.dirname(path)
    return max(0, free)


def touch(size: int) -> int:
    """Touch so many bytes of memory, or half of what this process may have, and give them back.

    :param size: bytes that are known to be available.
    :returns: the bytes.
    """
    size = min(size, free_bytes_of_cgroups() // 2) // _CHUNK * _CHUNK
    # Nothing depends on it: without it the frozen time is longer.
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if size > 0:
            with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                if _MADV_HUGEPAGE is not None:
                    with contextlib.suppress(OSError):
                        memory.madvise(_MADV_HUGEPAGE)
                zeros = bytes(_CHUNK)
                for offset in range(0, size, _CHUNK):
                    memory[offset : offset + _CHUNK] = zeros
            return size
    return 0
