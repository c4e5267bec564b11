# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of a source and of its copy, as the kernel lists them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.mounts import (
    carry,
    compare,
    differences,
    flags,
    looks_of,
)

# Of a container of Docker 28.5.2, shortened.
SOURCE = """\
340 184 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b
342 340 0:73 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
343 340 0:74 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
367 340 0:175 / /t2 rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=3072k
368 340 254:0 /x/volumes/1/_data /kept ro,relatime master:682 - ext4 /dev/vda rw,discard
261 342 0:74 /null /proc/keys rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
500 340 0:190 / /st ro,relatime - tmpfs tmpfs ro,size=1024k
501 500 0:191 / /st rw,nodev,relatime - tmpfs tmpfs rw,size=2048k
"""
# And of its copy: other numbers, another order, other devices, and of the masks another file system.
COPY = """\
41 40 0:190 / / rw,relatime - overlay overlay rw,lowerdir=/c,upperdir=/d
42 43 0:191 / /st rw,nodev,relatime - tmpfs tmpfs rw,size=2048k
43 41 0:192 / /st ro,relatime - tmpfs tmpfs ro,size=1024k
44 41 254:1 /y/volumes/1/_data /kept relatime,ro master:697 - xfs /dev/sda rw
45 41 0:193 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
46 45 0:5 /null /proc/keys rw,nosuid - tmpfs tmpfs rw,size=4096k,nr_inodes=65536,mode=755
47 41 0:194 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
49 44 0:7 / /kept/below rw - tmpfs tmpfs rw
48 41 0:195 / /t2 rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=3072k,inode64
"""


def _looks(text: str) -> dict[str, list[list[str]]]:
    return looks_of(text, ["/kept"])


def test_what_a_move_changes_is_no_difference() -> None:
    assert not differences(_looks(SOURCE), _looks(COPY))


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ("/kept relatime,ro", "/kept relatime,rw", "the mount at /kept is relatime,rw, not relatime,ro"),
        ("/t2 rw,nosuid,nodev,noexec,relatime", "/t2 rw,nosuid,nodev,noexec,relatime shared:1", "shared"),
        ("/t2 rw,nosuid", "/t2 rw", "the mount at /t2"),
        ("size=3072k", "size=1024k", "size=1024k"),
        ("/ /t2", "/ /t3", "the mount at /t2 is missing"),
        ("43 41 0:192", "43 42 0:192", "the mount at /st"),
    ],
)
def test_other_mounts_are_reported(old: str, new: str, reported: str) -> None:
    changed = COPY.replace(old, new)
    if old.startswith("43 41"):
        changed = changed.replace("42 43 0:191", "42 41 0:191")
    assert any(reported in one for one in differences(_looks(SOURCE), _looks(changed)))


@pytest.mark.parametrize("held", [True, False])
def test_options_that_the_restore_has_lost_are_set_again(held: bool) -> None:
    """Of a real mount: with the options that the kernel of this machine tells of it. Not of a copy that runs (engine `api`)."""
    mounts = (
        "mount -t tmpfs -o strictatime,nosuid t /tmp && : > '/tmp/a b' && : > /tmp/c && mount --bind /tmp/c '/tmp/a b'"
    )
    lose = "mount -o remount,bind,relatime,ro '/tmp/a b'; mount -o remount,bind,suid,noexec /tmp"
    program = f"{mounts}; echo made; read word; {lose}; echo lost; read word"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "made\n"
            side: Any = SimpleNamespace(init=process.pid, group=SimpleNamespace(frozen=held))
            source = {"external": [], "looks": looks_of(Path(f"/proc/{process.pid}/mountinfo").read_text())}
            process.stdin.write("on\n")
            process.stdin.flush()
            assert process.stdout.readline() == "lost\n"
            assert len(compare(side, source)) == 2
            carry(side, source)
            assert len(compare(side, source)) == (0 if held else 2)
        finally:
            process.stdin.close()


@pytest.mark.parametrize(
    ("options", "number"),
    [("rw,nosuid", 2 | 1 << 24), ("ro,nosuid,nodev,noexec,relatime", 15 | 1 << 21), ("rw,noatime,nodiratime", 3072)],
)
def test_flags_of_mount(options: str, number: int) -> None:
    assert flags(options) == number
