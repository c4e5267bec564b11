# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Device nodes of a process with a /dev of its own, and what they are on this host. Nothing is opened."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import device_nodes

# As in a container: /dev is a file system in memory, and another one is mounted in it. Below 60:0 and 120:0 nobody has devices.
INSIDE = """
import os, stat, subprocess, time
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", "/dev"], check=True)
for path in ("/dev/snd", "/dev/shm"):
    os.mkdir(path)
subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/shm"], check=True)
def make(path, kind, major, minor):
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
make("/dev/null", stat.S_IFCHR, 1, 3)
make("/dev/disk", stat.S_IFBLK, 60, 1)
make("/dev/snd/pcm", stat.S_IFCHR, 120, 7)
make("/dev/shm/hidden", stat.S_IFCHR, 120, 8)
os.symlink("disk", "/dev/link")
print("ready", flush=True)
time.sleep(60)
"""
DISK = {"path": "/dev/disk", "host_path": "/dev/disk", "numbers": "b 60:1", "given": True}
SOUND = {"path": "/dev/snd/pcm", "host_path": "/dev/snd/pcm", "numbers": "c 120:7", "given": True}


@pytest.fixture
def inside() -> Iterator[int]:
    with subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-c", INSIDE], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def _container(devices: list[Any], *, privileged: bool = False) -> dict[str, Any]:
    return {"HostConfig": {"Devices": devices, "Privileged": privileged}}


@pytest.mark.usefixtures("needs_namespaces")
def test_the_nodes_of_a_container(inside: int, tmp_path: Path) -> None:
    """What is the same everywhere is left out, and what is mounted in its /dev is no part of it."""
    assert device_nodes.of_container(_container([]), inside) == [DISK, SOUND]
    mapped = _container([{"PathOnHost": "/dev/sdx", "PathInContainer": "/dev/disk"}], privileged=True)
    assert device_nodes.of_container(mapped, inside) == [
        {**DISK, "host_path": "/dev/sdx"},
        {**SOUND, "given": False},
    ]
    # All that is in a directory is given, by the names that it has in there.
    (tmp_path / "pcm").touch()
    directory = _container([{"PathOnHost": str(tmp_path), "PathInContainer": "/dev/snd"}], privileged=True)
    assert device_nodes.of_container(directory, inside) == [
        {**DISK, "given": False},
        {**SOUND, "host_path": f"{tmp_path}/pcm"},
    ]


def test_what_is_another_device_here(tmp_path: Path) -> None:
    """By the path that the host has it at, and by who has the numbers."""
    node = tmp_path / "node"
    try:
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(120, 7))
    except PermissionError:
        pytest.skip("this needs the right to make device nodes")
    (tmp_path / "link").symlink_to("node")
    there = {**SOUND, "host_path": str(tmp_path / "link")}
    assert device_nodes.differing([there]) == []
    # The other kind, and another number.
    for numbers in ("b 120:7", "c 120:8"):
        other = {**there, "numbers": numbers}
        assert device_nodes.differing([other]) == [{**other, "here": "c 120:7", "owner": ""}]
    # It is not here, and its numbers are another device: the full device has those of every Linux.
    missing = {**there, "host_path": str(tmp_path / "none"), "numbers": "c 1:7"}
    assert device_nodes.differing([missing]) == [{**missing, "here": "", "owner": "full"}]
    # Nobody has them, or nobody can.
    for numbers in ("c 120:7", "c 1:7/../1:3", "../1:3", ""):
        assert device_nodes.differing([{**missing, "numbers": numbers}]) == []
