# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Writable layers in containerd's image store (``features.containerd-snapshotter``), which inspect does not show.

There a container's layer is the active snapshot that bears the container's id. It is made when the container is created, and
its upper directory stays the same until the container is removed, whether it runs or not. Of a container that runs the
kernel's table of mounts tells it at once; of one that was only created, or has ended, containerd has to be asked.
"""

from __future__ import annotations

import os
import re

from .._base import valid_names
from .._base.command import Runner, run
from .._base.errors import MigrationError

# The only snapshotter whose layers are overlayfs' upper directories, and with it what the engine calls its storage driver.
SNAPSHOTTER = "overlayfs"
# Of the system's containerd, and of one that dockerd has started for itself.
SOCKETS = ("/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")
# Where dockerd keeps its things in containerd.
_NAMESPACE = "moby"
_ASK_TIMEOUT = 30.0


def parse_mountinfo(mountinfo: str, container_id: str) -> str | None:
    """A running container's upper directory out of /proc/self/mountinfo; None where it is not there, or not unmistakably."""
    found = set()
    for line in mountinfo.splitlines():
        fields, _dash, rest = line.partition(" - ")
        mounted = fields.split(" ")
        kind = rest.split(" ")
        # A bind mount of something below the container's root shows the same file system, but another root of it.
        if len(mounted) < 5 or len(kind) < 3 or kind[0] != "overlay" or mounted[3] != "/":
            continue
        if container_id in mounted[4].split("/"):
            upper = _option(kind[2], "upperdir")
            # The kernel writes blanks and the like as octal numbers.
            found.add(upper and re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), upper))
    return found.pop() if len(found) == 1 else None


def parse_mounts(output: str) -> str | None:
    """A snapshot's upper directory out of ``ctr snapshots mounts``; None where it has none.

    It prints a command: ``mount -t overlay overlay TARGET -o workdir=...,upperdir=...,lowerdir=...``.
    """
    for line in output.splitlines():
        command, _blank, options = line.partition(" -o ")
        if command.startswith("mount -t overlay "):
            return _option(options.strip(), "upperdir")
    return None


def _option(options: str, name: str) -> str | None:
    for option in options.split(","):
        key, _equals, value = option.partition("=")
        if key == name and value:
            return value
    return None


def upper_directory(container_id: str, runner: Runner = run) -> str:
    """Where the writable layer of a container lies on this host; the container may run, have ended, or never have run.

    :raises MigrationError: ``snapshot_not_found`` when containerd does not tell, ``program_missing`` without ``ctr``.
    """
    container_id = valid_names.container_id(container_id)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as handle:
        upper = parse_mountinfo(handle.read(), container_id)
    if upper is not None and not os.path.isdir(upper):
        # Commas and colons have escapes of overlayfs' own there.
        upper = None
    answers: list[str] = []
    for socket in SOCKETS:
        if upper is None and os.path.exists(socket):
            argv = ["ctr", "--address", socket, "--namespace", _NAMESPACE, "snapshots", "--snapshotter", SNAPSHOTTER]
            # It prints how one would mount the snapshot there, and mounts nothing.
            done = runner([*argv, "mounts", "/livemigrate", container_id], timeout=_ASK_TIMEOUT)
            upper = parse_mounts(done.stdout) if done.rc == 0 else None
            answers.append(f"{socket}: {done.output or 'no output'}")
    if upper is None or not os.path.isdir(upper):
        why = "; ".join(answers) or f"no containerd listens on {' or '.join(SOCKETS)}"
        if upper:
            why = f"{upper} is no directory"
        raise MigrationError(
            "snapshot_not_found",
            f"The writable layer of container {container_id[:12]} cannot be found in containerd's image store ({why}).",
            container_id=container_id,
        )
    return upper
