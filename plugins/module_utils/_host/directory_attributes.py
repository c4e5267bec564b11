# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a directory is beside its content: owner, mode, access lists and other extended attributes, time of modification."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import typing as t


def read(directory: int) -> dict[str, t.Any]:
    """``uid``, ``gid``, ``mode``, ``mtime_ns`` and ``xattrs`` (base64 by name), as plain data.

    :param directory: a descriptor.
    :raises OSError: where it cannot be read.
    """
    status = os.fstat(directory)
    values = {name: _value(directory, name) for name in names(directory)}
    xattrs = {name: base64.b64encode(value).decode() for name, value in values.items() if value is not None}
    return {
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mode": stat.S_IMODE(status.st_mode),
        "mtime_ns": status.st_mtime_ns,
        "xattrs": xattrs,
    }


def names(directory: int | str) -> list[str]:
    """Those of its extended attributes; none where its file system has no attributes.

    :param directory: a descriptor, or a path.
    """
    with contextlib.suppress(OSError):
        return os.listxattr(directory)
    return []


def _value(directory: int, name: str) -> bytes | None:
    """None for one that is not there (any more)."""
    with contextlib.suppress(OSError):
        return os.getxattr(directory, name)
    return None


def put_back(directory: int, noted: t.Mapping[str, t.Any]) -> None:
    """Give a directory what :func:`read` has returned, and nothing beside that. May be repeated.

    :param directory: a descriptor.
    :raises OSError: where it cannot be changed.
    """
    xattrs = {name: base64.b64decode(value) for name, value in noted["xattrs"].items()}
    for name in names(directory):
        if name not in xattrs:
            os.removexattr(directory, name)
    if (os.fstat(directory).st_uid, os.fstat(directory).st_gid) != (noted["uid"], noted["gid"]):
        os.fchown(directory, noted["uid"], noted["gid"])
    # First, because an access list has bits of the mode in it.
    os.fchmod(directory, noted["mode"])
    for name, value in xattrs.items():
        # A label of the host's security module may not be set by everybody, and nobody has changed it.
        if _value(directory, name) != value:
            os.setxattr(directory, name, value)
    os.utime(directory, ns=(os.fstat(directory).st_atime_ns, noted["mtime_ns"]))
