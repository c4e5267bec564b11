# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.
"""Huge pages: what the processes of a container take of them, and what a host has left.

They are memory that the host has set aside (hugetlbfs), in sizes of their own. A restore maps as many as the container had
mapped, whether they are filled or not, because the kernel sets them aside at that moment.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

Facts = dict[str, t.Any]

_POOLS = "/sys/kernel/mm/hugepages"
_COUNTERS = ("nr_hugepages", "free_hugepages", "resv_hugepages", "nr_overcommit_hugepages", "surplus_hugepages")
_RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+)")


class Area(t.NamedTuple):
    """A mapping of huge pages."""

    page_kib: int
    size: int
    """Bytes that have to be set aside for it."""
    shared: str
    """What it is a part of, where several processes may map it: device and inode. Empty for private memory."""


def parse_smaps(text: str) -> list[Area]:
    """The mappings of huge pages out of /proc/PID/smaps."""
    found = []
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE):
        head, flags = _RANGE.match(block), re.search(r"^VmFlags:(.*)$", block, re.MULTILINE)
        page = re.search(r"^KernelPageSize:\s+(\d+) kB", block, re.MULTILINE)
        if head is None or flags is None or page is None or " ht" not in flags.group(1):
            continue
        first, last, permissions, offset, device, inode = head.groups()
        size = int(last, 16) - int(first, 16)
        if " nr" in flags.group(1):
            # Not set aside beforehand (MAP_NORESERVE): only what is filled counts.
            filled = re.findall(r"^(?:Shared|Private)_Hugetlb:\s+(\d+) kB", block, re.MULTILINE)
            size = sum(map(int, filled)) << 10
        shared = f"{device} {inode}" if permissions[3] == "s" else ""
        found.append(Area(int(page.group(1)), size + (int(offset, 16) if shared else 0), shared))
    return found


def of_processes(pids: t.Iterable[int], pools: t.Mapping[str, t.Mapping[str, int]]) -> dict[str, int]:
    """Pages that a container takes, by their size in KiB.

    :param pools: of this host, see :func:`pools`; without any page nobody can have one, and nothing is looked at.
    """
    if not any(pool["nr_hugepages"] for pool in pools.values()):
        return {}
    bytes_by_size: dict[int, int] = {}
    shared: dict[tuple[int, str], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as handle:
            for area in parse_smaps(handle.read()):
                if area.shared:
                    key = (area.page_kib, area.shared)
                    shared[key] = max(shared.get(key, 0), area.size)
                else:
                    bytes_by_size[area.page_kib] = bytes_by_size.get(area.page_kib, 0) + area.size
        for kind, identity, size in _open_files(pid, pools):
            shared[kind, identity] = max(shared.get((kind, identity), 0), size)
    for (page_kib, _identity), size in shared.items():
        bytes_by_size[page_kib] = bytes_by_size.get(page_kib, 0) + size
    return {str(kib): -(-size // (kib << 10)) for kib, size in sorted(bytes_by_size.items()) if size}


def _open_files(pid: int, pools: t.Container[str]) -> t.Iterator[tuple[int, str, int]]:
    """Files of huge pages that are open and need not be mapped (memfd_create with MFD_HUGETLB): page size, which, bytes."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                place = f"/proc/{pid}/fd/{name}"
                if os.readlink(place).startswith("/memfd:"):
                    found = os.stat(place)
                    if str(found.st_blksize >> 10) in pools:
                        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
                        # What is not filled is set aside when it is mapped; mapped ranges are counted by themselves.
                        yield found.st_blksize >> 10, f"{device} {found.st_ino}", found.st_blocks * 512


def pools() -> dict[str, dict[str, int]]:
    """What this host has of huge pages, by their size in KiB; the names are the kernel's."""
    found: dict[str, dict[str, int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(_POOLS)):
            size = re.fullmatch(r"hugepages-(\d+)kB", name)
            if size:
                found[size.group(1)] = {counter: _number(os.path.join(_POOLS, name, counter)) for counter in _COUNTERS}
    return found


def _number(path: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as handle:
        return int(handle.read())
    return 0


def available(pool: t.Mapping[str, int]) -> int:
    """How many more pages a program could have: free and not promised to another, or made when they are asked for."""
    made = max(0, pool["nr_overcommit_hugepages"] - pool["surplus_hugepages"])
    return max(0, pool["free_hugepages"] - pool["resv_hugepages"]) + made
