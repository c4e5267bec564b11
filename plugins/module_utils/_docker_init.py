# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""docker-init, the first process of containers made with ``--init``: a program of the host that the engine mounts into them.

The engine looks for it only when it starts such a container, which in a migration is when the source stands still.
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


def find(configured: str | None, places: t.Sequence[str] = PLACES, path: str = SYSTEM_PATH) -> str | None:
    """Where the engine of this host finds its init program; None where it finds none.

    :param configured: ``InitBinary`` of ``/info``: a name, or a path where ``init-path`` is set in daemon.json.
    """
    name = configured or "docker-init"
    for place in () if os.path.isabs(name) else places:
        candidate = os.path.join(place, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return shutil.which(name, path=path)


def require(inspect: t.Mapping[str, t.Any], info: t.Mapping[str, t.Any]) -> None:
    """Refuse a container with ``--init`` where the engine would not find that program.

    :param inspect: the container, from either host.
    :param info: ``/info`` of this host's engine.
    :raises MigrationError: ``init_missing``.
    """
    if inspect["HostConfig"].get("Init") and find(info.get("InitBinary")) is None:
        name = info.get("InitBinary") or "docker-init"
        raise MigrationError(
            "init_missing",
            f"The container was made with --init, and the destination has no {name} to be its first process. Install it there "
            "(it comes with the engine; on Debian it is a part of docker.io and tini).",
            program=name,
        )
