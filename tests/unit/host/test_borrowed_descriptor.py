# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Descriptors of a real process that are borrowed, used and given back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host.borrowed_descriptor import GONE, Lender, borrowed

_HOLDER = "import os, sys; print(os.open(sys.argv[1], os.O_RDWR), flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A process that has a file open, and the number by which it has it."""
    (tmp_path / "file").write_text("content")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "file")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def _ours() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("needs_root")
def test_it_is_the_same_open_file_and_is_given_back(holder: tuple[int, int]) -> None:
    pid, number = holder
    before = _ours()
    with borrowed(pid, number) as ours:
        assert os.read(ours, 3) == b"con"
        # One place in the file for both.
        assert "pos:\t3\n" in Path(f"/proc/{pid}/fdinfo/{number}").read_text()
    assert _ours() == before


@pytest.mark.usefixtures("needs_root")
def test_several_are_had_of_a_process_that_is_looked_up_once(holder: tuple[int, int]) -> None:
    pid, number = holder
    before = _ours()
    with Lender(pid) as lender:
        with lender.borrowed(0) as first, lender.borrowed(number) as second:
            assert os.readlink(f"/proc/self/fd/{first}").startswith("pipe:")
            assert os.fstat(second).st_size == 7
        os.close(lender.take(number))
    assert _ours() == before


@pytest.mark.usefixtures("needs_root")
def test_what_is_gone_is_reported_as_gone(holder: tuple[int, int]) -> None:
    before = _ours()
    with pytest.raises(OSError, match="Bad file descriptor") as caught, borrowed(holder[0], 999):
        pass
    assert caught.value.errno in GONE
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(OSError, match="No such process") as caught, borrowed(process.pid, 0):
        pass
    assert caught.value.errno in GONE
    assert _ours() == before
