# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Kinds of file systems: which other hosts see too, and where the time of a change can be believed."""

from __future__ import annotations

import typing as t

from .._base import durable
from . import mountinfo

# File systems whose content every host that mounts them sees: nothing to bring, and nothing to overwrite.
SHARED_FILESYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "ceph",
        "fuse.ceph",
        "glusterfs",
        "fuse.glusterfs",
        "ocfs2",
        "gfs2",
        "lustre",
        "9p",
        "afs",
    }
)

# File systems on which the change time of a file tells of every change, by this host's clock. Of one that is not named here that
# is not known. On tmpfs and ramfs a store through a shared map moves no time when its page was written to before.
_LOCAL_FILESYSTEMS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs", "zfs"),
        "overlay",
    }
)


def is_shared(filesystem: str, options: t.Mapping[str, str]) -> bool:
    """Whether a mount's content is seen by other hosts too.

    :param filesystem: the type of the file system that holds it.
    :param options: the volume's driver options; the local driver mounts NFS by them, when a container starts.
    """
    return filesystem in SHARED_FILESYSTEMS or options.get("type") in SHARED_FILESYSTEMS


def filesystems(path: str) -> set[str]:
    """The types of the file systems on which a directory lies and that are mounted below it."""
    text = mountinfo.host_text()
    below = mountinfo.below(mountinfo.parse(text), [path])
    return {durable.filesystem_type(path, text), *(one.kind for one in below)}


def reaches_shared(path: str) -> bool:
    """Whether a directory lies on a file system that other hosts see too, or one of them is mounted below it."""
    return bool(filesystems(path) & SHARED_FILESYSTEMS)


def has_local_times(filesystem: str) -> bool:
    """Whether a file's change time there comes from this host's clock, not from a server's."""
    return filesystem in _LOCAL_FILESYSTEMS


def has_local_times_throughout(path: str) -> bool:
    """The same for all files of a directory."""
    return all(map(has_local_times, filesystems(path)))
