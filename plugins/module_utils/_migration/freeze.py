# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Freezing the container on its source, and letting it go on there as if nothing had happened."""

from __future__ import annotations

import time
import typing as t

from .._base.errors import MigrationError
from .._criu import network_lock
from .._docker.engine import Engine
from .._docker.spec import create as spec_create
from .._engines import by_name as engines
from .._engines import connections, removed_names
from .._host.tasks import TaskGroup
from .._preflight.facts import container as facts_of_container
from .._session import watchdog
from .._session.session import Session
from .._subjects.container import examine, restart_policy

# Seconds. Docker's pause returns when the kernel has frozen everything; more than this means a task stuck in the kernel.
FREEZE_TIMEOUT = 15.0
# How often a freeze is tried again because a process of `docker exec` (a health check, usually) was in the way.
FOREIGN_ATTEMPTS = 20


def now() -> float:
    """The clock of the freeze: it goes on while the host is suspended, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def freeze(session: Session, engine: Engine, last_look: t.Callable[[], None]) -> None:
    """Put the restart policy aside, and freeze the container with the watchdog behind it.

    :param last_look: called before each attempt, for what need not be read while it stands still.
    :raises MigrationError: ``exec_session_running`` when processes of ``docker exec`` keep being in the way.
    """
    container = session.facts["container_id"]
    # What may have changed since the preflight. Processes of `docker exec` are seen to below, with more patience.
    ignored = [*session.facts.get("ignore_rules", ()), "exec_session_running"]
    inspect = examine.require_movable(engine, container, ignore_rules=ignored, volatile=True)
    group = TaskGroup.of_container(inspect)
    plan = connections.Plan.of(session)
    if plan.fence is not None and plan.fence.pid != inspect["State"]["Pid"]:
        raise MigrationError(
            "container_restarted",
            "The container was restarted since the move was prepared. Move it again; it runs here.",
        )
    size = facts_of_container.checkpoint_bytes(inspect)
    engines.of(session).make_room(session, size)
    session.enter(
        "arming",
        policy=spec_create.restart_policy(inspect),
        pid=inspect["State"]["Pid"],
        cgroup=group.path,
        bytes=size,
    )
    watchdog.prove(session.id)
    # A restart policy would start the image afresh beside the restored copy as soon as the old copy is killed.
    restart_policy.put(session, engine, container, inspect, restart_policy.NEVER)
    session.enter("armed")
    foreign: list[str] = []
    for _attempt in range(FOREIGN_ATTEMPTS):
        last_look()
        connections.keep_new_ones_out(plan)
        session.enter("freezing", at=now())
        engine.pause(container)
        group.wait_frozen(True, FREEZE_TIMEOUT)
        connections.close(plan)
        foreign = group.foreign(inspect["State"]["Pid"])
        if not foreign:
            return
        # Entered by `docker exec`: not a descendant of the container's init, so CRIU would leave it behind or fail. Health
        # checks come and go that way; give them the moment they need.
        connections.reopen(plan)
        engine.unpause(container)
        time.sleep(0.25)
    raise MigrationError(
        "exec_session_running",
        f"Processes entered through docker exec keep running in the container and cannot be moved: {', '.join(foreign)}. End "
        "them and try again.",
        commands=foreign,
    )


def thaw(session: Session, engine: Engine) -> None:
    """Let the tasks go on, whatever Docker thinks of their state.

    :raises MigrationError: ``thaw_failed``; ``dump_running`` as long as CRIU has the tasks in its hand.
    """
    container = session.facts["container_id"]
    group = TaskGroup(session.data("arming")["cgroup"])
    if not group.exists:
        return
    _make_ready(session, group)
    if engine.inspect(container)["State"]["Paused"]:
        if not group.frozen:
            # CRIU thaws the tasks while it works, and one that was killed has left them so. Docker believes that they are paused,
            # and cannot be told otherwise: `container not paused`.
            group.freeze(FREEZE_TIMEOUT)
        engine.unpause(container)
    if group.exists and group.frozen:
        group.thaw()
    group.wait_frozen(False, FREEZE_TIMEOUT)
    connections.announce_again(connections.Plan.of(session))


def thaw_tasks(session: Session) -> None:
    """Let the tasks go on without the engine, which does not answer; what Docker thinks of them is for :func:`thaw` to mend.

    :raises MigrationError: as :func:`thaw`.
    """
    group = TaskGroup(session.data("arming")["cgroup"])
    if group.exists and group.frozen:
        _make_ready(session, group)
        group.thaw(FREEZE_TIMEOUT)
        connections.announce_again(connections.Plan.of(session))


def _make_ready(session: Session, group: TaskGroup) -> None:
    """Before a thaw: nobody dumps, nothing is in the way of the container's network, nothing stops its tasks."""
    engines.of(session).await_dump(session)
    if not session.reached("dumped"):
        # A CRIU that was killed has not got to that.
        network_lock.lift(session.data("arming")["pid"])
    removed_names.take_back(session)
    # A SIGCONT takes back a SIGSTOP only as long as that has not been delivered.
    group.release(session.data("dumped").get("held", []))
    connections.reopen(connections.Plan.of(session))
