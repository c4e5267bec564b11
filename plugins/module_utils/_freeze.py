# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Freezing the container on its source, and letting it go on there as if nothing had happened."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _connections,
    _container_facts,
    _engines,
    _examine,
    _network_lock,
    _removed_names,
    _restart_policy,
    _spec_create,
    _watchdog,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

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
    inspect = _examine.require_movable(engine, container, ignore_rules=ignored, volatile=True)
    group = TaskGroup.of_container(inspect)
    plan = _connections.Plan.of(session)
    if plan.fence is not None and plan.fence.pid != inspect["State"]["Pid"]:
        raise MigrationError(
            "container_restarted",
            "The container was restarted since the move was prepared. Move it again; it runs here.",
        )
    size = _container_facts.checkpoint_bytes(inspect)
    _engines.of(session).make_room(session, size)
    session.enter(
        "arming",
        policy=_spec_create.restart_policy(inspect),
        pid=inspect["State"]["Pid"],
        cgroup=group.path,
        bytes=size,
    )
    _watchdog.prove(session.id)
    # A restart policy would start the image afresh beside the restored copy as soon as the old copy is killed.
    _restart_policy.put(session, engine, container, inspect, _restart_policy.NEVER)
    session.enter("armed")
    foreign: list[str] = []
    for _attempt in range(FOREIGN_ATTEMPTS):
        last_look()
        _connections.keep_new_ones_out(plan)
        session.enter("freezing", at=now())
        engine.pause(container)
        group.wait_frozen(True, FREEZE_TIMEOUT)
        _connections.close(plan)
        foreign = group.foreign(inspect["State"]["Pid"])
        if not foreign:
            return
        # Entered by `docker exec`: not a descendant of the container's init, so CRIU would leave it behind or fail. Health
        # checks come and go that way; give them the moment they need.
        _connections.reopen(plan)
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
    _connections.announce_again(_connections.Plan.of(session))


def thaw_tasks(session: Session) -> None:
    """Let the tasks go on without the engine, which does not answer; what Docker thinks of them is for :func:`thaw` to mend.

    :raises MigrationError: as :func:`thaw`.
    """
    group = TaskGroup(session.data("arming")["cgroup"])
    if group.exists and group.frozen:
        _make_ready(session, group)
        group.thaw(FREEZE_TIMEOUT)
        _connections.announce_again(_connections.Plan.of(session))


def _make_ready(session: Session, group: TaskGroup) -> None:
    """Before a thaw: nobody dumps, nothing is in the way of the container's network, nothing stops its tasks."""
    _engines.of(session).await_dump(session)
    if not session.reached("dumped"):
        # A CRIU that was killed has not got to that.
        _network_lock.lift(session.data("arming")["pid"])
    _removed_names.take_back(session)
    # A SIGCONT takes back a SIGSTOP only as long as that has not been delivered.
    group.release(session.data("dumped").get("held", []))
    _connections.reopen(_connections.Plan.of(session))
