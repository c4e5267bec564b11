# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The files in a container's file systems in memory, reached by descriptors alone.

The names are the container's, and on the copy they come from another host. So no symbolic link is followed anywhere, no file is
opened (``O_PATH`` waits for nobody, wakes no device and breaks no lease), and nothing is reached that lies on another file
system. A directory is read without moving the time of its last access.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import typing as t

from . import mountinfo

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
# Directories within each other: a descriptor is held of each.
_DEEPEST = 200


class Tree(t.NamedTuple):
    """A file system in memory of a process."""

    place: str
    """Where it is mounted, as the process calls it."""
    device: int
    covered: frozenset[str]
    """Names from its root on something else is mounted."""


def read_mounts(pid: int | str) -> str:
    """The text of /proc/PID/mountinfo; names that are no UTF-8 come back as they are.

    :raises OSError: when the process is gone.
    """
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as handle:
        return handle.read()


def trees(pid: int, binds: t.Collection[str]) -> list[Tree]:
    """The file systems in memory that a process sees and that are the container's own, each once.

    One that this host has mounted as well (``--ipc host``, a bind mount) is the host's.

    :param pid: the process, as this host numbers it.
    :param binds: the places of volumes and bind mounts.
    :raises OSError: when the process is gone.
    """
    mounts = mountinfo.parse(read_mounts(pid))
    wanted = set(mountinfo.memory_places(mounts, binds))
    hidden = mountinfo.covered(mounts)
    places = [one.place for one in mounts]
    found: dict[str, Tree] = {}
    for one in mounts:
        is_memory = one.kind == "tmpfs" and one.root == "/" and one.place in wanted
        if is_memory and one.number not in hidden and one.device not in found:
            above = one.place.rstrip("/") + "/"
            covered = frozenset(place[len(above) :] for place in places if place.startswith(above))
            found[one.device] = Tree(one.place, os.makedev(*map(int, one.device.split(":"))), covered)
    hosts = read_mounts("self") if found else ""
    return [tree for device, tree in found.items() if f" {device} " not in hosts]


@contextlib.contextmanager
def opened(pid: int, tree: Tree) -> t.Iterator[int]:
    """A descriptor of the root of a file system of a process.

    :raises OSError: where it is not there, or something else is.
    """
    with contextlib.ExitStack() as stack:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        yield stack.enter_context(below(root, tree.place.strip("/"), tree.device))


@contextlib.contextmanager
def below(root: int, path: str, device: int) -> t.Iterator[int]:
    """A descriptor (``O_PATH``) of what lies below a directory, on a certain file system.

    :param root: a descriptor of the directory.
    :param path: from there, without a slash in front; empty for the directory itself.
    :raises ValueError: for a path that may lead elsewhere.
    :raises OSError: where it is not there, or something else is.
    """
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{path!r} is no path below a directory")
    descriptor = os.dup(root)
    try:
        for part in parts:
            above, descriptor = descriptor, os.open(part, _LOOK, dir_fd=descriptor)
            os.close(above)
        if os.fstat(descriptor).st_dev != device:
            raise OSError(errno.EXDEV, "another file system is there", path)
        yield descriptor
    finally:
        os.close(descriptor)


class Entry(t.NamedTuple):
    """A file, or the root itself."""

    path: str
    """From the root; empty for the root itself."""
    link: str
    """A path by which it can be reached while the walk stands at it. The last part is not to be followed."""
    status: t.Callable[[], os.stat_result]


def walk(root: int, tree: Tree, most: int) -> t.Iterator[Entry]:
    """All files of a file system, directories too.

    :param root: a descriptor of its root.
    :param most: so many are looked at.
    :raises OSError: where there are more, or one cannot be read.
    """
    left = most

    def of_directory(descriptor: int, above: str, depth: int) -> t.Iterator[Entry]:
        nonlocal left
        with os.scandir(descriptor) as entries:
            for entry in entries:
                path = above + entry.name
                if path in tree.covered:
                    continue
                left -= 1
                if left < 0 or depth > _DEEPEST:
                    raise OSError(errno.E2BIG, f"there are more than {most} files, or they lie too deep", tree.place)
                status = functools.partial(entry.stat, follow_symlinks=False)
                yield Entry(path, f"/proc/self/fd/{descriptor}/{entry.name}", status)
                if entry.is_dir(follow_symlinks=False):
                    with _directory(entry.name, descriptor) as inner:
                        if os.fstat(inner).st_dev == tree.device:
                            yield from of_directory(inner, f"{path}/", depth + 1)

    with _directory(".", root) as descriptor:
        yield Entry("", f"/proc/self/fd/{descriptor}/.", functools.partial(os.fstat, descriptor))
        yield from of_directory(descriptor, "", 0)


@contextlib.contextmanager
def _directory(name: str, above: int) -> t.Iterator[int]:
    descriptor = os.open(name, _READ, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
