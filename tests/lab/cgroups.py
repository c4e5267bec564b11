# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's cgroups: BRIDGE/HOST in the cgroup v2 tree holds every process of a host, and nothing else ever enters it.

That makes it the list of what may be killed. Machines with the hybrid layout have the v2 tree beside v1 controllers;
nspawn leaves directories of the same name in some of those too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .settings import Settings
from .shell import LabError


def _mounts(kind: str) -> list[Path]:
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _source, target, fstype = line.split()[:3]
        if fstype == kind:
            found.append(Path(target))
    return found


def _tree() -> Path:
    mounts = _mounts("cgroup2")
    if not mounts:
        raise LabError("no cgroup v2 tree is mounted on this machine: the lab's hosts need one")
    return mounts[0]


def _group(settings: Settings, name: str) -> Path:
    return _tree() / settings.bridge / name


def create(settings: Settings, name: str) -> Path:
    """Make a host's cgroup."""
    group = _group(settings, name)
    group.mkdir(parents=True, exist_ok=True)
    return group


def hosts(settings: Settings) -> list[str]:
    """Hosts that have a cgroup."""
    top = _tree() / settings.bridge
    return sorted(entry.name for entry in top.iterdir() if entry.is_dir()) if top.is_dir() else []


def processes(settings: Settings, name: str) -> list[int]:
    """PIDs of all processes of a host, those in its containers included."""
    group = _group(settings, name)
    found: list[int] = []
    if group.is_dir():
        # A cgroup may vanish while we look: walk() goes on then, rglob() would not.
        for directory, _directories, _files in os.walk(group):
            with contextlib.suppress(OSError):
                found += [int(line) for line in Path(directory, "cgroup.procs").read_text().split()]
    return sorted(set(found))


def kill(settings: Settings, name: str) -> None:
    """SIGKILL to every process of a host in one step, however fast they fork and whether or not they are frozen."""
    path = _group(settings, name) / "cgroup.kill"
    with contextlib.suppress(FileNotFoundError):
        path.write_text("1")


def remove(settings: Settings, name: str = "") -> None:
    """Remove the (empty) cgroups of a host, or of the whole lab, in every hierarchy."""
    for mount in [*_mounts("cgroup2"), *_mounts("cgroup")]:
        top = mount / settings.bridge
        target = top / name if name else top
        if target.is_dir():
            remove_tree(target)


def remove_tree(top: Path) -> None:
    """rmdir a cgroup and all below it. Those that hold processes stay."""
    for directory, _directories, _files in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
