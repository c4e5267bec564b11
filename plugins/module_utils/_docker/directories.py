# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Where the directories of a container lie on a host: the writable layer, the engine's own, checkpoints, the log."""

from __future__ import annotations

import os
import re
import shutil
import typing as t

from .._base import valid_names
from .._base.errors import MigrationError
from . import snapshots

Inspect = t.Mapping[str, t.Any]


def upper_directory(inspect: Inspect) -> str:
    """Where a container's writable layer lies on this host, whether the container runs or not.

    :raises MigrationError: ``storage_unsupported`` for storage drivers without upper directories; as
        :func:`snapshots.upper_directory`.
    """
    graph = inspect.get("GraphDriver") or {}
    # With containerd's image store this is the snapshotter. From API 1.52 on only the top level names it.
    driver = graph.get("Name") or inspect.get("Driver")
    upper = (graph.get("Data") or {}).get("UpperDir")
    if driver == "overlay2" and upper:
        return str(upper)
    if driver == snapshots.SNAPSHOTTER:
        return snapshots.upper_directory(inspect["Id"])
    raise MigrationError(
        "storage_unsupported",
        f"The writable layer of container {inspect['Name'].lstrip('/')} cannot be moved: its engine keeps it with the storage "
        f"driver {driver or 'that it does not name'}; overlay2 and containerd's image store with the snapshotter overlayfs are "
        "what works.",
        driver=driver,
    )


def container_directory(data_root: str, container_id: str) -> str:
    """The engine's own directory of a container (moby daemon/daemon.go: <data-root>/containers/<id>)."""
    return os.path.join(data_root, "containers", valid_names.container_id(container_id))


def checkpoint_directory(data_root: str, container_id: str, checkpoint: str) -> str:
    """Where the engine writes a checkpoint and where it looks for one to restore."""
    return os.path.join(
        container_directory(data_root, container_id), "checkpoints", valid_names.checkpoint_name(checkpoint)
    )


def incoming_log_directory(data_root: str, container_id: str) -> str:
    """Where log files from the source arrive: apart from the engine's own files about the container."""
    return os.path.join(container_directory(data_root, container_id), "livemigrate-log")


def adopt_log(data_root: str, old_id: str, new_id: str) -> None:
    """Put log files that came from another host where this host's engine will look for them.

    The json-file driver names its file after the container; on its start it appends to what is there. Only what bears the
    name of a log is taken, and no links.
    """
    directory = container_directory(data_root, new_id)
    incoming = incoming_log_directory(data_root, new_id)
    if not os.path.isdir(incoming):
        return
    for name in os.listdir(incoming):
        found = re.fullmatch(re.escape(old_id) + r"(-json\.log(\.\d+)?(\.gz)?)", name)
        path = os.path.join(incoming, name)
        if found and os.path.isfile(path) and not os.path.islink(path):
            os.rename(path, os.path.join(directory, new_id + found.group(1)))
        elif name == "local-logs" and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
            os.rename(path, os.path.join(directory, name))
    shutil.rmtree(incoming)
