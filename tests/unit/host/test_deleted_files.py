# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deleted files that real processes hold, and programs that have the kernel write for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import deleted_files
from ansible_collections.livemigrate.criu.plugins.module_utils._host.deleted_files import Deleted

NOTHING = Deleted(0, 0, 0)


_HOLDER = """
import mmap, os, sys
opened = open("opened", "w+b"); opened.write(b"x" * 5000); opened.flush(); os.unlink("opened")
twice = os.dup(opened.fileno())
mapped = open("mapped", "w+b"); mapped.write(b"y" * 9000); mapped.flush()
memory = mmap.mmap(mapped.fileno(), 9000); mapped.close(); os.unlink("mapped")
named = open("named", "w+b"); named.write(b"z" * 70000); named.flush()
print("ready", flush=True); sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """A process that holds a deleted file open twice, another one mapped, and one that has its name."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def test_deleted_files_are_found_open_and_mapped_each_once(holder: int) -> None:
    found = deleted_files.deleted_files([holder, holder])
    # What they occupy: since 3.18 CRIU holds that against its limit, and not the size.
    assert found.files == 2
    assert found.largest >= 9000
    assert found.total >= 14000
    block = os.statvfs(f"/proc/{holder}/cwd").f_frsize
    assert found.largest % block == found.total % block == 0


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert deleted_files.deleted_files([process.pid]) == NOTHING


# io_setup(2), as libaio makes it.
_AIO = """
import ctypes, sys
context = ctypes.c_ulong(0)
print("ready" if ctypes.CDLL(None).syscall(206, 8, ctypes.byref(context)) == 0 else "forbidden", flush=True)
sys.stdin.read()
"""


def test_a_program_that_has_the_kernel_write_for_it_is_seen(holder: int) -> None:
    assert not deleted_files.has_kernel_aio([holder])
    with subprocess.Popen(
        [sys.executable, "-c", _AIO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.readline()
        found = deleted_files.has_kernel_aio([holder, process.pid])
        process.kill()
    if printed != "ready\n":
        pytest.skip("no io_setup(2) here")
    assert found
