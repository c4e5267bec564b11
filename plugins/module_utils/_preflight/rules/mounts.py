# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What stands in the way of moving what a container mounts, its volumes and its writable layer, as its own host tells it."""

from __future__ import annotations

import typing as t

from ..._docker.spec.mounts import mounts
from ..finding import ERROR, INFO, WARNING, Case, Told, rule

_Found = t.Iterator[Told]

_SHARED = ("shared", "rshared", "slave", "rslave")

# --------------------------------------------------------------------------------------------------------------- mounts


@rule(ERROR, "mounts that are neither volume, bind nor tmpfs", "by reading", "container")
def mount_type(case: Case) -> _Found:
    for mount in mounts(case.inspect):
        if mount.kind not in ("volume", "bind", "tmpfs"):
            yield (
                f"The mount at {mount.destination} is of the type {mount.kind}, which cannot be made again on another host.",
                "Re-create the container without it, then move it.",
            )


@rule(ERROR, "a tmpfs that came with `--volumes-from`", "by reading", "container")
def volumes_from_tmpfs(case: Case) -> _Found:
    for mount in mounts(case.inspect):
        if mount.kind == "tmpfs" and not mount.declared_by:
            yield (
                f"The tmpfs at {mount.destination} came with --volumes-from; its options are not known.",
                "Re-create the container with a --tmpfs of its own.",
            )


@rule(WARNING, "the engine's socket as a mount", "criu#301", "container")
def docker_socket(case: Case) -> _Found:
    for mount in mounts(case.inspect):
        if mount.kind == "bind" and mount.source.rsplit("/", 1)[-1] == "docker.sock":
            yield (
                f"The engine's socket is mounted at {mount.destination}; an open connection to it cannot be moved.",
                "Close the connection before the move; afterwards the container talks to the destination's engine.",
            )


@rule(WARNING, "mounts that propagate from or to the host", "criu#2023", "container")
def propagation(case: Case) -> _Found:
    for mount in mounts(case.inspect):
        if mount.kind == "bind" and mount.propagation in _SHARED:
            yield (
                f"The mount at {mount.destination} is {mount.propagation} with the host; CRIU refuses many such mounts.",
                "Use rprivate unless the propagation is needed.",
            )


@rule(INFO, "an anonymous volume, which keeps its name", "by reading", "container")
def anonymous_volume(case: Case) -> _Found:
    for mount in mounts(case.inspect):
        if mount.anonymous and mount.declared_by == "":
            yield (
                (
                    f"The anonymous volume at {mount.destination} is re-created under its name, so docker rm -v no "
                    "longer deletes it."
                ),
                "Delete it by name when the container is removed for good.",
            )


# ------------------------------------------------------------------------------------------------ what only its host knows


@rule(ERROR, "a volume that is a mount of something else", "run", "container")
def volume_unsupported(case: Case) -> _Found:
    for volume in (case.container or {}).get("volumes") or []:
        if volume["device"]:
            yield (
                (
                    f"Volume {volume['name']} is a mount of {volume['device']} on its host; its content is not where a volume's "
                    "content is."
                ),
                "Use a bind mount (see migrate_bind_mounts), or shared storage.",
            )


@rule(ERROR, "a volume that another running container uses", "run", "container")
def volume_in_use(case: Case) -> _Found:
    for volume in (case.container or {}).get("volumes") or []:
        if volume["kind"] == "volume" and volume["in_use_by"]:
            yield (
                (
                    f"Volume {volume['name']} is also used by the running container(s) "
                    f"{', '.join(volume['in_use_by'])}, which would "
                    "go on writing into the copy that stays."
                ),
                "Stop them, or give them a volume of their own.",
            )


@rule(WARNING, "a bind mount that moves and into which another container writes", "by reading", "container")
def bind_in_use(case: Case) -> _Found:
    for bind in (case.container or {}).get("volumes") or []:
        if bind["kind"] == "bind" and bind["travels"] and bind["in_use_by"]:
            yield (
                (
                    f"{bind['path']} is to be moved and is also mounted by the running container(s) "
                    f"{', '.join(bind['in_use_by'])}: "
                    "what they write while it is copied may be torn, and later it stays here."
                ),
                "Stop them, or leave it out of migrate_bind_mounts and provide it on the destination.",
            )


@rule(
    ERROR,
    "a path in migrate_bind_mounts that the container does not mount",
    "run",
    "container",
    variable="migrate_bind_mounts",
)
def bind_mount_unknown(case: Case) -> _Found:
    for path in (case.container or {}).get("unknown_binds") or []:
        yield (
            f"{path} is to be moved but is not a bind mount of the container.",
            "Mend migrate_bind_mounts: it takes paths of the host, as docker inspect shows them.",
        )


_NAMED = 4


@rule(
    ERROR,
    "what is mounted below a bind mount or volume",
    "criu/mount.c, criu/filesystems.c",
    "processes",
    volatile=True,
)
def mounts_below_bind(case: Case) -> _Found:
    # Facts of another version may have none.
    below = (case.container or {})["kernel_mounts"].get("below_binds") or []
    if below:
        places = ", ".join(f"{one['place']} ({one['kind']}, in {one['below']})" for one in below[:_NAMED])
        more = f" and {len(below) - _NAMED} more" if len(below) > _NAMED else ""
        yield (
            (
                f"File systems are mounted below bind mounts or volumes of the container: {places}{more}. A bind mount brings "
                "what is mounted below its directory on the host, and CRIU cannot mount that again, or takes the host's for the "
                "container's own."
            ),
            (
                "Re-create the container with no more than it needs of that directory, or with the directory alone: --mount "
                "type=bind,src=...,dst=...,bind-recursive=disabled (bind-nonrecursive=true before Docker 25). To bind the inner "
                "one as well is not enough. Unmount what its own programs have mounted there."
            ),
        )


@rule(ERROR, "a mount whose source was replaced on the host", "criu/mount-v2.c, run", "processes", volatile=True)
def mount_replaced(case: Case) -> _Found:
    restart = (
        "Restart the container (docker restart), so that it has what lies there now, and move it then. Where files are changed "
        "while it runs, mount the directory around them, or have them written in place."
    )
    for one in (case.container or {})["kernel_mounts"]["replaced"]:
        if one["gone"]:
            yield (
                (
                    f"{one['source']} was removed or replaced on the host after the container had started (editors, sed -i "
                    f"and templates write a new file): the container still has the old one at {one['place']}, and no path "
                    "leads to it."
                ),
                restart,
            )
        else:
            yield (
                (
                    f"What the container has at {one['place']} is not what lies at {one['source']} on the host any more: that "
                    "was renamed, replaced or mounted over after the container had started."
                ),
                restart,
            )


@rule(ERROR, "a writable layer that cannot be reached", "docs/support.md", "container")
def storage_unsupported(case: Case) -> _Found:
    error = (case.container or {}).get("storage_error")
    if error:
        yield str(error), "docs/support.md tells which storage can be moved."
