# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether what a session keeps in memory may be read from a disk afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import typing as t

# The same numbers on all architectures: syscalls 424 and later.
_FSOPEN, _FSCONFIG = 430, 431
_SET_FLAG = 0


def has_noswap() -> bool:
    """Whether this kernel has file systems in memory that it does not swap out, asked of itself; nothing is mounted for that."""
    libc, long = ctypes.CDLL(None), ctypes.c_long
    context = libc.syscall(long(_FSOPEN), b"tmpfs", long(0))
    if context < 0:
        return False
    try:
        return bool(libc.syscall(long(_FSCONFIG), long(context), long(_SET_FLAG), b"noswap", None, long(0)) == 0)
    finally:
        os.close(context)


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as handle:
        return handle.read().strip()
    return ""


def _is_safe(block: str, sys: str) -> bool:
    """Whether a block device keeps nothing that can be read from a disk without a key.

    :param block: its name in /sys/class/block.
    """
    place = os.path.join(sys, "class", "block", block)
    if re.fullmatch(r"zram\d+", block):
        # Compressed, in memory; what it may write to a disk it writes in the clear.
        return _read(os.path.join(place, "backing_dev")) in ("", "none")
    if _read(os.path.join(place, "dm", "uuid")).startswith("CRYPT-"):
        return True
    below = []
    with contextlib.suppress(OSError):
        below = os.listdir(os.path.join(place, "slaves"))
    return bool(below) and all(_is_safe(name, sys) for name in below)


def _block_of(path: str, kind: str, sys: str) -> str:
    """The name in /sys/class/block of the device of a swap space; empty where it is not known."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        number = status.st_rdev if kind == "partition" else status.st_dev
        link = os.path.join(sys, "dev", "block", f"{os.major(number)}:{os.minor(number)}")
        return os.path.basename(os.readlink(link))
    return ""


def in_the_clear(swaps: str = "/proc/swaps", sys: str = "/sys") -> list[str]:
    """The swap spaces of this host from which what was swapped out can be read without a key.

    A swap space whose device is not known counts as such.
    """
    found = []
    for line in _read(swaps).splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 2:
            # Blanks in names are written as \040.
            path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[0])
            block = _block_of(path, fields[1], sys)
            if not block or not _is_safe(block, sys):
                found.append(path)
    return found


def facts() -> dict[str, t.Any]:
    """What criu_check tells of it."""
    return {"noswap": has_noswap(), "in_the_clear": in_the_clear()}
