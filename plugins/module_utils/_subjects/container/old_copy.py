# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The old copy that a move leaves on its source: how it is ended, under which name it is kept, and when it may be removed."""

from __future__ import annotations

import time
import typing as t

from ..._base.errors import MigrationError
from ..._docker import old_copy_names
from ..._docker.engine import Engine
from ..._host.tasks import TaskGroup
from ..._session.session import Session
from . import restart_policy

Inspect = t.Mapping[str, t.Any]

# Seconds in which Docker has to notice that a container has ended.
_NOTICE_SECONDS = 20.0


# -- ending it ----------------------------------------------------------------------------------------------------


def end(session: Session, engine: Engine, inspect: Inspect | None) -> None:
    """End the old copy without letting it run again. May be repeated, from wherever it was cut off.

    First everything that could start it again is taken from it, on the disk. That is the restart policy (it was put aside
    before the freeze, but somebody may have set one since) and the name, by which units and scripts start it. If this is cut
    off there, the old copy is frozen under another name, and is ended when this is repeated. Then it is killed. Then it is
    looked at again, because somebody who has its id can start it at any moment.

    :param inspect: its inspect data, read just now. None for an old copy that this same step has frozen: then everything that
        could start it again is taken from it without a look.
    :raises MigrationError: ``kill_failed``; ``engine_error`` for one that was not looked at and is gone.
    """
    container = session.subject_id
    if inspect is None or old_copy_names.name_now(inspect) != old_copy_names.name_of(session):
        engine.rename(container, old_copy_names.name_of(session))
    restart_policy.put(session, engine, container, inspect, restart_policy.NEVER)
    group = TaskGroup(session.data("arming")["cgroup"])
    if session.happened_in_this_boot("arming"):
        group.kill()
    # For Docker to take notice; a container that is down already is fine.
    engine.kill(container)
    _wait_stopped(engine, container)
    if session.happened_in_this_boot("arming") and group.exists and group.populated:
        raise MigrationError(
            "kill_failed",
            f"Docker calls the old copy {old_copy_names.name_of(session)} stopped, but it has tasks: somebody has started it "
            "again. Stop what starts it (a systemd unit, a script); it is ended by the session's watchdog then.",
            cgroup=group.path,
        )


def _wait_stopped(engine: Engine, container: str) -> None:
    deadline = time.monotonic() + _NOTICE_SECONDS
    while True:
        inspect = engine.find(container)
        if inspect is None or not inspect["State"]["Running"]:
            return
        if time.monotonic() >= deadline:
            raise MigrationError(
                "kill_failed",
                f"Docker still calls container {container[:12]} running {_NOTICE_SECONDS:g} s after its end. If somebody has "
                "started it again, stop what does that (a systemd unit, a script); the session's watchdog ends it then.",
            )
        time.sleep(0.05)


def give_name_back(session: Session, engine: Engine, inspect: Inspect) -> None:
    """Undo the renaming of :func:`end`, for a source that goes on after all because the destination that had decided RUN is
    lost."""
    if old_copy_names.name_now(inspect) == old_copy_names.name_of(session):
        engine.rename(session.subject_id, session.subject_name)
        restart_policy.flush(session, session.subject_id)


# -- removing it --------------------------------------------------------------------------------------------------


def require_unused(session: Session, inspect: Inspect) -> None:
    """Refuse to remove what is in use.

    :raises MigrationError: ``old_copy_in_use``.
    """
    why = old_copy_names.why_in_use(session, inspect)
    if why:
        remedy = old_copy_names.remedy(session)
        raise MigrationError("old_copy_in_use", f"{why}; it is not removed. {remedy}", session=session.id)


def remove(session: Session, engine: Engine, inspect: Inspect) -> None:
    """Remove an old copy, not its volumes.

    :raises MigrationError: ``old_copy_in_use``.
    """
    require_unused(session, inspect)
    # Not by force: should somebody start it at this moment, the engine refuses.
    engine.remove(inspect["Id"], force=False)
