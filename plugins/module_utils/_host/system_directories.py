# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The directories of a host that no migration may write into, and how they are recognised under another name.

What a directory is called says little: a symbolic link, a link further up in the path, or a bind mount gives ``/etc`` another
name. So a directory is compared by the numbers of its file system and of itself, which all its names share.
"""

from __future__ import annotations

import os
import typing as t

from .._base import durable

#: The directories as the hierarchy of file systems names them (hier(7)); what lies in one of them does not count.
DIRECTORIES = (
    *(
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/proc",
        "/root",
        "/run",
        "/sbin",
    ),
    *("/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/var", "/var/lib", "/var/lib/containerd"),  # noqa: S108
    *("/var/lib/docker", "/var/lib/docker/volumes", "/var/lib/livemigrate", "/var/run"),
)


def name_of(identity: t.Sequence[int] | None) -> str:
    """What one of these directories is called; empty for any other directory, and for none.

    :param identity: see ``durable.identity``.
    """
    if not identity:
        return ""
    wanted = list(identity)
    return next((path for path in DIRECTORIES if durable.identity(path) == wanted), "")


def written_to(path: str, *, is_file: bool = False) -> str:
    """Which of these directories is written to where something arrives at a path; empty where it is none of them.

    A file by itself replaces nothing else, so a user may name one that lies in such a directory. It must not get there by
    another name, because nobody has named that.

    :param path: a normal one; there need not be anything.
    """
    around = os.path.dirname(path) if is_file else path
    if around in DIRECTORIES:
        return "" if is_file else around
    return name_of(durable.identity(around))
