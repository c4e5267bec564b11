# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory that is touched beforehand: it really is, it is given back, and no limit is broken for it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import prepared_memory

SIZE = 64 << 20


def _in_child(size: int, limit: int) -> int:
    """What a process touches that may have so much address space."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os._exit(0 if prepared_memory.touch(size) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_it_is_given_back() -> None:
    before = _memory()
    assert prepared_memory.touch(SIZE) == SIZE
    assert _memory() - before < SIZE // 2


def test_every_page_is_touched() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    assert prepared_memory.touch(SIZE) == SIZE
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt
    # One for each page, or one for each huge page where the kernel gives such.
    assert faults >= SIZE // (2 << 20)


@pytest.mark.parametrize("size", [0, -1, 1, (1 << 20) - 1])
def test_next_to_nothing_is_nothing(size: int) -> None:
    assert prepared_memory.touch(size) == 0


def test_more_than_there_is_is_no_error() -> None:
    """Nothing depends on it."""
    assert _in_child(1 << 34, limit=1 << 30) == 0


def _cgroup(directory: Path, limit: str, current: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.max").write_text(limit + "\n")
    (directory / "memory.current").write_text(f"{current}\n")


def test_the_narrowest_cgroup_counts(tmp_path: Path) -> None:
    _cgroup(tmp_path / "user.slice", "1000", 300)
    _cgroup(tmp_path / "user.slice" / "session", "max", 200)
    assert prepared_memory.free_bytes_of_cgroups("/user.slice/session", str(tmp_path)) == 700
    _cgroup(tmp_path / "user.slice" / "session", "500", 200)
    assert prepared_memory.free_bytes_of_cgroups("/user.slice/session", str(tmp_path)) == 300
    _cgroup(tmp_path / "user.slice" / "session", "500", 600)
    assert prepared_memory.free_bytes_of_cgroups("/user.slice/session", str(tmp_path)) == 0


def test_without_limits_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "system.slice").mkdir()
    assert prepared_memory.free_bytes_of_cgroups("/system.slice", str(tmp_path)) > 1 << 60
    assert prepared_memory.free_bytes_of_cgroups("/", str(tmp_path)) > 1 << 60


def test_half_of_what_may_be_had_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_memory, "free_bytes_of_cgroups", lambda: 10 << 20)
    assert prepared_memory.touch(SIZE) == 5 << 20
