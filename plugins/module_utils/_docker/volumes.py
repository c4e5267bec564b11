# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The volumes and bind mounts of a container on its host: where they lie, whether their content travels, who else uses them."""

from __future__ import annotations

import os
import stat
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._host import filesystems
from .socket import Asks
from .spec import mounts as spec_mounts

Inspect = t.Mapping[str, t.Any]

# What lies at a path of the host, as far as it decides whether it can travel.
DIRECTORY, FILE, OTHER, MISSING = "directory", "file", "other", "missing"


def of_container(engine: Asks, inspect: Inspect, bind_mounts: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """The container's volumes and bind mounts, each with whether its content travels, and who else uses it.

    :param bind_mounts: host paths of bind mounts whose content travels.
    :raises MigrationError: ``bind_mount_unknown``.
    """
    found: list[dict[str, t.Any]] = []
    writers: list[dict[str, t.Any]] | None = None
    for mount in spec_mounts.mounts(inspect):
        if mount.kind == "volume":
            found.append(_volume(engine, inspect, mount))
        elif mount.kind == "bind":
            named = any(os.path.normpath(path) == os.path.normpath(mount.source) for path in bind_mounts)
            if named and writers is None:
                writers = engine.containers(running=True)
            found.append(
                {
                    "kind": "bind",
                    "name": mount.source,
                    "path": mount.source,
                    "destination": mount.destination,
                    "travels": named,
                    "shared": filesystems.is_shared(durable.filesystem_type(mount.source), {}),
                    "reaches_shared": named and filesystems.reaches_shared(mount.source),
                    "form": form_of(mount.source),
                    "in_use_by": _writers(writers or [], mount.source, inspect["Id"]) if named else [],
                    "device": "",
                    "create": None,
                }
            )
    for wanted in bind_mounts:
        if not any(
            entry["kind"] == "bind" and entry["travels"] for entry in found if entry["path"] == os.path.normpath(wanted)
        ):
            raise MigrationError(
                "bind_mount_unknown",
                f"{wanted} is to be moved but is not a bind mount of container {inspect['Name'].lstrip('/')}.",
                path=wanted,
            )
    return found


def _volume(engine: Asks, inspect: Inspect, mount: spec_mounts.Mount) -> dict[str, t.Any]:
    details = engine.find_volume(mount.name) or {}
    shared = filesystems.is_shared(durable.filesystem_type(mount.source), details.get("Options") or {})
    users = [
        other["Names"][0].lstrip("/")
        for other in engine.containers({"volume": mount.name}, running=True)
        if other["Id"] != inspect["Id"]
    ]
    return {
        "kind": "volume",
        "name": mount.name,
        "path": mount.source,
        "destination": mount.destination,
        "travels": (details.get("Driver") or mount.driver) == "local" and not shared,
        "shared": shared,
        "form": DIRECTORY,
        "in_use_by": [] if shared else users,
        "device": "" if shared else (details.get("Options") or {}).get("device", ""),
        "created_at": str(details.get("CreatedAt") or ""),
        "create": {
            "Name": mount.name,
            "Driver": details.get("Driver") or mount.driver or "local",
            "DriverOpts": details.get("Options") or {},
            "Labels": details.get("Labels") or {},
        },
    }


def _writers(containers: t.Iterable[t.Mapping[str, t.Any]], path: str, own: str) -> list[str]:
    """The running containers that mount a directory, or something in it, to write there."""
    inside = path.rstrip("/") + "/"
    return [
        other["Names"][0].lstrip("/")
        for other in containers
        if other["Id"] != own
        and any(
            mount.get("Type") == "bind"
            and mount.get("RW")
            and f"{mount.get('Source', '').rstrip('/')}/".startswith(inside)
            for mount in other.get("Mounts") or []
        )
    ]


def form_of(path: str) -> str:
    """What a path is; a link is what it leads to, but as a file it must have the same name: it arrives under that."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return MISSING
    if stat.S_ISDIR(mode):
        return DIRECTORY
    same_name = os.path.basename(os.path.realpath(path)) == os.path.basename(path)
    return FILE if stat.S_ISREG(mode) and same_name else OTHER
