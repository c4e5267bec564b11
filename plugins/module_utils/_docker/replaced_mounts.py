# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Mounts of a container whose source on the host is not what it was when the container started.

A bind mount holds the file or directory itself, not its path. An editor, ``sed -i`` or a template module write a new file and
give it the old one's name; the container goes on with the old one. CRIU cannot mount what no path leads to, and what would
travel or is mounted on the destination is another file than the one that the container sees.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._host.mountinfo import KernelMount

# How the kernel marks, in mountinfo, a mount of something that has lost its last name.
_DELETED = "//deleted"
_ENGINE_PID = "/run/docker.pid"


class Replaced(t.NamedTuple):
    """A mount of something that is not at its path any more."""

    place: str
    """Where it is in the container."""
    source: str
    """What the host's path is, or was."""
    gone: bool
    """Whether no path at all leads to it."""


def deleted(mounts: t.Iterable[KernelMount], sources: t.Mapping[str, str]) -> list[Replaced]:
    """The mounts whose source has no name any more.

    :param sources: the host's paths by the places at which the container mounts them.
    """
    return [
        Replaced(one.place, sources.get(one.place) or one.root[: -len(_DELETED)], gone=True)
        for one in mounts
        if one.root.endswith(_DELETED)
    ]


def _engine_root() -> str:
    """What stands before a path so that it means what the engine means by it: the engine may have mounts of its own."""
    with contextlib.suppress(OSError, ValueError):
        with open(_ENGINE_PID, encoding="ascii") as handle:
            pid = int(handle.read())
        if os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            return f"/proc/{pid}/root"
    return ""


def renamed(mounts: t.Iterable[KernelMount], sources: t.Mapping[str, str], init: int) -> list[Replaced]:
    """The mounts that have a name still, but whose own path leads to something else.

    :param sources: see :func:`deleted`.
    :param init: the container's first process, as this host numbers it.
    """
    root = _engine_root()
    found = []
    every = list(mounts)
    places = [one.place for one in every]
    for one in every:
        source = sources.get(one.place)
        # What a program has mounted on top of it is another rule's business.
        if not source or one.root.endswith(_DELETED) or places.count(one.place) > 1:
            continue
        try:
            inside = os.stat(f"/proc/{init}/root{one.place}")
        except OSError:
            continue
        try:
            outside: os.stat_result | None = os.stat(root + source)
        except OSError:
            outside = None
        if outside is None or (inside.st_dev, inside.st_ino) != (outside.st_dev, outside.st_ino):
            found.append(Replaced(one.place, source, gone=False))
    return found
