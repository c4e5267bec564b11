# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Files of the host that the engine mounts into a container: bind mounts, and docker-init for containers made with ``--init``.

The engine looks for them only when it starts a container, which in a migration is when the source stands still. So they are
looked at before anything is frozen.
"""

from __future__ import annotations

import os
import re
import shutil
import typing as t

from .._base.command import SYSTEM_PATH
from .._base.errors import MigrationError

# Where the engine looks, in its order (lookupBinPath in its source), and in the end along its own search path.
PLACES = (
    "/usr/local/libexec/docker",
    "/usr/libexec/docker",
    "/usr/local/lib/docker",
    "/usr/lib/docker",
    "/usr/local/libexec",
    "/usr/libexec",
)

# Where the engine mounts it in the container.
INIT_PLACE = "/sbin/docker-init"


def find_init(configured: str | None, places: t.Sequence[str] = PLACES, path: str = SYSTEM_PATH) -> str | None:
    """Where the engine of this host finds its init program; None where it finds none.

    :param configured: ``InitBinary`` of ``/info``: a name, or a path where ``init-path`` is set in daemon.json.
    """
    name = configured or "docker-init"
    for place in () if os.path.isabs(name) else places:
        candidate = os.path.join(place, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return shutil.which(name, path=path)


def size(path: str | None) -> int | None:
    """The size in bytes of a file or of what a link leads to; None where there is none."""
    try:
        return os.stat(path).st_size if path else None
    except OSError:
        return None


# As many as the kernel follows in one path.
_MOST_LINKS = 40
# What a line of CRIU's configuration can hold: it ends a word at a blank, a line at a number sign, and a name at a bracket.
_SAYABLE = re.compile(r"[^\s#\"'\\\[\]\x00-\x1f]+")


def links(sources: t.Mapping[str, str], real_places: t.Mapping[str, str]) -> dict[str, str]:
    """Those mounts whose source is a symbolic link: CRIU by itself would mount the link, not what it leads to.

    :param sources: place in the container to path on this host. Links further up in that path do no harm.
    :param real_places: see :func:`real_places`.
    :returns: the place where each is really mounted, and what its source leads to.
    :raises MigrationError: ``mount_is_link`` where one cannot be named to CRIU.
    """
    found = {}
    for place, path in sources.items():
        if os.path.islink(path.rstrip("/")):
            real, target = real_places.get(place, place), os.path.realpath(path)
            if not (_SAYABLE.fullmatch(real) and _SAYABLE.fullmatch(target)):
                raise MigrationError(
                    "mount_is_link",
                    f"{path} (mounted at {place}) is a symbolic link to {target!r}, and a name with such characters cannot be "
                    "told to CRIU. Mount what it leads to instead, under a plain name.",
                )
            found[real] = target
    return found


def inside(root: str, path: str) -> str:
    """Where a path leads to for a process whose root directory is *root*: links are followed within it, as the kernel does.

    Parts that are not there stay as they are.

    :param root: a directory of this host, such as ``/proc/PID/root``.
    """
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    done: list[str] = []
    followed = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        done.append(part)
        try:
            target = os.readlink(os.path.join(root, *done))
        except OSError:
            continue
        followed += 1
        if followed > _MOST_LINKS:
            break
        done = [] if target.startswith("/") else done[:-1]
        todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return "/" + "/".join(done)


def real_places(root: str, places: t.Iterable[str]) -> dict[str, str]:
    """Where mounts of a container really are whose place has a symbolic link in it: ``/sbin`` is one in most images.

    The specification names the place that was asked for, and CRIU the one that the kernel has.

    :param root: the root directory of the running container, ``/proc/PID/root``.
    """
    found = {place: inside(root, place) for place in places}
    return {place: real for place, real in found.items() if real != place}
