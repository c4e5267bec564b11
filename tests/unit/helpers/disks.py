# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of a test's own: what lies on one after a power cut can be looked at, and one can be too small for what is written.

A disk is a file behind a loop device with ext4 on it. What the kernel has not written to it is not in that file: so a copy of
the file is the disk after a power cut at that moment.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.unit.helpers.support import race

_CLONE_NEWNS = 0x00020000
_SIZE = 96 << 20
# The largest of what mkfs writes is the journal.
_MKFS = ("mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "nodiscard")

Result = TypeVar("Result")


def _run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True)


class Disk:
    """A disk, mounted at a place. To be made in :func:`with_own_mounts` only.

    :param scratch: a directory for the medium.
    :param room: bytes that the medium can really hold, like a thin volume that promises more.
    """

    def __init__(self, scratch: Path, place: Path, *, room: int = 2 * _SIZE) -> None:
        self.place = place
        self._medium = scratch / f"medium-of-{place.name}"
        self._medium.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={room}", "medium", self._medium)
        image = self._medium / "image"
        with image.open("wb") as file:
            file.truncate(_SIZE)
        _run(*_MKFS, image)
        place.mkdir(exist_ok=True)
        # Nothing is written but what somebody flushes: no timer may do it in the middle of a test.
        _run("mount", "-o", "loop,errors=continue,commit=300", image, place)
        (place / "lost+found").rmdir()
        _run("sync", "-f", place)

    def after_a_power_cut(self) -> Path:
        """What would be there if the power failed now."""
        cut, place = self._medium / "cut", self._medium / "place"
        shutil.copyfile(self._medium / "image", cut)
        place.mkdir()
        _run("mount", "-o", "loop", cut, place)
        return place


def with_own_mounts(work: Callable[[], Result]) -> Result:
    """Do some work in a process with mounts of its own, which go with it; returns its result, which has to be plain data."""

    def alone(_number: int) -> Result:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            _run("mount", "--make-rprivate", "/")
            return work()
        except BaseException:
            traceback.print_exc()
            raise

    [(kind, value)] = race(1, alone)
    assert kind == "ok", f"it ended with {value}, see above"
    result: Result = value
    return result


def with_read_only(directory: str, work: Callable[[], Result]) -> Result:
    """Do some work in a process before which the file system of a directory is read-only; as :func:`with_own_mounts`."""

    def alone() -> Result:
        _run("mount", "--bind", directory, directory)
        _run("mount", "-o", "remount,bind,ro", directory)
        return work()

    return with_own_mounts(alone)


def require_disks() -> None:
    """Skip where a test cannot have disks."""
    for program in ("mkfs.ext4", "losetup"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    free = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    if free.returncode != 0:
        pytest.skip(f"there are no loop devices here: {free.stderr.strip()}")
