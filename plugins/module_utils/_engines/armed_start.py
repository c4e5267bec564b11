# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The one call that starts a copy, made by a process of its own that waits for the checkpoint.

The engine answers a start when the copy is restored, and it gives the start up when its caller hangs up. So the caller is
neither an Ansible task nor a command through the channel but a systemd unit, armed while the source still runs: it has nothing
left to load when the checkpoint is there. It speaks HTTP over the engine's socket itself; importing docker-py alone takes longer
than the restore of a small container.

The copy is held at the engine's answer, and for some time after it. By that answer the engine has noted, on the disk, that the
container runs: whatever ends a dockerd from then on, the next one finds the copy among those that run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import typing as t

from .._base import durable
from .._base.command import Runner, run, run_checked
from .._base.errors import MigrationError
from .._docker.socket import UnixConnection
from .._session.session import Session
from .shim_files import Mark

_SOCKET = "/var/run/docker.sock"
_POLL_SECONDS = 0.005
# The engine's answer takes as long as the restore: whoever holds the copy bounds that, not this.
_ANSWER_SECONDS = 24 * 3600


def unit_of(session: str) -> str:
    """The name of the unit that makes the call."""
    return f"livemigrate-{session}-start.service"


def arm(session: Session, agent: t.Sequence[str], runner: Runner = run) -> None:
    """Start the unit.

    :param agent: the command line of the session's agent.
    :raises MigrationError: ``start_failed``.
    """
    argv = ["systemd-run", "--quiet", "--collect", f"--unit={unit_of(session.id)}"]
    run_checked(runner, [*argv, *agent, "start", session.id], "start_failed", "arm the start of the copy (systemd-run)")


def disarm(session: str, runner: Runner = run) -> None:
    """End the unit; doing it twice is fine."""
    with contextlib.suppress(MigrationError):
        runner(["systemctl", "stop", unit_of(session)])


def is_noted(session: Session) -> bool:
    """Whether the engine has noted that the copy runs."""
    return outcome(session) == ""


def outcome(session: Session) -> str | None:
    """What the engine answered: empty for success, else its reason; None as long as it has not."""
    failure = durable.read_json(session.memory_path("start.json"))
    return None if failure is None else str(failure["error"])


def serve(session: Session, socket_path: str = _SOCKET) -> None:
    """Wait until the checkpoint is whole, and have the engine start the container. The body of the unit."""
    container = session.data("created")["container_id"]
    mark = Mark.of(session)
    while not mark.ready:
        if session.decision is not None or not os.path.isdir(mark.work):
            return
        time.sleep(_POLL_SECONDS)
    error = ""
    try:
        connection = UnixConnection(socket_path, _ANSWER_SECONDS)
        connection.request("POST", f"/containers/{container}/start", headers={"Content-Length": "0"})
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
        if answer.status not in (204, 304):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                body = str(json.loads(body)["message"])
            error = body.strip() or f"status {answer.status}"
    except (OSError, http.client.HTTPException) as exc:
        error = f"the Docker engine does not answer ({exc})"
    # Not through memory_path(), which would make the directory of a session that is over.
    if os.path.isdir(session.volatile):
        durable.write_json(os.path.join(session.volatile, "start.json"), {"error": error})
