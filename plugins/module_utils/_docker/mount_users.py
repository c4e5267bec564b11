# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which containers of this host mount a directory, a file or a volume: whoever overwrites or removes one asks here first."""

from __future__ import annotations

import os
import typing as t

from .._host import filesystems, mountinfo
from .socket import Asks


class Use(t.NamedTuple):
    """A mount of a container."""

    container: str
    """Its name."""
    path: str
    """What it mounts of this host, with all links followed."""
    writes: bool
    """Whether it may write there."""
    volume: str = ""
    """The name of the volume, where it is one."""


def within(path: str, tree: str) -> bool:
    """Whether a path is a directory or something in it; both with all links followed."""
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def _remote_places() -> tuple[str, ...]:
    """The beginnings of paths that lead to other hosts, of which one may be down: to resolve one would wait for it."""
    remote = (
        one
        for one in mountinfo.of_host()
        if one.kind in filesystems.SHARED_FILESYSTEMS or one.kind.startswith(("fuse", "autofs"))
    )
    return tuple(one.place.rstrip("/") + "/" for one in remote)


def _places(
    asks: Asks, mount: t.Mapping[str, t.Any], volumes: dict[str, list[str]], remote: tuple[str, ...]
) -> list[str]:
    """What a mount is on this host: the engine does not tell where a volume lies as long as its container has not run."""
    found = [str(mount.get("Source") or "")]
    name = str(mount.get("Name") or "")
    # A driver that is no part of the engine has its own idea of where, and may be down: its volumes count by their names.
    if name and mount.get("Type") == "volume" and (mount.get("Driver") or "local") == "local":
        if name not in volumes:
            volume = asks.find_volume(name) or {}
            # A volume may be another name for a directory of the host (type=none,o=bind,device=/srv/data).
            volumes[name] = [volume.get("Mountpoint") or "", str((volume.get("Options") or {}).get("device") or "")]
        found += volumes[name]
    return sorted(
        {
            os.path.normpath(one) if (one + "/").startswith(remote) else os.path.realpath(one)
            for one in found
            if one.startswith("/")
        }
    )


def uses(asks: Asks, own: t.Container[str] = (), *, running: bool = False) -> list[Use]:
    """All mounts of the containers of this host.

    :param own: ids of containers that do not count.
    :param running: whether only those count that run; one that is paused or restarts does.
    """
    volumes: dict[str, list[str]] = {}
    remote = _remote_places()
    return [
        Use(
            (one.get("Names") or [one["Id"][:12]])[0].lstrip("/"),
            path,
            bool(mount.get("RW", True)),
            str(mount.get("Name") or "") if mount.get("Type") == "volume" else "",
        )
        for one in asks.containers(running=running)
        if one["Id"] not in own
        for mount in one.get("Mounts") or []
        for path in _places(asks, mount, volumes, remote)
    ]


def overwritten(found: t.Iterable[Use], path: str, *, own: bool = False) -> list[str]:
    """The containers that see it when the content of a path is replaced, or that may write there meanwhile.

    :param own: whether the content is the container's own already. Then only those count that may write: who reads it goes on
        reading what the container writes, as before the container left.

    One that mounts a directory further up only to read it counts for nothing, nor does one that mounts the whole host: that is
    for agents that watch or manage it, and writing into this very place is no work of theirs.
    """
    real = os.path.realpath(path)

    def may_write(one: Use) -> bool:
        return one.writes and one.path != "/" and within(real, one.path)

    return sorted(
        {one.container for one in found if (within(one.path, real) and (one.writes or not own)) or may_write(one)}
    )
