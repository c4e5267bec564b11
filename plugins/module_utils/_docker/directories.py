# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which directories of a container travel, and where they lie on a host.

A checkpoint holds memory and open files' names, not files. CRIU opens each file again by its path on the destination and
checks its size, so everything that the container may have written has to be there first: the writable layer, the volumes,
and, for those who read logs, the log.
"""

from __future__ import annotations

import os
import re
import shutil
import typing as t

from .._base import valid_names
from .._base.errors import MigrationError
from . import snapshots
from . import volumes as docker_volumes

Inspect = t.Mapping[str, t.Any]

# Overlayfs' own notes about THIS host's lower layers and inodes. They are meaningless elsewhere, and with index=on a wrong
# origin makes the mount fail (kernel Documentation/filesystems/overlayfs.rst). Opaque and redirect travel: they are content.
_LAYER_FILTERS = tuple(
    f"--filter=-x {name}"
    for kind in ("trusted.overlay.", "user.overlay.")
    for name in (kind + "origin", kind + "impure", kind + "uuid", kind + "upper", kind + "nlink")
)

_DELETE = ("--delete", "--force")
# A file in there that is a bind mount by itself arrives beside its place (see _engines/bound_files.py): not to be deleted on
# that side.
_BIND_FILTERS = ("--filter=P .livemigrate-*",)
# What dockerd calls the files of its two own log drivers, beside the numbers of rotated ones.
_LOG_FILTERS = ("--include=*-json.log*", "--include=local-logs/", "--include=local-logs/**", "--exclude=*")


class Tree(t.NamedTuple):
    """A directory that travels."""

    target: str
    """Its name in the channel: ``layer``, ``log``, ``checkpoint``, ``volume/NAME`` or ``bind/NUMBER``."""
    path: str
    """Where it lies on this host."""
    options: tuple[str, ...]
    """rsync's options for it, besides those that hold for all."""
    file: str = ""
    """The name of the one file in it that travels, and nothing else; empty for all of it."""

    @property
    def content(self) -> str:
        """The path of what travels."""
        return os.path.join(self.path, self.file) if self.file else self.path


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


def layer(inspect: Inspect) -> Tree:
    """The writable layer: ownership, extended attributes, hard links, holes, and what was deleted (whiteouts are devices)."""
    return Tree("layer", upper_directory(inspect), (*_DELETE, *_LAYER_FILTERS))


def log(inspect: Inspect, data_root: str) -> Tree | None:
    """The log files of the json-file and local drivers, which the destination's engine appends to; None for others."""
    if (inspect["HostConfig"].get("LogConfig") or {}).get("Type") not in ("json-file", "local"):
        return None
    return Tree("log", container_directory(data_root, inspect["Id"]), _LOG_FILTERS)


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


def volume(name: str, path: str) -> Tree:
    """A local volume's content."""
    return Tree(f"volume/{name}", path, _DELETE)


def bind(number: int, path: str) -> Tree:
    """A bind mount's content; its path would not do as a name."""
    return Tree(f"bind/{number}", path, (*_DELETE, *_BIND_FILTERS))


def bind_file(number: int, path: str) -> Tree:
    """A bind mount of a single file; a link is what it leads to."""
    directory, name = os.path.split(os.path.realpath(path))
    return Tree(f"bind/{number}", directory, (), name)


def checkpoint(directory: str) -> Tree:
    """A checkpoint, wherever its engine put it."""
    return Tree("checkpoint", directory, _DELETE)


def content(inspect: t.Mapping[str, t.Any], data_root: str, volumes: t.Sequence[t.Mapping[str, t.Any]]) -> list[Tree]:
    """The directories of the container that travel, without its checkpoint.

    A bind mount of a directory that lies in another one of them comes with that. Two passes at once into one directory would each
    delete what the other is about to write.

    :param volumes: what ``_docker/volumes.py`` tells of the mounts.
    """
    trees = [layer(inspect)]
    log_tree = log(inspect, data_root)
    if log_tree is not None:
        trees.append(log_tree)
    binds = 0
    for entry in volumes:
        if entry["kind"] == "volume" and entry["travels"]:
            tree = volume(entry["name"], entry["path"])
            # One that is mounted at several places is one all the same.
            if tree not in trees:
                trees.append(tree)
        elif entry["kind"] == "bind" and entry["travels"]:
            of_form = bind_file if entry["form"] == docker_volumes.FILE else bind
            tree = of_form(binds, entry["path"])
            if tree.file or not any(_comes_with(tree, one) for one in trees):
                # Without those that were found before and come with this one.
                trees = [one for one in trees if tree.file or one.file or not _comes_with(one, tree)]
                trees.append(tree)
            binds += 1
    return trees


def _comes_with(tree: Tree, other: Tree) -> bool:
    """Whether a bind mount of a directory lies in another one: by the names that the destination has for them, and here too."""
    if other.file or not (tree.target.startswith("bind/") and other.target.startswith("bind/")):
        return False
    pairs = ((how(tree.path), how(other.path)) for how in (os.path.normpath, os.path.realpath))
    return all(os.path.join(inner, "").startswith(os.path.join(outer, "")) for inner, outer in pairs)
