# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Files that must be there after a power cut: written whole, flushed to the disk, published in one step."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import sys
import typing as t
import uuid

from .errors import MigrationError

# File systems that forget everything when the host goes down.
_VOLATILE = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def sync_file(path: str) -> None:
    """Make the content of a file that another program wrote durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make a directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: str) -> None:
    """Make a private directory (0700) and the missing ones above it, durably; one that is there is tightened to 0700."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            make_directory(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        sync_directory(parent)
    os.chmod(path, 0o700)


@contextlib.contextmanager
def own_directory(path: str) -> t.Iterator[int]:
    """A directory that we have made for us alone in one that others may change; a descriptor of it.

    :raises OSError: where it is not there, or something else is, a link above all.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        # The bits beside those: a directory inherits the set-group-id bit of the one that it is made in.
        if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700:
            raise NotADirectoryError(errno.ENOTDIR, "it is not ours alone", path)
        yield descriptor
    finally:
        os.close(descriptor)


def identity(path: str | int) -> list[int] | None:
    """Which directory is at a path now, by the numbers of its file system and of itself; None where there is none.

    :param path: or a descriptor of it.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_dev, status.st_ino]


# FS_IOC_GETVERSION of linux/fs.h: what a file system counts for each of its numbers, to tell those that had it in turn apart.
_GET_GENERATION = 0x80087601


def lasting_identity(path: str | int) -> list[int] | None:
    """As :func:`identity`, and different for one that is made in the place of one that was removed.

    ext4 gives such a directory the same number at once (run). Its third number tells the two apart. Where a file system has none
    (tmpfs, which uses no number again, for one) the first two have to do.

    :param path: of a directory, or a descriptor of that or of a file.
    """
    try:
        descriptor = (
            os.dup(path) if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        )
    except OSError:
        return None
    try:
        found = identity(descriptor)
        with contextlib.suppress(OSError):
            # The kernel writes an int, whatever the name of the call says.
            generation = fcntl.ioctl(descriptor, _GET_GENERATION, b"\0" * 8)
            return found and [*found, int.from_bytes(generation[:4], sys.byteorder)]
        return found
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def same_directory(path: str, known: t.Sequence[int] | None) -> t.Iterator[int]:
    """The directory that was at a path before; a descriptor of it. Who may change one above it leads us nowhere else.

    :param known: what :func:`identity` or :func:`lasting_identity` returned for it.
    :raises OSError: where it is not there any more.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        now = identity(descriptor) if len(known or ()) == 2 else lasting_identity(descriptor)
        if known is None or now != list(known):
            raise FileNotFoundError(errno.ENOENT, "another directory has come in its place", path)
        yield descriptor
    finally:
        os.close(descriptor)


def remove_tree(parent: int, name: str) -> None:
    """Remove what is in a directory under a name, with all that is in it; a link is no more than itself.

    :param parent: a descriptor of the directory.
    :raises OSError: where it cannot be removed.
    """
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        # shutil takes a descriptor from Python 3.11 on. It follows no link in what it removes.
        shutil.rmtree(f"/proc/self/fd/{parent}/{name}")
    else:
        os.unlink(name, dir_fd=parent)


def _write_temporary(path: str, data: bytes, mode: int) -> str:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    return temporary


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write or replace a file: readers see the old content or the new, also after a power cut."""
    temporary = _write_temporary(path, data, mode)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def publish(path: str, data: bytes, mode: int = 0o600) -> bool:
    """Write a file that may be written only once, by whoever comes first.

    link() fails where the name exists, unlike rename(), and what it publishes is already whole and on the disk.

    :returns: whether it was this call that wrote it.
    """
    temporary = _write_temporary(path, data, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
        sync_directory(os.path.dirname(path))
    return True


def append_line(path: str, line: str, mode: int = 0o600) -> None:
    """Append one line and flush it to the disk."""
    created = not os.path.exists(path)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        size = os.fstat(fd).st_size
        data = line.encode() + b"\n"
        # A full disk may take a part of it only: that must not look as if it had been noted.
        if os.write(fd, data) != len(data):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.fsync(fd)
    finally:
        os.close(fd)
    if created:
        sync_directory(os.path.dirname(path))


def write_json(path: str, value: t.Any, mode: int = 0o600) -> None:
    """:func:`write` of a JSON document."""
    write(path, json.dumps(value, sort_keys=True, indent=1).encode() + b"\n", mode)


def read_json(path: str) -> t.Any:
    """A JSON document, or None where the file is not there."""
    try:
        with open(path, "rb") as handle:
            return json.loads(handle.read())
    except FileNotFoundError:
        return None


def filesystem_type(path: str, mountinfo: str | None = None) -> str:
    """The type of the file system that holds *path* (which need not exist yet), as in /proc/self/mountinfo."""
    if mountinfo is None:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as handle:
            mountinfo = handle.read()
    target = os.path.realpath(path)
    best, kind = "", "unknown"
    for line in mountinfo.splitlines():
        left, _separator, right = line.partition(" - ")
        mount_point = left.split()[4].replace("\\040", " ")
        inside = target == mount_point or target.startswith(mount_point.rstrip("/") + "/")
        # A later line with the same mount point covers the earlier one.
        if inside and len(mount_point) >= len(best):
            best, kind = mount_point, right.split()[0]
    return kind


def require_durable(path: str) -> None:
    """Refuse a place that forgets: a journal on it could not keep its promises.

    :raises MigrationError: ``state_not_durable``.
    """
    kind = filesystem_type(path)
    if kind in _VOLATILE:
        raise MigrationError(
            "state_not_durable",
            f"{path} lies on {kind}, which forgets everything when the host goes down; the journal of a migration has to "
            "outlive that. Mount a real file system there.",
            path=path,
            filesystem=kind,
        )
