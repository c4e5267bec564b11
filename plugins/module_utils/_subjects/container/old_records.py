# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.
"""Records of sessions that are over: which of them are needed still, and for how long the others are kept.

A record is needed as long as what it tells of is on this host: the old copy that a move has left, a container that came here (it
tells under which ids that lived before), and data that a container has left, which its way back may overwrite; and as long as
somebody else has to hear what it says: that a copy was refused, on which its source waits. All others are what a person may want
to read: the newest of them, for some weeks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from ..._base import valid_names
from ..._base.errors import MigrationError
from ..._criu import failure as criu_failure
from ..._docker.engine import Engine
from ..._engines import shim_files
from ..._host import memory_filesystem
from ..._session import stories as session_stories
from ..._session.phases import SOURCE
from ..._session.session import STATE_ROOT, VOLATILE_ROOT, Session

KEPT_DAYS = 30
KEPT_RECORDS = 100
_DAY_SECONDS = 24 * 3600.0


def needed(
    sessions: t.Sequence[Session], containers: t.Container[str], has_data: t.Callable[[str], bool]
) -> list[Session]:
    """Those of the closed sessions whose records are needed.

    :param sessions: oldest first.
    :param containers: the ids of all containers of this host.
    :param has_data: whether a volume of that name, or a path, is on this host.
    """
    found = []
    noted: set[str] = set()
    for session in reversed(sessions):
        if session.role != SOURCE:
            keep = session.data("run").get("container_id") in containers or session_stories.must_be_reported(session)
        elif session.reached("committed"):
            # The newest move that took the data along says whose they are.
            left = [name for name in session.facts.get("volumes", ()) if name not in noted and has_data(name)]
            noted.update(left)
            keep = bool(left) or session.subject_id in containers
        else:
            keep = session_stories.must_be_reported(session)
        if keep:
            found.append(session)
    return found


def _age(path: str) -> float:
    return time.time() - os.lstat(path).st_mtime


def _cut_off(root: str) -> t.Iterator[str]:
    """The directories of sessions whose opening was cut off a day ago or more, before anything was noted or done."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(root):
            path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                if valid_names.SESSION_PATTERN.fullmatch(name) and _age(path) > _DAY_SECONDS:
                    yield path


def prune(engine: Engine, *, state_root: str = STATE_ROOT, volatile_root: str = VOLATILE_ROOT) -> None:
    """Remove the records that nobody needs and that are too old or too many, and what is left of containers that are gone."""
    containers = {container["Id"] for container in engine.containers()}

    def has_data(name: str) -> bool:
        return os.path.lexists(name) if name.startswith("/") else engine.find_volume(name) is not None

    every = Session.all(state_root=state_root, volatile_root=volatile_root)
    closed = [session for session in every if session.ended and session.kind == "container"]
    kept = {session.id for session in needed(closed, containers, has_data)}
    others = [session for session in closed if session.id not in kept]
    oldest = time.time() - KEPT_DAYS * _DAY_SECONDS
    for number, session in enumerate(reversed(others)):
        if number >= KEPT_RECORDS or float(session.facts.get("opened") or 0.0) < oldest:
            shutil.rmtree(session.directory, ignore_errors=True)
    known = {session.id for session in every}
    for root in (state_root, volatile_root):
        for path in _cut_off(root):
            if os.path.basename(path) not in known:
                memory_filesystem.remove(path)
    shim_files.prune(containers, state_root=state_root, volatile_root=volatile_root)
    criu_failure.prune(state_root)


def prune_beside(engine: Engine, session: Session) -> None:
    """:func:`prune` while a session is opened. The opening matters more, so what cannot be removed is left for the next
    time."""
    with contextlib.suppress(MigrationError, OSError):
        prune(engine, state_root=session.state_root, volatile_root=session.volatile_root)
