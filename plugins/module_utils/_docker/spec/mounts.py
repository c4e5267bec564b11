# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The mounts of a container, from inspect data: what is mounted where, and how to ask for the same again.

inspect tells mounts twice. ``HostConfig.Binds`` and ``HostConfig.Mounts`` are what was asked for, the top level
``Mounts`` is what came of it. Only the second has the names of anonymous volumes (VOLUME of the image, ``-v
/path``) and what ``--volumes-from`` brought along; only the first has modes and options in full. Neither has
``--tmpfs``: that is ``HostConfig.Tmpfs``.
"""

from __future__ import annotations

import posixpath
import re
import typing as t
from dataclasses import dataclass

JSON = dict[str, t.Any]
Inspect = t.Mapping[str, t.Any]

# The engine names anonymous volumes with a random id of 32 bytes.
_RANDOM_NAME = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Mount:
    """One mount of a container as the source has it."""

    #: volume, bind, tmpfs, and rarely image, cluster, npipe
    kind: str
    #: name of the volume; empty for other kinds
    name: str
    #: path on the source host; empty for tmpfs
    source: str
    #: path in the container, cleaned
    destination: str
    #: volume driver; empty for other kinds
    driver: str
    read_write: bool
    #: rprivate and so on for binds, else empty
    propagation: str
    #: options in the engine's form: "z", "ro,Z"; of a HostConfig.Tmpfs its mount options
    mode: str
    #: where it was asked for: Binds, Mounts or Tmpfs; empty: nowhere by name (image, anonymous, --volumes-from)
    declared_by: str

    @property
    def anonymous(self) -> bool:
        """Whether the engine chose the volume's name."""
        return self.kind == "volume" and _RANDOM_NAME.match(self.name) is not None


def clean(path: str) -> str:
    """A container path the way the engine cleans it (Go's path.Clean)."""
    return "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else posixpath.normpath(path)


def bind_destination(bind: str) -> str | None:
    """Destination of an entry of HostConfig.Binds (``SOURCE:DESTINATION[:MODE]``).

    None for a bare destination: that is an anonymous volume (ParseMountRaw in moby's volume/mounts/linux_parser.go).
    """
    parts = bind.split(":")
    return clean(parts[1]) if len(parts) > 1 else None


def _declared(host: Inspect) -> dict[str, str]:
    """Destination -> where a mount was asked for by name."""
    declared: dict[str, str] = {}
    for bind in host.get("Binds") or []:
        destination = bind_destination(bind)
        if destination is not None:
            declared[destination] = "Binds"
    for mount in host.get("Mounts") or []:
        if mount.get("Source") or mount.get("Type") != "volume":
            declared[clean(mount.get("Target") or "")] = "Mounts"
    return declared


def mounts(inspect: Inspect) -> list[Mount]:
    """Every mount of the container except those of the engine itself (/etc/hosts, /dev/shm ...), by destination.

    :param inspect: data of ``GET /containers/ID/json`` (API 1.40 or newer)
    """
    host = inspect.get("HostConfig") or {}
    declared = _declared(host)
    found = []
    for mount in inspect.get("Mounts") or []:
        destination = clean(mount.get("Destination") or "")
        kind = mount.get("Type") or ("volume" if mount.get("Name") else "bind")
        found.append(
            Mount(
                kind=kind,
                name=(mount.get("Name") or "") if kind in ("volume", "cluster", "image") else "",
                source=mount.get("Source") or "",
                destination=destination,
                driver=mount.get("Driver") or "",
                read_write=bool(mount.get("RW")),
                propagation=mount.get("Propagation") or "",
                mode=mount.get("Mode") or "",
                declared_by=declared.get(destination, ""),
            )
        )
    for destination, options in (host.get("Tmpfs") or {}).items():
        found.append(
            Mount(
                kind="tmpfs",
                name="",
                source="",
                destination=clean(destination),
                driver="",
                read_write="ro" not in options.split(","),
                propagation="",
                mode=options,
                declared_by="Tmpfs",
            )
        )
    return sorted(found, key=lambda mount: mount.destination)


def _mount_request(mount: Mount) -> JSON:
    """The HostConfig.Mounts entry for a mount that was not asked for by name."""
    request: JSON = {"Type": mount.kind, "Target": mount.destination}
    if not mount.read_write:
        request["ReadOnly"] = True
    if mount.kind == "volume":
        request["Source"] = mount.name
        # NoCopy: the content comes from the source. Without it the engine fills an empty volume from the image at
        # create, and files that the container had deleted there would be back.
        request["VolumeOptions"] = {"NoCopy": True}
        if mount.driver not in ("", "local"):
            request["VolumeOptions"]["DriverConfig"] = {"Name": mount.driver}
    elif mount.kind == "bind":
        request["Source"] = mount.source
        if mount.propagation:
            request["BindOptions"] = {"Propagation": mount.propagation}
    return request


def requested_binds(inspect: Inspect) -> list[str] | None:
    """HostConfig.Binds to send: without bare destinations, which requested_mounts() names."""
    binds = (inspect.get("HostConfig") or {}).get("Binds")
    return None if binds is None else [bind for bind in binds if bind_destination(bind) is not None]


def requested_mounts(inspect: Inspect) -> list[JSON]:
    """HostConfig.Mounts to send: what was asked for, and by name whatever nobody named."""
    by_destination = {mount.destination: mount for mount in mounts(inspect)}
    requests = []
    for entry in (inspect.get("HostConfig") or {}).get("Mounts") or []:
        mount = by_destination.get(clean(entry.get("Target") or ""))
        if entry.get("Type") == "volume" and not entry.get("Source") and mount is not None:
            # --mount type=volume,target=/x: options stay, the name is filled in.
            options = dict(entry.get("VolumeOptions") or {})
            options["NoCopy"] = True
            requests.append(dict(entry, Source=mount.name, VolumeOptions=options))
        else:
            requests.append(entry)
    named = {clean(entry.get("Target") or "") for entry in requests}
    requests.extend(
        _mount_request(mount)
        for mount in by_destination.values()
        if not mount.declared_by and mount.destination not in named
    )
    return requests
