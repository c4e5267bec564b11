# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The mounts of a container: where, of which kind, with which options and in which order above each other.

CRIU mounts all of them again, those that were made, changed or taken away inside too. Options of a mount that it loses are set
again (CRIU 4.1.1: a part of a file system that is mounted strictatime, as /dev/null is over /proc/keys, comes back relatime).
Of a volume or bind mount its place and its own options are compared: the file system is the host's, and so are the mounts that
may lie below it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import typing as t

from .._docker import host_files
from .._host import namespaces, process_resources
from .._host.mountinfo import unescape
from .side import Side

NAME = "mounts"
OF_PROCESSES = False

# Options of a file system that its user has chosen, by kind; others are the kernel's. Only of those that are the container's own.
_OPTIONS = {
    "tmpfs": re.compile(r"size|mode|uid|gid|nr_inodes|ro|rw"),
    "devpts": re.compile(r"mode|uid|gid|ptmxmode|ro|rw"),
    "proc": re.compile(r"hidepid|gid|subset|ro|rw"),
    "mqueue": re.compile(r"ro|rw"),
}
_PROPAGATION = ("shared", "master", "unbindable")

# By sys/mount.h: options of a mount, by the words of the kernel's table of mounts.
_FLAGS = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "nosymfollow": 256,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
_MS_REMOUNT, _MS_BIND, _MS_STRICTATIME = 32, 4096, 1 << 24

#: kind, options of the mount, how it is propagated, options of its file system; empty what is the host's
Look = list[str]


def look_ahead(side: Side) -> t.Any:
    """Nothing: programs may mount until the freeze."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """The mounts that the first process sees, by place, and which of these places are volumes and bind mounts."""
    external = external_places(side)
    return {"external": external, "looks": _read(side.init, external)}


def external_places(side: Side) -> list[str]:
    """The places of volumes and bind mounts, as the kernel has them.

    :raises OSError: where the engine's record of the container cannot be read.
    """
    with open(os.path.join(side.directory, "config.v2.json"), encoding="utf-8") as handle:
        points = (json.load(handle).get("MountPoints") or {}).items()
    places = [place for place, point in points if (point or {}).get("Type") != "tmpfs"]
    # The kernel tells where a mount is, not by which link its place was named (/var/run is one in most images).
    links = host_files.real_places(f"/proc/{side.init}/root", places)
    return sorted(links.get(place, place) for place in places)


def _read(init: int, external: t.Sequence[str]) -> dict[str, list[Look]]:
    text = process_resources.read(f"/proc/{init}/mountinfo")
    if not text:
        raise OSError(f"the mounts of process {init} cannot be read")
    return looks_of(text, external)


def looks_of(mountinfo: str, external: t.Sequence[str] = ()) -> dict[str, list[Look]]:
    """What there is at each place, the lowest first.

    :param external: places of volumes and bind mounts.
    """
    found: dict[str, list[tuple[str, str, Look]]] = {}
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, its = left.split(), right.split()
        if not separator or len(fields) < 6 or len(its) < 3:
            continue
        number, parent, _device, root, place, options = fields[:6]
        if any(place.startswith(f"{one.rstrip('/')}/") for one in external):
            continue
        kept = [field.partition(":")[0] for field in fields[6:]]
        propagation = ",".join(field for field in kept if field in _PROPAGATION)
        chosen = _OPTIONS.get(its[0]) if root == "/" else None
        own = [one for one in its[2].split(",") if chosen and chosen.fullmatch(one.partition("=")[0])]
        look = [its[0], ",".join(sorted(options.split(","))), propagation, ",".join(sorted(own))]
        if place in external:
            look = ["", look[1], "", ""]
        elif root != "/" or its[0].startswith("cgroup"):
            # A part of another file system: one of the engine's files, what covers a place below /proc, a cgroup.
            look = ["", look[1], look[2], ""]
        found.setdefault(place, []).append((number, parent, look))
    return {place: _stacked(entries) for place, entries in found.items()}


def _stacked(entries: list[tuple[str, str, Look]]) -> list[Look]:
    """Mounts at one place, the lowest first: each is mounted on the one below it. The kernel lists them in any order."""
    parents = {number: parent for number, parent, _look in entries}

    def height(number: str) -> int:
        steps = 0
        while parents.get(number) in parents and steps < len(parents):
            number, steps = parents[number], steps + 1
        return steps

    return [look for _number, _parent, look in sorted(entries, key=lambda entry: height(entry[0]))]


def carry(side: Side, source: t.Any) -> None:
    """Give mounts the options that they have on the source. Of several at one place only the uppermost can be reached.

    Only while the copy is held. A mount is named by its path, in which a program that runs may put a link meanwhile: another
    mount would get the options, and one of the host's file systems might be read-only no more.
    """
    if not side.group.frozen:
        return
    wanted = other_options(source["looks"], _read(side.init, source["external"]))
    if wanted:
        namespaces.inside(side.init, ["mnt"], lambda: _set_options(wanted))


def other_options(source: t.Mapping[str, t.Sequence[Look]], copy: t.Mapping[str, t.Sequence[Look]]) -> dict[str, str]:
    """The options that a mount of the copy should have, by the places where it has others."""
    return {
        place: was[-1][1]
        for place, was in source.items()
        if len(copy.get(place, ())) == len(was) and copy[place][-1][1] != was[-1][1]
    }


def _set_options(wanted: t.Mapping[str, str]) -> None:
    """In the mount namespace of the copy. What fails is found by the comparison."""
    for place, options in wanted.items():
        with contextlib.suppress(KeyError, OSError):
            path = os.fsencode(unescape(place))
            namespaces.call("mount", None, path, None, _MS_REMOUNT | _MS_BIND | flags(options), None)


def flags(options: str) -> int:
    """The flags of mount(2) for the options of a mount, as /proc/PID/mountinfo has them.

    :raises KeyError: for an option that mount(2) does not know.
    """
    options_set = set(options.split(",")) - {"rw"}
    found = 0 if options_set & {"noatime", "relatime"} else _MS_STRICTATIME
    for option in options_set:
        found |= _FLAGS[option]
    return found


def compare(side: Side, source: t.Any) -> list[str]:
    """The places at which not the same is mounted as on the source."""
    return differences(source["looks"], _read(side.init, source["external"]))


def differences(source: t.Mapping[str, t.Sequence[Look]], copy: t.Mapping[str, t.Sequence[Look]]) -> list[str]:
    """What differs, for a person: kinds and options of mounts are no secrets."""
    found = []
    for place in sorted({*source, *copy}):
        was, now = source.get(place), copy.get(place)
        if was == now:
            continue
        if not now or not was:
            found.append(f"the mount at {place} is {'missing' if not now else 'new'}")
        else:
            found.append(f"the mount at {place} is {_describe(now)}, not {_describe(was)}")
    return found


def _describe(looks: t.Sequence[Look]) -> str:
    return " over ".join(" ".join(part for part in look if part) for look in reversed(looks))
