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


def links(sources: t.Mapping[str, str]) -> dict[str, str]:
    """Those mounts whose source is a symbolic link: CRIU by itself would mount the link, not what it leads to.

    :param sources: place in the container to path on this host. Links further up in that path do no harm.
    """
    return {place: path for place, path in sources.items() if os.path.islink(path.rstrip("/"))}
