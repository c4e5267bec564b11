# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Files that processes have open or mapped under a name that was removed, as /proc tells of them."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t


class Deleted(t.NamedTuple):
    """Files that processes hold open or mapped and that have no name any more: CRIU writes them into its images."""

    files: int
    largest: int
    """The largest one in bytes, as :func:`saved_bytes` counts."""
    total: int
    """All in bytes."""


NOTHING_DELETED = Deleted(0, 0, 0)


def saved_bytes(status: os.stat_result) -> int:
    """What CRIU takes a deleted file for when it holds it against its limit: up to 3.17 its size, since then what it occupies."""
    return max(status.st_size, status.st_blocks * 512)


def deleted_files(pids: t.Iterable[int], proc: str = "/proc") -> Deleted:
    """The deleted files of some processes, each counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in removed_files(pids, proc):
        # A process may end while we look.
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                sizes[status.st_dev, status.st_ino] = saved_bytes(status)
    return Deleted(len(sizes), max(sizes.values(), default=0), sum(sizes.values()))


def removed_files(pids: t.Iterable[int], proc: str = "/proc") -> t.Iterator[str]:
    """Links below /proc to what processes have open or mapped under a name that was removed."""
    for pid in pids:
        yield from _open_files(f"{proc}/{pid}")
        yield from _mapped_files(f"{proc}/{pid}")


def _open_files(process: str) -> t.Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{process}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"{process}/fd/{name}").endswith(" (deleted)"):
                    yield f"{process}/fd/{name}"


def _mapped_files(process: str) -> t.Iterator[str]:
    with contextlib.suppress(OSError), open(f"{process}/maps", encoding="utf-8", errors="replace") as handle:
        for line in handle:
            if line.endswith(" (deleted)\n"):
                # Without the zeros in front that this list has and the directory has not.
                start, end = line.split(" ", 1)[0].split("-")
                yield f"{process}/map_files/{int(start, 16):x}-{int(end, 16):x}"


def has_kernel_aio(pids: t.Iterable[int], proc: str = "/proc") -> bool:
    """Whether a process has a ring for asynchronous reads and writes (io_setup(2)), which the freezer does not wait for."""
    for pid in pids:
        with contextlib.suppress(OSError), open(f"{proc}/{pid}/maps", encoding="utf-8", errors="replace") as handle:
            if any(line.endswith(" /[aio] (deleted)\n") for line in handle):
                return True
    return False
