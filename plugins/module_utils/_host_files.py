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
import shutil
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._command import SYSTEM_PATH
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError

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


def require_init(inspect: t.Mapping[str, t.Any], info: t.Mapping[str, t.Any]) -> str | None:
    """The program that the engine will mount as the container's first process; None where it was not made with ``--init``.

    :param inspect: the container, from either host.
    :param info: ``/info`` of this host's engine.
    :raises MigrationError: ``init_missing`` where the engine would not find it.
    """
    if not inspect["HostConfig"].get("Init"):
        return None
    found = find_init(info.get("InitBinary"))
    if found is None:
        name = info.get("InitBinary") or "docker-init"
        raise MigrationError(
            "init_missing",
            f"The container was made with --init, and the destination has no {name} to be its first process. Install it there "
            "(it comes with the engine; on Debian it is a part of docker.io and tini).",
            program=name,
        )
    return found


def links(sources: t.Mapping[str, str]) -> dict[str, str]:
    """Those mounts whose source is a symbolic link: CRIU by itself would mount the link, not what it leads to.

    :param sources: place in the container to path on this host. Links further up in that path do no harm.
    """
    return {place: path for place, path in sources.items() if os.path.islink(path.rstrip("/"))}


def require_no_links(sources: t.Mapping[str, str]) -> None:
    """Refuse mounts of symbolic links, which cannot be restored where CRIU has no options of the container's own.

    :param sources: as for :func:`links`.
    :raises MigrationError: ``mount_is_link``.
    """
    found = links(sources)
    if not found:
        return
    texts = []
    for place, path in sorted(found.items()):
        remedy = f"Mount {os.path.realpath(path)} instead."
        if place == INIT_PLACE:
            remedy = f'Set "init-path": "{os.path.realpath(path)}" in daemon.json there.'
        texts.append(f"{path} (mounted at {place}) is a symbolic link on the destination. {remedy}")
    raise MigrationError(
        "mount_is_link",
        f"CRIU cannot restore a mount of a symbolic link (it mounts the link, not what it leads to): {' '.join(texts)}",
        links=found,
    )
