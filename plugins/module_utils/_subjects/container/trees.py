# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which directories of a container travel.

A checkpoint holds memory and open files' names, not files. CRIU opens each file again by its path on the destination and
checks its size, so everything that the container may have written has to be there first: the writable layer, the volumes,
and, for those who read logs, the log.
"""

from __future__ import annotations

import os
import typing as t

from ..._channel.tree import DELETE, Tree
from ..._docker import directories
from ..._docker import volumes as docker_volumes

Inspect = t.Mapping[str, t.Any]
Entry = t.Mapping[str, t.Any]

# Overlayfs' own notes about THIS host's lower layers and inodes. They are meaningless elsewhere, and with index=on a wrong
# origin makes the mount fail (kernel Documentation/filesystems/overlayfs.rst). Opaque and redirect travel: they are content.
_LAYER_FILTERS = tuple(
    f"--filter=-x {name}"
    for kind in ("trusted.overlay.", "user.overlay.")
    for name in (kind + "origin", kind + "impure", kind + "uuid", kind + "upper", kind + "nlink")
)

# A file in there that is a bind mount by itself arrives beside its place (see _engines/bound_files.py): not to be deleted on
# that side.
_BIND_FILTERS = ("--filter=P .livemigrate-*",)
# What dockerd calls the files of its two own log drivers, beside the numbers of rotated ones.
_LOG_FILTERS = ("--include=*-json.log*", "--include=local-logs/", "--include=local-logs/**", "--exclude=*")
# The same for find(1).
LOG_FILES = ("(", "-name", "*-json.log*", "-o", "-path", "*/local-logs/*", ")")


def layer(inspect: Inspect) -> Tree:
    """The writable layer: ownership, extended attributes, hard links, holes, and what was deleted (whiteouts are devices)."""
    # Every dump makes a directory in the container's /tmp and removes it. A file that CRIU gives a name shows by itself.
    return Tree("layer", directories.upper_directory(inspect), (*DELETE, *_LAYER_FILTERS), dump_makes_directories=True)


def log(inspect: Inspect, data_root: str) -> Tree | None:
    """The log files of the json-file and local drivers, which the destination's engine appends to; None for others.

    The engine grows them, not the container, and it notes in the same directory that the container was paused.
    """
    if (inspect["HostConfig"].get("LogConfig") or {}).get("Type") not in ("json-file", "local"):
        return None
    path = directories.container_directory(data_root, inspect["Id"])
    return Tree("log", path, _LOG_FILTERS, always=True, counts=LOG_FILES, by_times=False)


class Travelling(t.NamedTuple):
    """A volume or bind mount whose content travels."""

    target: str
    """Its name in the channel. A bind mount has a number there, because its path would not do as a name."""
    number: int
    """That number; of a volume, nothing."""
    entry: Entry
    """What ``_docker/volumes.py`` tells of it."""


def travelling(volumes: t.Iterable[Entry]) -> list[Travelling]:
    """The volumes and bind mounts that travel, by the names that both hosts have for them in the channel.

    :param volumes: all of the container, in the order in which the source has found them.
    """
    found: list[Travelling] = []
    binds = 0
    for entry in volumes:
        if entry["travels"] and entry["kind"] == "volume":
            found.append(Travelling(f"volume/{entry['name']}", 0, entry))
        elif entry["travels"]:
            found.append(Travelling(f"bind/{binds}", binds, entry))
            binds += 1
    return found


def volume(name: str, path: str) -> Tree:
    """A local volume's content."""
    return Tree(f"volume/{name}", path, DELETE)


def bind(number: int, path: str) -> Tree:
    """A bind mount's content."""
    return Tree(f"bind/{number}", path, (*DELETE, *_BIND_FILTERS))


def bind_file(number: int, path: str) -> Tree:
    """A bind mount of a single file; a link is what it leads to."""
    directory, name = os.path.split(os.path.realpath(path))
    return Tree(f"bind/{number}", directory, (), name)


def _tree_of(one: Travelling) -> Tree:
    if one.entry["kind"] == "volume":
        return volume(one.entry["name"], one.entry["path"])
    of_form = bind_file if one.entry["form"] == docker_volumes.FILE else bind
    return of_form(one.number, one.entry["path"])


def content(inspect: Inspect, data_root: str, volumes: t.Sequence[Entry]) -> list[Tree]:
    """The directories of the container that travel, without its checkpoint.

    A bind mount of a directory that lies in another one of them comes with that. Two passes at once into one directory would each
    delete what the other is about to write.

    :param volumes: what ``_docker/volumes.py`` tells of the mounts.
    """
    trees = [layer(inspect)]
    log_tree = log(inspect, data_root)
    if log_tree is not None:
        trees.append(log_tree)
    for one in travelling(volumes):
        tree = _tree_of(one)
        # A volume that is mounted at several places is one all the same.
        if tree not in trees and (tree.file or not any(_comes_with(tree, other) for other in trees)):
            # Without those that were found before and come with this one.
            trees = [other for other in trees if tree.file or other.file or not _comes_with(other, tree)]
            trees.append(tree)
    return trees


def _comes_with(inner: Tree, outer: Tree) -> bool:
    """Whether a bind mount of a directory lies in another one: by the names that the destination has for them, and here too."""
    if outer.file or not (inner.target.startswith("bind/") and outer.target.startswith("bind/")):
        return False
    pairs = ((how(inner.path), how(outer.path)) for how in (os.path.normpath, os.path.realpath))
    return all(os.path.join(path, "").startswith(os.path.join(around, "")) for path, around in pairs)
