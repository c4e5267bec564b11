# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Memory made ready before it is needed.

MemAvailable is a promise: the page cache has to be written out and dropped first, and what a virtual machine has never
touched its hypervisor has to find first (16 s/GiB measured, against 1 s/GiB the second time). Both would fall into the frozen
time. So as much as it will take is touched once before it, and given back: the kernel hands out last what it got back first.
"""

from __future__ import annotations

import contextlib
import mmap
import os

_CHUNK = 1 << 20
# madvise(2); Python's mmap has the name from 3.8 on where the system's headers have it.
_MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", None)


def room_of_cgroups(path: str | None = None, root: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process' cgroups (version 2) still let it have; a process that takes more is killed.

    :param path: of its cgroup, for tests.
    """
    if path is None:
        path = ""
        with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as handle:
            path = next((line[3:].strip() for line in handle if line.startswith("0::")), "")
    room = 1 << 62
    while path.strip("/"):
        directory = root + path
        # A cgroup without the memory controller has no such files, and one without a limit says "max".
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(directory, "memory.max"), encoding="ascii") as handle:
                limit = int(handle.read())
            with open(os.path.join(directory, "memory.current"), encoding="ascii") as handle:
                room = min(room, limit - int(handle.read()))
        path = os.path.dirname(path)
    return max(0, room)


def touch(size: int) -> int:
    """Touch so many bytes of memory, or half of what this process may have, and give them back.

    :param size: bytes that are known to be available.
    :returns: the bytes.
    """
    size = min(size, room_of_cgroups() // 2) // _CHUNK * _CHUNK
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
