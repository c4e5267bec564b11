# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the Docker Engine reads at its start about a container, changed so that a power cut takes nothing of it back.

The engine writes such a file beside the old one, flushes and renames it, but does not flush the directory (moby
container/container.go). After a power cut the old file may be there again, and with it the policy by which the engine starts
the old copy beside the new one.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..._base import durable
from ..._docker import directories
from ..._docker.engine import Engine
from ..._docker.spec import create as spec_create
from ..._session.session import Session

NEVER = {"Name": "no", "MaximumRetryCount": 0}


def put(
    session: Session,
    engine: Engine,
    container: str,
    inspect: t.Mapping[str, t.Any] | None,
    policy: t.Mapping[str, t.Any],
) -> None:
    """Give a container of this session a restart policy; it is on the disk when this returns.

    :param container: its id.
    :param inspect: its inspect data. Where it has that policy already, whoever set it may have been cut off before the flush.
        None where nobody has looked: it is given the policy whatever it has.
    """
    if inspect is None or spec_create.restart_policy(inspect) != policy:
        engine.set_restart_policy(container, policy)
    flush(session, container)


def would_start(policy: t.Mapping[str, t.Any], state: t.Mapping[str, t.Any], *, ended_with_host: bool = False) -> bool:
    """Whether Docker would start a container, had it had this policy when it ended.

    :param state: of its inspect data.
    :param ended_with_host: whether it has not ended by itself: its exit code tells nothing.
    """
    if state["Running"]:
        return False
    if policy.get("Name") == "on-failure":
        return bool(state["ExitCode"]) or ended_with_host
    return policy.get("Name") in ("always", "unless-stopped")


def flush(session: Session, container: str) -> None:
    """Have what the engine notes of a container on the disk: its name, state and settings. Logs are not waited for.

    One that was removed meanwhile has nothing to flush.
    """
    directory = directories.container_directory(session.facts["data_root"], container)
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(directory)):
            # config.v2.json and hostconfig.json; a log is called ...-json.log.
            if name.endswith(".json"):
                durable.sync_file(os.path.join(directory, name))
        durable.sync_directory(directory)
