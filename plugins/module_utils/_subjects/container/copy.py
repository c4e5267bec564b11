# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A container on the host to which it goes: what the steps of a migration do with it. See ``_subjects/subject.py`` for each."""

from __future__ import annotations

import contextlib
import typing as t

from ..._base.errors import MigrationError
from ..._criu.images import Manifest
from ..._engines import api as engine_api
from ..._engines import connections
from ..._engines import runtime as engine_runtime
from ..._host.flush import Flush
from ..._host.tasks import group_of_id
from ..._network.announce import Announcer
from ..._session import lineage
from ..._session.session import Session
from ..subject import Params, Result
from .by_engine import ByEngine
from .keeper import Keeper

# The making of a copy and the taking away of what was made are imported within functions: a start of the agent that sends a
# decision needs neither.


class Copy(ByEngine):
    """The copy of a container, for one step of a session."""

    def __init__(self, session: Session, keeper: Keeper | None = None) -> None:
        super().__init__(session, keeper)
        self._announcer: Announcer | None = None

    # -- making it -----------------------------------------------------------------------------------------------

    def make(self, params: Params) -> Result:
        """Make it, if its image is here or can be pulled. Else nothing is made yet, and the source has to send the image first.

        :param params: ``overwrite_data``.
        """
        from . import creation

        engine = self._keeper.engine
        image = creation.image_state(self.session, engine)
        if image == "missing":
            return {"changed": False, "image": image}
        made = creation.create(self.session, engine, overwrite=params["overwrite_data"])
        return {"changed": True, "image": image, **made}

    def images(self) -> str:
        """The directory in which the shim looks for them."""
        return engine_runtime.checkpoint_place(self.session)

    # -- engine runtime ------------------------------------------------------------------------------------------

    def hold(self, received: Manifest, sent: Manifest, for_copy: t.Mapping[str, t.Any], flush: Flush) -> Result:
        """Have the shim restore it.

        :raises KeyError: ValueError: where what the source has sent cannot be read.
        """
        network = connections.Arrangement.parse(for_copy["network"])
        return engine_runtime.hold(
            self.session, received, sent, for_copy["fingerprints"], network, for_copy["surroundings"], flush
        )

    def prepare_announcement(self) -> None:
        """Of its addresses."""
        self._announcer = connections.announcer(self.session, engine_runtime.init_of(self.session))

    def run(self) -> None:
        """Decide RUN, write the tombstone for the shim, and thaw it."""
        engine_runtime.run(self.session, self._announcer)

    def announce_again(self) -> None:
        """Announce its addresses once more: nobody acknowledges an announcement, so the first may be lost.

        Its images are deleted after that, where nobody waits for it.
        """
        connections.repeat(self._announcer)
        engine_runtime.forget_images(self.session)

    # -- engine api ----------------------------------------------------------------------------------------------

    def start(self) -> Result:
        """Have the Docker Engine restore it."""
        return engine_api.start(self.session, self._keeper.engine)

    def announce(self) -> None:
        """Of its addresses."""
        with contextlib.suppress(MigrationError):
            init = int(self._keeper.engine.inspect(self.session.copy_id)["State"]["Pid"])
            with connections.announcer(self.session, init) or contextlib.nullcontext() as announcer:
                if announcer is not None:
                    announcer.send()

    # -- RUN -----------------------------------------------------------------------------------------------------

    def decide_interrupted(self) -> str | None:
        """Let its engine find out whether it may have run."""
        return self._engine.decide_interrupted(self.session, self._keeper.engine)

    def let_go(self) -> None:
        """Let its engine do it."""
        self._engine.let_go(self.session)

    @property
    def _running(self) -> str:
        return str(self.session.data("run")["container_id"])

    def finish(self) -> list[str]:
        """Give it its restart policy, delete the checkpoint, and remove the old copies that earlier moves have left here.

        :raises MigrationError: ``engine_lost_it`` where it runs and Docker does not know that.
        """
        from . import restart_policy

        session, engine, container = self.session, self._keeper.engine, self._running
        inspect = engine.find(container)
        left = []
        if inspect is not None:
            # Before it has a policy, by which the next dockerd would start it: kill it, and begin afresh.
            self._require_known(inspect)
            restart_policy.put(session, engine, container, inspect, session.data("created")["policy"])
            left = self._remove_superseded()
        # Also where somebody has removed the container meanwhile: its memory must not stay.
        self._engine.finish(session, engine, container)
        return left

    def _remove_superseded(self) -> list[str]:
        """Remove the old copies that earlier moves have left here: their memory is outdated, their volumes are this one's now."""
        from . import old_copy

        engine = self._keeper.engine
        left = []
        for earlier in lineage.past_of(self.session.facts.get("ancestry", [])):
            old = engine.find(earlier.subject_id)
            try:
                if old is not None:
                    old_copy.remove(earlier, engine, old)
            except MigrationError as exc:
                if exc.code == "engine_unreachable":
                    raise
                # One that is in use, or that this engine cannot remove (its layer is busy) and perhaps never can: nothing of what
                # came waits for that. Else the session would stay open, and put its restart policy again and again.
                left.append(exc.message)
        return left

    def hand_to_keeper(self) -> None:
        """From now on Docker answers for it, by its restart policy.

        A copy that ended before that, with this host or with a Docker Engine without live-restore, stayed down, because a copy
        is created without a policy. So this does what Docker would have done.

        :raises MigrationError: ``engine_lost_it`` where it runs and Docker does not know that. A start would kill it.
        """
        from . import restart_policy

        engine = self._keeper.engine
        # After the policy has been put: what has ended since is Docker's to start.
        inspect = engine.find(self._running)
        if inspect is None:
            return
        self._require_known(inspect)
        if restart_policy.would_start(
            self.session.data("created")["policy"],
            inspect["State"],
            # Not the boot of "run": a host may go down between the decision and its note.
            ended_with_host=not self.session.happened_in_this_boot("starting"),
        ):
            engine.start(self._running)

    def _require_known(self, inspect: t.Mapping[str, t.Any]) -> None:
        """Make sure that it does not run while Docker says that it does not."""
        if inspect["State"]["Running"]:
            return
        group = group_of_id(self._running)
        if group is not None and group.populated:
            raise MigrationError(
                "engine_lost_it",
                f"Container {self.session.subject_name} runs on the destination, and the Docker Engine there says it does not. A "
                "start would kill it and begin afresh, so nothing was done, and the session stays open. Save what only its "
                f"memory holds. Then end it (echo 1 > {group.path}/cgroup.kill) and run playbooks/recover.yml: then it is "
                "started if its restart policy says so.",
                cgroup=group.path,
            )

    # -- REFUSED -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Kill its tasks.

        Without the engine, which answers nothing about a container that it is still starting, and may hang.
        """
        container = self.session.copy_id
        if container:
            _kill(container, self._engine.give_up(self.session, container))
            # Now: it takes memory of a host that may be short of it, and the Docker Engine may not answer for a long time.
            self._engine.delete_images(self.session, container)

    def take_away(self) -> list[str]:
        """The container, the places that were made for it, its networks and its image.

        What has to be left is noted with the phase, see ``made_places.py``.
        """
        from . import creation, made_places

        session, engine = self.session, self._keeper.engine
        made = session.data("creating")
        left: list[str] = []
        if made:
            copy = session.copy_id or made["name"]
            self._engine.discard(session, self._remove(copy) or copy)
            left = made_places.take_away(session, engine)
            for network in made["networks"]:
                engine.remove_network(network)
        creation.remove_image(session, engine)
        return left

    def _remove(self, container: str) -> str | None:
        """Take the copy away, and make sure by the kernel, not only by Docker's answer, that none of its tasks is left.

        :returns: its id, if there was one.
        :raises MigrationError: ``kill_failed``.
        """
        engine = self._keeper.engine
        found = engine.find(container)
        if found is None:
            return None
        engine.remove(found["Id"])
        _kill(found["Id"])
        if engine.find(found["Id"]) is not None:
            raise MigrationError(
                "kill_failed", "The restored copy cannot be removed from the destination.", container=found["Id"]
            )
        return str(found["Id"])


def _kill(container: str, cgroup: str = "") -> None:
    group = group_of_id(container, cgroup)
    if group is not None:
        group.kill()
