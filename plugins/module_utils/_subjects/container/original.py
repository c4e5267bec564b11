# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A container on the host that it leaves: what the steps of a migration do with it. See ``_subjects/subject.py`` for each."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
import typing as t

from ..._base import durable
from ..._base.errors import MigrationError
from ..._channel.tree import Tree
from ..._criu import network_lock
from ..._docker import directories, runc
from ..._docker.engine import memory_timeout
from ..._docker.spec import create as spec_create
from ..._engines import connections, removed_names
from ..._engines import runtime as engine_runtime
from ..._host import deleted_files
from ..._host import fingerprints as process_fingerprints
from ..._host.tasks import TaskGroup
from ..._preflight.facts import container as facts_of_container
from ..._session import timeline
from ..._session.session import Session
from ..._surroundings import surroundings as surroundings_module
from ..._surroundings.side import Side
from ..subject import Dumped, Prepared
from . import examine, old_copy, restart_policy, trees
from .by_engine import ByEngine
from .keeper import Keeper

# Seconds. Docker's pause returns when the kernel has frozen everything; more than this means a task stuck in the kernel.
FREEZE_TIMEOUT = 15.0
# Seconds that the Docker Engine has for each of the answers that a thaw asks of it. A service stands still meanwhile.
_THAW_SECONDS = 10.0
# The same for a freeze, in which runc alone waits up to ten seconds for the tasks.
_FREEZE_SECONDS = 30.0
# Seconds in which tasks that run are frozen once more, for Docker to thaw them. They run a service.
_REFREEZE_SECONDS = 0.5
# The errors of an engine that does not answer, or does not do what it is asked for, and of tasks that it needs frozen for that.
_OF_THE_ENGINE = frozenset(
    {"engine_unreachable", "engine_error", "thaw_failed", "freeze_failed", "container_not_found", "docker_py_missing"}
)

# Seconds that a dump may take beyond the time that its own call has. Then it hangs, and is ended: the service stands still.
_OVERDUE_SECONDS = 60.0

_WENT_ON_ALONE = "went_on_alone"
# The processes that the dump has stopped.
_STOPS = "stops.json"

Inspect = t.Mapping[str, t.Any]


class Original(ByEngine):
    """A container that is moved, for one step of a session.

    What stands still while a step goes on is looked at once: the plan of its connections, its tasks, the directories that travel.
    ``inspect`` is asked for where a comment says why.
    """

    def __init__(self, session: Session, keeper: Keeper | None = None) -> None:
        super().__init__(session, keeper)
        # Whether this step has seen it under its own name, and has put its restart policy aside itself.
        self._known = False
        self._inspect: Inspect = {}
        self._for_copy: dict[str, t.Any] = {}

    @property
    def _id(self) -> str:
        return self.session.subject_id

    # -- what stands still ---------------------------------------------------------------------------------------

    @functools.cached_property
    def _plan(self) -> connections.Plan:
        return connections.Plan.of(self.session)

    @functools.cached_property
    def _group(self) -> TaskGroup:
        return TaskGroup(self.session.data("arming")["cgroup"])

    @functools.cached_property
    def _pid(self) -> int:
        """The first process, as this host numbers it."""
        return int(self.session.data("arming")["pid"])

    @functools.cached_property
    def _trees(self) -> list[Tree]:
        # A container gets the paths of its files when it is made: they are still as the session has noted them at its opening.
        spec = durable.read_json(self.session.memory_path("outbox", "spec.json"))
        return trees.content(spec["inspect"], self.session.facts["data_root"], spec["volumes"])

    def trees(self) -> list[Tree]:
        """Writable layer, log, volumes and named bind mounts."""
        return self._trees

    def images(self) -> str:
        """Where its engine puts the checkpoint."""
        return self._engine.images(self.session)

    def _side(self) -> Side:
        """What topics of the surroundings are given of this host."""
        return Side(
            self._pid,
            self._group,
            directories.container_directory(self.session.facts["data_root"], self._id),
            own_network=self._plan.fence is not None,
            ignored=self.session.facts.get("ignore_rules", ()),
            keeps_connections=bool(self._plan.after.reachable),
        )

    # -- while it runs -------------------------------------------------------------------------------------------

    def prepare(self, *, close_connections: bool) -> Prepared:
        """Decide what becomes of its connections."""
        # Afresh: it may have been started again since the session was opened, or connected to another network.
        inspect = self._keeper.engine.inspect(self._id)
        self._pid, self._group = int(inspect["State"]["Pid"]), TaskGroup.of_container(inspect)
        keeps = self._engine.keeps_connections()
        self._plan, warnings = connections.make_plan(
            self.session, inspect, keeps=keeps, close_connections=close_connections
        )
        return Prepared(self._plan.as_data(), warnings)

    def look_ahead(self) -> None:
        """Read its surroundings, as far as they can be read while it runs."""
        durable.write_json(self._noted_surroundings, surroundings_module.look_ahead(self._side()))

    @property
    def _noted_surroundings(self) -> str:
        return self.session.memory_path("surroundings.json")

    def make_ready(self) -> dict[str, t.Any]:
        """Ask the rules again whose answer may have changed, and make the place for the images."""
        # What may have changed since the preflight. Processes of `docker exec` are seen to below, with more patience.
        ignored = [*self.session.facts.get("ignore_rules", ()), "exec_session_running"]
        engine = self._keeper.engine
        inspect = engine.inspect(self._id)
        examine.require_movable(engine, inspect, called=self._id, ignore_rules=ignored, volatile=True)
        pid = inspect["State"]["Pid"]
        if self._plan.fence is not None and self._plan.fence.pid != pid:
            raise MigrationError(
                "container_restarted",
                "The container was restarted since the move was prepared. Move it again; it runs here.",
            )
        self._pid, self._group = int(pid), TaskGroup.of_container(inspect)
        # Now, and not while it stands still.
        self.trees()
        size = facts_of_container.checkpoint_bytes(inspect)
        self._engine.reserve_space(self.session, size)
        self._inspect = inspect
        return {
            "policy": spec_create.restart_policy(inspect),
            "pid": self._pid,
            "cgroup": self._group.path,
            "bytes": size,
        }

    def put_aside(self) -> None:
        """Its restart policy, which would start the image afresh beside the restored copy as soon as the old copy is killed."""
        restart_policy.put(self.session, self._keeper.engine, self._id, self._inspect, restart_policy.NEVER)
        self._known = True

    # -- freezing it ---------------------------------------------------------------------------------------------

    def look_last(self) -> None:
        """What of its surroundings is read in the last moment."""
        ahead = durable.read_json(self._noted_surroundings) or {}
        durable.write_json(self._noted_surroundings, surroundings_module.look_last(self._side(), ahead))

    def keep_newcomers_out(self) -> None:
        """New connections."""
        connections.keep_new_ones_out(self._plan)

    def stop(self) -> list[str]:
        """Freeze it, and close the fence.

        :returns: what was entered by ``docker exec``: not a descendant of the container's init, so CRIU would leave it behind or
            fail. Health checks come and go that way; they are given the moment they need.
        """
        with self._keeper.within(_FREEZE_SECONDS) as engine:
            engine.pause(self._id)
        self._group.wait_frozen(True, FREEZE_TIMEOUT)
        connections.close(self._plan)
        return self._group.foreign(self._pid)

    def step_back(self) -> None:
        """Open the fence, and thaw it."""
        connections.reopen(self._plan)
        with self._keeper.within(_THAW_SECONDS) as engine:
            engine.unpause(self._id)

    def in_the_way(self, found: t.Sequence[str]) -> MigrationError:
        """Of ``docker exec``."""
        return MigrationError(
            "exec_session_running",
            f"Processes entered through docker exec keep running in the container and cannot be moved: {', '.join(found)}. End "
            "them and try again.",
            commands=found,
        )

    # -- while it stands still -----------------------------------------------------------------------------------

    def dump_ready(self) -> t.ContextManager[t.Any]:
        """The unit that waits to call runc."""
        return runc.unit_ready(self.session.id, engine_runtime.options_file(self.session))

    def files_stand_still(self) -> bool:
        """What the kernel writes for a program by itself, and after the freeze, moves no change time when it is through."""
        return not deleted_files.has_kernel_aio(self._group.pids())

    def dump(self) -> Dumped:
        """Dump it by its engine, read its surroundings beside that, and hold it."""
        session, group = self.session, self._group
        started = time.monotonic()
        ahead = durable.read_json(self._noted_surroundings) or {}
        with surroundings_module.Reading(self._side(), ahead) as reading:
            report = self._engine.dump(session, self._keeper.engine, group)
            dumped = time.monotonic()
            surroundings = reading.result()
            durable.write_json(session.memory_path("outbox", "surroundings.json"), surroundings)
        # CRIU thaws the cgroup while it works and freezes it again (runc leaves it as it was: paused).
        group.wait_frozen(True, FREEZE_TIMEOUT)
        removed_names.give(session, self.images(), self._pid, group.pids())
        # Noted before the first of them: whoever is cut off here leaves stops, which a thaw by a person delivers.
        stopped = group.queue_stops(lambda pids: durable.write_json(session.memory_path(_STOPS), pids))
        fingerprints = process_fingerprints.take(group.pids())
        durable.write_json(session.memory_path("outbox", "fingerprints.json"), fingerprints)
        size = self._engine.seal(session, [tree.path for tree in self.trees()])
        found = report.pop("found", None)
        if found is not None:
            report["connections"] = {key: found[key] for key in ("kept", "closed")}
            network = connections.Arrangement.of(self._plan, established=found["kept"] > 0).as_data()
            self._for_copy = {"fingerprints": fingerprints, "network": network, "surroundings": surroundings}
        return Dumped(stopped, size, dumped - started, report)

    def patience(self) -> float:
        """The engine copies memory three times."""
        return memory_timeout(self.session.data("dumped")["bytes"])

    def for_copy(self) -> dict[str, t.Any]:
        """``fingerprints``, ``network`` and ``surroundings``, see ``_engines/runtime.py``."""
        return self._for_copy

    def all_sent(self) -> None:
        """The names of files that the dump has given, see ``_engines/removed_names.py``."""
        removed_names.take_back(self.session)

    def require_not_run_since_dump(self) -> None:
        """The SIGSTOPs that were queued must still be pending."""
        if not self._group.stops_pending(self.session.data("dumped")["held"]):
            raise MigrationError(
                "source_thawed",
                "Somebody has thawed the container since it was dumped (docker unpause, a restart of the engine?). Its "
                "checkpoint is not used; the container goes on here.",
            )

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Tell its clients which of its connections are over, and make an old copy of it."""
        session, engine = self.session, self._keeper.engine
        # This very step has seen it a moment ago. What somebody has done since is undone without another look; if that cannot be,
        # because it is gone, the next attempt looks.
        known, self._known = self._known, False
        inspect = None if known else engine.find(self._id)
        if not known and inspect is None:
            return
        if session.happened_in_this_boot("arming"):
            # Clients wait to be told that their connections are over. If that fails, the old copy is ended all the same.
            with contextlib.suppress(MigrationError, OSError, ValueError):
                connections.tell_clients(self._plan)
        old_copy.end(session, engine, inspect)

    def forget(self) -> None:
        """Delete the checkpoint."""
        self._engine.forget(self.session, self._keeper.engine)

    def go_on(self) -> None:
        """Thaw it, and give it back its name and its restart policy."""
        session = self.session
        policy = session.data("arming").get("policy")
        if policy is None:
            return
        try:
            with self._keeper.within(_THAW_SECONDS) as engine:
                inspect = engine.find(self._id)
                if inspect is None:
                    return
                if session.happened_in_this_boot("arming"):
                    self.thaw()
        except MigrationError as exc:
            if exc.code not in _OF_THE_ENGINE or not session.happened_in_this_boot("arming"):
                raise
            # An engine that hangs, or refuses, need not keep the service waiting.
            self.go_on_alone()
            raise MigrationError(
                exc.code,
                f"{exc.message} The processes of the container go on all the same. Docker does not know that yet; the watchdog "
                "tries again.",
                **exc.details,
            ) from exc
        old_copy.give_name_back(session, engine, inspect)
        # Before the look: what ends the container from here on (a restart of dockerd) starts it again by this policy.
        restart_policy.put(session, engine, self._id, inspect, policy)
        # A reboot ends it, and so does a restart of dockerd without live-restore.
        state = engine.inspect(self._id)["State"]
        # One that was let go while its engine did not answer may have ended by itself, and may have been meant to.
        if not state["Running"] and (not self._went_on_alone or restart_policy.would_start(policy, state)):
            self._bring_back(inspect)

    def _bring_back(self, inspect: Inspect) -> None:
        """One that ended while it was frozen: from its own checkpoint where that is whole, else as Docker would start it."""
        engine = self._keeper.engine
        if not self._engine.bring_back(self.session, engine) and inspect["State"]["Status"] != "created":
            engine.start(self._id)

    def thaw(self) -> None:
        """Let the tasks go on, whatever Docker thinks of their state.

        :raises MigrationError: ``thaw_failed``; ``dump_running`` as long as CRIU has the tasks in its hand.
        """
        group = self._group
        if not group.exists:
            return
        runs_on = self._make_ready_to_thaw()
        engine = self._keeper.engine
        # Afresh: a dump may have been waited for.
        paused = engine.inspect(self._id)["State"]["Paused"]
        try:
            if paused and not group.freeze_requested:
                # CRIU thaws the tasks while it works, and one that was killed has left them so. Docker believes that they are
                # paused, and cannot be told otherwise: `container not paused`.
                group.freeze(_REFREEZE_SECONDS)
            if paused:
                engine.unpause(self._id)
        finally:
            # Also where a freeze has not got to its end: it would be brought to it by the task that it waits for.
            if group.freeze_requested:
                group.thaw()
        group.wait_frozen(False, FREEZE_TIMEOUT)
        connections.announce_again(self._plan)
        if runs_on:
            self._engine.delete_images(self.session, self._id)

    def may_go_on_alone(self) -> bool:
        """Whether it has not ended: else there is nothing that could go on."""
        return os.path.isdir(self.session.data("arming").get("cgroup") or "")

    @property
    def _went_on_alone(self) -> bool:
        """Whether its tasks have been let go in this boot without the engine."""
        return os.path.exists(self.session.memory_path(_WENT_ON_ALONE))

    def go_on_alone(self) -> None:
        """Thaw the tasks; what Docker thinks of them is for :meth:`thaw` to mend.

        :raises MigrationError: as :meth:`thaw`.
        """
        group = self._group
        if not group.exists:
            return
        # Also where its tasks run: an engine that hangs has not frozen them, a CRIU that was killed has thawed them, or somebody
        # else has. They may be stopped still, and their network closed.
        runs_on = self._make_ready_to_thaw()
        # Memory that is full keeps nothing frozen.
        with contextlib.suppress(OSError), open(self.session.memory_path(_WENT_ON_ALONE), "wb"):
            pass
        if group.freeze_requested:
            group.thaw(FREEZE_TIMEOUT)
            connections.announce_again(self._plan)
        if runs_on:
            self._engine.delete_images(self.session, self._id)

    def _make_ready_to_thaw(self) -> bool:
        """Before a thaw: nobody dumps, nothing is in the way of the container's network, nothing stops its tasks.

        :returns: whether any task goes on. The checkpoint, which does not know of that, is given up then.
        """
        session = self.session
        self._await_dump()
        runs_on = self._group.populated
        if runs_on:
            self._engine.give_up_checkpoint(session)
        if not session.reached("dumped"):
            # A CRIU that was killed has not got to that.
            network_lock.lift(self._pid)
        removed_names.take_back(session)
        # A SIGCONT takes back a SIGSTOP only as long as that has not been delivered. Once: a process of a container that goes on
        # already may have been stopped by its user since.
        if not self._went_on_alone:
            noted = durable.read_json(session.memory_path(_STOPS)) or session.data("dumped").get("held", [])
            self._group.take_back_stops(noted)
        connections.reopen(self._plan)
        return runs_on

    def _await_dump(self) -> None:
        """Wait until no CRIU has the tasks in its hand. One that is overdue is ended.

        :raises MigrationError: ``dump_running``.
        """
        session, began = self.session, self.session.data("freezing").get("at")
        left = math.inf
        if began is not None:
            left = began + memory_timeout(session.data("arming")["bytes"]) + _OVERDUE_SECONDS - timeline.now()
        self._engine.await_dump(session, left)
        if not self._group.is_dumped_now:
            return
        if left > 0:
            raise MigrationError(
                "dump_running",
                "CRIU is still dumping the container; nothing may thaw it before that has ended. Where it hangs, the watchdog "
                f"ends it in {left:.0f} seconds.",
            )
        self._group.end_dumpers()
