# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Huge pages: as the kernel tells of them, and of a real process where this machine lets us have some."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import huge_pages

# Linux 6.18.
SMAPS = """\
7f0000000000-7f0000400000 rw-p 00000000 00:11 4711                       /anon_hugepage (deleted)
Size:               4096 kB
KernelPageSize:     2048 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr mr mw me de ht
7f0000600000-7f0000800000 rw-s 00200000 00:11 4712                       /memfd:x (deleted)
Size:               2048 kB
KernelPageSize:     2048 kB
Private_Hugetlb:       0 kB
VmFlags: rd wr sh mr mw me ms de ht
7f0000a00000-7f0040a00000 rw-p 00000000 00:11 4713                       /anon_hugepage (deleted)
KernelPageSize:     2048 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:    6144 kB
VmFlags: rd wr mr mw me nr de ht
7f0080000000-7f0080001000 rw-p 00000000 00:00 0
KernelPageSize:        4 kB
VmFlags: rd wr mr mw me ac sd
"""
HOLDER = """
import mmap, os
private = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
shared = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000)
file = os.memfd_create("x", 4)
os.ftruncate(file, 2 << 20)
mapped = mmap.mmap(file, 2 << 20)
mapped[0] = 1
child = os.fork()
if child:
    print(child, flush=True)
    os.wait()
else:
    import sys
    sys.stdin.read()
"""
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def test_mappings() -> None:
    assert huge_pages.parse_smaps(SMAPS) == [
        huge_pages.Area(2048, 4 << 20, ""),
        # From the beginning of what it is a part of.
        huge_pages.Area(2048, 4 << 20, "00:11 4712"),
        # Nothing is set aside beforehand: what it has.
        huge_pages.Area(2048, 6 << 20, ""),
    ]
    assert huge_pages.parse_smaps("") == []


def test_what_is_left() -> None:
    pool = {
        "nr_hugepages": 10,
        "free_hugepages": 6,
        "resv_hugepages": 2,
        "nr_overcommit_hugepages": 5,
        "surplus_hugepages": 1,
    }
    assert huge_pages.available(pool) == 8
    assert huge_pages.available({**pool, "free_hugepages": 1}) == 4


def test_nothing_is_looked_at_where_no_process_can_have_one() -> None:
    assert huge_pages.of_processes([1], {"2048": dict.fromkeys(huge_pages._COUNTERS, 0)}) == {}


@pytest.fixture
def more() -> Iterator[None]:
    """Eight huge pages more than this machine has."""
    if not POOL.exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    before = int(POOL.read_text())
    try:
        POOL.write_text(str(before + 8))
    except OSError as exc:
        pytest.skip(f"huge pages cannot be set aside here: {exc}")
    try:
        if int(POOL.read_text()) < before + 8:
            pytest.skip("this machine has no memory left for huge pages")
        yield
    finally:
        POOL.write_text(str(before))


@pytest.mark.usefixtures("more")
def test_of_real_processes() -> None:
    """Private memory counts for each of the two processes that have it, shared memory once."""
    argv = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            pools = huge_pages.pools()
            assert huge_pages.of_processes([process.pid, child], pools) == {"2048": 2 + 2 + 1 + 1}
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)
