# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the destination has at the places of a container's volumes and bind mounts: pure rules."""

from __future__ import annotations

import os
import typing as t

from ..._docker import volumes as docker_volumes
from ..._host import system_directories
from ..finding import ERROR, WARNING, Case, Facts, Told, rule

_Found = t.Iterator[Told]


def _foreign(what: str) -> Told:
    return (
        f"The {what} on the destination has content that no earlier move of this container put there.",
        "Remove it, or set migrate_overwrite_data: true to have it replaced.",
    )


@rule(
    ERROR,
    "data on the destination that is not the container's",
    "run",
    "container",
    "there",
    variable="migrate_overwrite_data",
)
def foreign_data(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        if not entry["travels"] or case.settings.overwrite_data:
            continue
        if entry["kind"] == "volume":
            if (there["volumes"].get(entry["name"]) or {}).get("has_content"):
                yield _foreign(f"volume {entry['name']}")
        elif there["binds"][os.path.normpath(entry["path"])]["has_content"]:
            yield _foreign(f"{entry['form']} {os.path.normpath(entry['path'])}")


def _taken(what: str, sessions: t.Sequence[str]) -> Told:
    return (
        f"Another move (session {', '.join(sessions)}) is bringing its data into {what} of the destination just now.",
        (
            "Wait until that one is over (playbooks/recover.yml shows it, and settles one that was given up), and see that the "
            "two do not have the same place."
        ),
    )


@rule(
    ERROR, "a volume that containers or other moves of the destination use", "run", "container", "there", volatile=True
)
def volume_used_there(case: Case) -> _Found:
    _container, there = case.both_sides()
    for name, found in there["volumes"].items():
        if found and found["used_by"]:
            yield (
                f"Volume {name} on the destination is used by the container(s) {', '.join(found['used_by'])} there.",
                "Remove them, or give them another volume.",
            )
    for name, sessions in there["taken_by"].items():
        if not name.startswith("/"):
            yield _taken(f"volume {name}", sessions)


@rule(
    ERROR,
    "a bind mount that running containers or other moves of the destination use",
    "by reading",
    "container",
    "there",
    volatile=True,
)
def bind_used_there(case: Case) -> _Found:
    _container, there = case.both_sides()
    for path, found in there["binds"].items():
        if found.get("used_by"):
            yield (
                (
                    f"{path} is used by the running container(s) {', '.join(found['used_by'])} of the destination, which mount "
                    "it, something in it, or a directory above it to write there: the move would delete files under them."
                ),
                (
                    "Stop them, or have them mount another directory (one above it read-only). If the files there are to stay, "
                    "take it out of migrate_bind_mounts."
                ),
            )
    for path, sessions in there["taken_by"].items():
        if path.startswith("/"):
            yield _taken(path, sessions)


@rule(ERROR, "a volume of the same name and another kind", "run", "container", "there")
def volume_differs(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        found = there["volumes"].get(entry["name"]) if entry["kind"] == "volume" and entry["travels"] else None
        if found and (found["driver"] != "local" or found["options"] != entry["options"]):
            yield (
                f"The destination has a volume {entry['name']} of another kind (driver {found['driver']}, or other options).",
                "Remove it there, or make it as it is on the source.",
            )
        # Two hosts may call one share by two names. What is on the destination's own disk is no share.
        stays = there["volumes"].get(entry["name"]) if entry["kind"] == "volume" and not entry["travels"] else None
        if (
            stays
            and stays["driver"] == "local"
            and (stays["driver"], stays["options"]) != (entry["driver"], entry["options"])
            and not stays.get("shared", True)
        ):
            yield (
                (
                    f"Volume {entry['name']} is on other storage on the source (shared, or of the driver {entry['driver']}), "
                    "and the destination has a volume of that name on its own disk: the copy would go on with other data."
                ),
                "Remove it there, or make it as it is on the source.",
            )


@rule(
    ERROR,
    "a bind mount whose source the destination lacks",
    "run",
    "container",
    "there",
    variable="migrate_bind_mounts",
)
def bind_mount_missing(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        if entry["kind"] == "bind" and not entry["travels"] and not there["binds"][path]["exists"]:
            yield (
                f"The container mounts {path} of its host at {entry['destination']}; that does not exist on the destination.",
                "Provide it there, or name it in migrate_bind_mounts to have its content moved."
                if entry["form"] in (docker_volumes.DIRECTORY, docker_volumes.FILE)
                else "Provide it there; it is neither a directory nor a file of the same name, so its content cannot be moved.",
            )


def _is_other_file(entry: Facts, found: Facts) -> bool:
    """Whether what is to become a file is a link or a device there: it would be replaced, not what it leads to."""
    return bool(entry["form"] == docker_volumes.FILE and (found["leads_to"] or not found["is_file"]))


@rule(ERROR, "a bind mount into which no migration writes", "run", "container", "there")
def bind_mount_refused(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        if entry["kind"] != "bind" or not entry["travels"]:
            continue
        found = there["binds"][path]
        remedy = "Leave it out of migrate_bind_mounts and provide it on the destination."
        if path in system_directories.DIRECTORIES:
            yield f"{path} is a directory of the host itself; a migration does not write there.", remedy
        elif found.get("host_directory"):
            yield (
                (
                    f"What arrives at {path} would be written into {found['host_directory']} of the destination, because a link "
                    "or a mount leads there. That is a directory of the host itself; a migration does not write there."
                ),
                remedy,
            )
        elif entry["form"] not in (docker_volumes.DIRECTORY, docker_volumes.FILE):
            yield (
                (
                    f"{path} is neither a directory nor a file of that name on the source (a socket, a device, a link to another "
                    "name); only these have content that can be moved."
                ),
                remedy,
            )
        elif found["exists"] and (
            found["is_directory"] != (entry["form"] == docker_volumes.DIRECTORY) or _is_other_file(entry, found)
        ):
            yield f"{path} is a {entry['form']} on the source and something else on the destination.", remedy
        elif found["exists"] and entry.get("reaches_shared") and found.get("reaches_shared"):
            yield (
                (
                    f"{path} is on storage that is shared between hosts, or has some mounted in it, on the source and on the "
                    "destination: what arrived there would delete and replace the files that the container is using."
                ),
                remedy,
            )


@rule(WARNING, "a volume of a plugin, whose content stays", "by reading", "container", "there")
def volume_stays(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        if entry["kind"] == "volume" and not entry["travels"] and not entry["shared"]:
            found = (
                "The destination has one of that name." if there["volumes"].get(entry["name"]) else "It is made there."
            )
            yield (
                (
                    f"Volume {entry['name']} is of the driver {entry['driver']}, and only that knows whether both hosts see the "
                    f"same content. Nothing of it is sent. {found}"
                ),
                "See that the driver has the content on the destination too, or copy it there yourself before the move.",
            )


@rule(WARNING, "a bind mount whose content stays", "run", "container", "there", variable="migrate_bind_mounts")
def bind_mount_stays(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        if entry["kind"] == "bind" and not entry["travels"] and not entry["shared"] and there["binds"][path]["exists"]:
            yield (
                (
                    f"The container goes on with what lies at {path} on the destination; a file that it has open there "
                    "has to be the same."
                ),
                "See that both are the same, or name it in migrate_bind_mounts to have its content moved."
                if entry["form"] in (docker_volumes.DIRECTORY, docker_volumes.FILE)
                else "See that both are the same.",
            )
