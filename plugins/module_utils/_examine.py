# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What of a running container stands in the way of moving it, as far as its own host can tell."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _durable, _names, _spec, _trees
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

Inspect = dict[str, t.Any]


def examine(engine: Engine, container: str) -> tuple[Inspect, list[dict[str, str]]]:
    """A running container's inspect data, and why it cannot be moved, if so.

    :raises MigrationError: ``container_not_found``, ``container_not_running``.
    """
    inspect = engine.inspect(_names.container_name(container))
    TaskGroup.of_container(inspect)
    # ExecIDs come and go with every health check; what is really in the way are processes, looked for here and again after
    # the freeze.
    transient = {"exec_sessions"}
    findings = [finding._asdict() for finding in _spec.refusals(inspect) if finding.code not in transient]
    foreign = _lasting_foreign(TaskGroup.of_container(inspect), int(inspect["State"]["Pid"]))
    if foreign:
        findings.append(
            {
                "code": "exec_session_running",
                "message": f"Processes entered through docker exec are running in it: {', '.join(foreign)}. They are not part of "
                "a checkpoint.",
                "remedy": "End them.",
            }
        )
    rings = TaskGroup.of_container(inspect).with_io_uring()
    if rings:
        findings.append(
            {
                "code": "io_uring_in_use",
                "message": f"These programs in it use io_uring, which CRIU cannot checkpoint: {', '.join(rings)}.",
                "remedy": "Start the container with Docker's own seccomp profile, which forbids io_uring (not privileged, not "
                "seccomp=unconfined), or have the program do without (MariaDB: --innodb-use-native-aio=0).",
            }
        )
    with contextlib.suppress(MigrationError):
        for volume in volumes(engine, inspect, ()):
            if volume["device"]:
                findings.append(
                    {
                        "code": "volume_unsupported",
                        "message": f"Volume {volume['name']} is a mount of {volume['device']} on its host; its content is not "
                        "where a volume's content is.",
                        "remedy": "Use a bind mount (see migrate_bind_mounts), or shared storage.",
                    }
                )
            if volume["in_use_by"]:
                findings.append(
                    {
                        "code": "volume_in_use",
                        "message": f"Volume {volume['name']} is also used by the running container(s) "
                        f"{', '.join(volume['in_use_by'])}, which would go on writing into the copy that stays.",
                        "remedy": "Stop them, or give them a volume of their own.",
                    }
                )
    try:
        _trees.upper_directory(inspect)
    except MigrationError as exc:
        findings.append(
            {"code": exc.code, "message": exc.message, "remedy": "docs/support.md tells which storage can be moved."}
        )
    return inspect, findings


def _lasting_foreign(group: TaskGroup, init: int) -> list[str]:
    """Processes of ``docker exec`` that do not end within a second, as those of a health check do."""
    deadline = time.monotonic() + 1.0
    while True:
        foreign = group.foreign(init)
        if not foreign or time.monotonic() >= deadline:
            return foreign
        time.sleep(0.1)


def require_movable(engine: Engine, container: str) -> Inspect:
    """The inspect data of a container that can be moved as far as its own host can tell.

    :raises MigrationError: ``cannot_move`` with all findings at once, or as :func:`examine`.
    """
    inspect, findings = examine(engine, container)
    if findings:
        text = " ".join(f"{finding['message']} {finding['remedy']}" for finding in findings)
        raise MigrationError("cannot_move", f"Container {container} cannot be moved: {text}", findings=findings)
    return inspect


def volumes(engine: Engine, inspect: Inspect, bind_mounts: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """The container's volumes and bind mounts, each with whether its content travels."""
    found: list[dict[str, t.Any]] = []
    for mount in _spec.mounts(inspect):
        if mount.kind == "volume":
            details = engine.find_volume(mount.name) or {}
            shared = _trees.is_shared(_durable.filesystem_type(mount.source), details.get("Options") or {})
            users = [
                other["Names"][0].lstrip("/")
                for other in engine.containers({"volume": mount.name}, running=True)
                if other["Id"] != inspect["Id"]
            ]
            found.append(
                {
                    "kind": "volume",
                    "name": mount.name,
                    "path": mount.source,
                    "destination": mount.destination,
                    "travels": (details.get("Driver") or mount.driver) == "local" and not shared,
                    "shared": shared,
                    "in_use_by": [] if shared else users,
                    "device": "" if shared else (details.get("Options") or {}).get("device", ""),
                    "create": {
                        "Name": mount.name,
                        "Driver": details.get("Driver") or mount.driver or "local",
                        "DriverOpts": details.get("Options") or {},
                        "Labels": details.get("Labels") or {},
                    },
                }
            )
        elif mount.kind == "bind":
            named = any(os.path.normpath(path) == os.path.normpath(mount.source) for path in bind_mounts)
            found.append(
                {
                    "kind": "bind",
                    "name": mount.source,
                    "path": mount.source,
                    "destination": mount.destination,
                    "travels": named,
                    "shared": _trees.is_shared(_durable.filesystem_type(mount.source), {}),
                    "in_use_by": [],
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
