# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The place of a session for what must not reach a disk: a file system in memory of its own, which the kernel does not swap out.

``/run`` is in memory, and swapped out like all memory. From Linux 6.4 on a tmpfs can be mounted ``noswap``; each session has one,
so that nothing is shared between sessions and nothing is left of it when the session ends. Below that kernel it is a directory of
``/run``, and the preflight says so where there is swap space in the clear (``_host/swap.py``).
"""

from __future__ import annotations

import contextlib
import os
import shutil

from . import namespaces

_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_DETACH, _NOFOLLOW = 2, 8

_call = namespaces.call


def keep_out_of_swap(path: str) -> bool:
    """Mount a file system on an empty directory that is never swapped out; returns whether this kernel has that.

    It is as large as the one that the directory is in, so that what was said of the room there holds.
    """
    filesystem = os.statvfs(path)
    options = f"noswap,mode=0700,size={filesystem.f_blocks * filesystem.f_frsize}"
    with contextlib.suppress(OSError):
        _call(
            "mount",
            b"livemigrate",
            os.fsencode(path),
            b"tmpfs",
            _NOSUID | _NODEV | _NOEXEC,
            options.encode(),
        )
        return True
    return False


def remove(path: str) -> None:
    """Remove a directory and the file system on it, if there is one; what is not there is fine.

    What a process still has open in it goes with that process.
    """
    while os.path.ismount(path):
        for name in os.listdir(path):
            _remove_entry(os.path.join(path, name))
        try:
            _call("umount2", os.fsencode(path), _DETACH | _NOFOLLOW)
        except OSError:
            return
    shutil.rmtree(path, ignore_errors=True)


def _remove_entry(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
