# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What CRIU loses of the files on a container's file systems in memory (/dev/shm, ``--tmpfs``, what programs have mounted).

CRIU packs them with tar, without extended attributes (criu/filesystems.c). An access control list is one, and where it is lost
its mask becomes the rights of the file's group, so that losing it grants access. File capabilities are lost as well. And tar cuts
times to whole seconds. Attributes are carried; times too, where there are few files.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import typing as t

from .._host import memory_tree
from . import mounts as surroundings_mounts
from .side import Side

NAME = "memory_files"
OF_PROCESSES = False

#: so many files are looked at while a container stands still: about a second beside the dump. tar takes longer for them
MOST_FILES = 200_000
#: the rule of the preflight about that; ignored, nobody looks
RULE = "memory_files_many"
# Bytes of attributes that are sent and set while it stands still.
_MOST_BYTES = 8 << 20
# Files whose times are carried: two milliseconds at most.
_MOST_TIMES = 250

# What the policy of each host gives to its files by itself, or can be told there alone.
_OF_THE_HOST = ("security.selinux", "security.ima", "security.evm", "security.SMACK64")
_NAMES = ("user.", "trusted.", "security.", "system.posix_acl_access", "system.posix_acl_default")

Attributes = dict[str, str]
"""The extended attributes of a file: their names, and their values in base64."""
Times = dict[str, dict[str, list[int]]]
"""When files were read and changed, in nanoseconds: by their directories, then by their names there; ``.`` is the root itself."""


def look_ahead(side: Side) -> t.Any:
    """Nothing: programs make and change files until the freeze."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """The attributes of all files that have some, and the times of all files where there are few; by file systems."""
    if RULE in side.ignored:
        return None
    files, size = 0, 0
    found: list[dict[str, t.Any]] = []
    for number, pid, tree in _trees(side, surroundings_mounts.external_places(side)):
        attributes: dict[str, Attributes] = {}
        times: Times = {}
        with contextlib.ExitStack() as stack:
            try:
                root = stack.enter_context(memory_tree.opened(pid, tree))
            except OSError:
                # No path leads to it, whoever asks.
                continue
            for entry in memory_tree.walk(root, tree, MOST_FILES - files):
                files += 1
                its = _attributes(entry.link, follow=False)
                if its:
                    attributes[entry.path] = its
                    size += sum(map(len, its.values())) + len(entry.path)
                if files <= _MOST_TIMES:
                    status, (directory, _slash, name) = entry.status(), entry.path.rpartition("/")
                    times.setdefault(directory, {})[name or "."] = [status.st_atime_ns, status.st_mtime_ns]
        if size > _MOST_BYTES:
            raise OSError(
                errno.E2BIG, f"there are more than {_MOST_BYTES >> 20} MiB of extended attributes", tree.place
            )
        found.append({"process": number, "place": tree.place, "attributes": attributes, "times": times})
    return [{**one, "times": {}} for one in found] if files > _MOST_TIMES else found


def _trees(side: Side, binds: t.Collection[str]) -> t.Iterator[tuple[str, int, memory_tree.Tree]]:
    """The file systems in memory, each with a process that sees it: first those of the first process, then those of programs that
    have mounts of their own.

    :returns: the number of the process inside of the container, that which this host gives it, and the file system.
    """
    namespaces, devices = set(), set()
    for number, pid in sorted(side.processes.items(), key=lambda one: (one[1] != side.init, int(one[0]))):
        # One that has ended and waits for its parent has none.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in namespaces:
                continue
            namespaces.add(namespace)
            for tree in memory_tree.trees(pid, binds):
                if tree.device not in devices:
                    devices.add(tree.device)
                    yield number, pid, tree


def _attributes(path: str, *, follow: bool) -> Attributes:
    """Those of a file that belong to it on whichever host.

    :param follow: whether the last part of the path is a link below /proc, which leads to the file.
    """
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as exc:
        # A name that CRIU gives a removed file while it dumps is gone again soon.
        if exc.errno in (errno.EOPNOTSUPP, errno.ENOENT):
            return {}
        raise
    return {
        name: base64.b64encode(os.getxattr(path, name, follow_symlinks=follow)).decode("ascii")
        for name in names
        if _is_carried(name)
    }


def _is_carried(name: str) -> bool:
    return name.startswith(_NAMES) and not name.startswith(_OF_THE_HOST)


class _Wanted(t.NamedTuple):
    """What the files of one file system are to have."""

    place: str
    root: int
    """A descriptor of its root."""
    tree: memory_tree.Tree
    attributes: dict[str, Attributes]
    times: Times


def _wanted(side: Side, source: t.Any, missing: list[str]) -> t.Iterator[_Wanted]:
    """What the source has found, with the file systems of the copy that it is about.

    :param missing: gets the places of file systems that the copy does not have.
    :raises ValueError: for what no source can have found.
    """
    # Nothing is mounted between the two looks.
    trees: dict[int, dict[str, memory_tree.Tree]] = side.notes.setdefault(NAME, {})
    for one in source:
        place, pid = str(one["place"]), side.processes.get(str(one["process"]), 0)
        for name in (name for its in one["attributes"].values() for name in its):
            if not _is_carried(name):
                raise ValueError(f"{name!r} is no attribute that is carried")
        if pid and pid not in trees:
            binds = surroundings_mounts.external_places(side)
            trees[pid] = {tree.place: tree for tree in memory_tree.trees(pid, binds)}
        tree = trees.get(pid, {}).get(place)
        with contextlib.ExitStack() as stack:
            try:
                root = stack.enter_context(memory_tree.opened(pid, tree)) if tree is not None else None
            except OSError:
                root = None
            if tree is not None and root is not None:
                yield _Wanted(place, root, tree, one["attributes"], one["times"])
            elif one["attributes"]:
                missing.append(place)


def carry(side: Side, source: t.Any) -> None:
    """Give the files of a held copy the attributes and times that they have on the source.

    Only while it is held: of a copy that runs, a program may have put another file in the place of one, which must not get its
    capabilities. What is not there or cannot be set shows in the comparison.
    """
    if not side.group.frozen:
        return
    for one in _wanted(side, source, []):
        for path, attributes in one.attributes.items():
            with contextlib.suppress(OSError), memory_tree.below(one.root, path, one.tree.device) as file:
                for name, value in attributes.items():
                    os.setxattr(f"/proc/self/fd/{file}", name, base64.b64decode(value, validate=True))
        for directory, name, (accessed, modified) in _times(one):
            with contextlib.suppress(OSError):
                os.utime(name, ns=(accessed, modified), dir_fd=directory, follow_symlinks=False)


def _times(wanted: _Wanted) -> t.Iterator[tuple[int, str, tuple[int, int]]]:
    """The times that files are to have, each with a descriptor of its directory and its name there.

    None where the file system is mounted read-only: they cannot be set there.

    :raises ValueError: for names that may lead elsewhere.
    """
    read_only = os.fstatvfs(wanted.root).f_flag & os.ST_RDONLY
    for directory, times in wanted.times.items() if not read_only else ():
        with contextlib.ExitStack() as stack:
            try:
                descriptor = stack.enter_context(memory_tree.below(wanted.root, directory, wanted.tree.device))
            except OSError:
                continue
            above = f"{directory}/" if directory else ""
            for name, (accessed, modified) in times.items():
                if "/" in name or "\0" in name or name in ("", ".."):
                    raise ValueError(f"{name!r} is no file of a directory")
                # There it is another file system's root.
                if above + name not in wanted.tree.covered:
                    yield descriptor, name, (int(accessed), int(modified))


def compare(side: Side, source: t.Any) -> list[str]:
    """The files whose attributes are not those of the source; of a held copy also those that were changed at another time."""
    found: list[str] = []
    missing: list[str] = []
    frozen = side.group.frozen
    for one in _wanted(side, source, missing):
        for path, attributes in one.attributes.items():
            now: Attributes = {}
            with contextlib.suppress(OSError), memory_tree.below(one.root, path, one.tree.device) as file:
                now = _attributes(f"/proc/self/fd/{file}", follow=True)
            if now != attributes:
                found.append(f"the extended attributes (access control lists, capabilities) of {one.place}/{path}")
        for directory, name, (_accessed, modified) in _times(one) if frozen else ():
            # A file that is not there is none of this topic's.
            with contextlib.suppress(OSError):
                if os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns != modified:
                    found.append(f"the time of the last change of {name} in {one.place}")
    return [*(f"the file system in memory at {place}" for place in missing), *found]
