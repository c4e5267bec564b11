# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The two engines by their names. Each is a module that dumps and restores a container, with the same functions as the other.

``api``: ``_engines/api.py``. ``runtime``: ``_engines/runtime.py``.
"""

from __future__ import annotations

import typing as t

from .._base.errors import MigrationError
from .._docker.engine import Engine
from .._host.tasks import TaskGroup
from .._session.session import Session
from . import api as engine_api
from . import runtime as engine_runtime

Inspect = t.Mapping[str, t.Any]

API = "api"
RUNTIME = "runtime"


class EngineFunctions(t.Protocol):
    """The functions that both modules have. The errors are documented where they are raised."""

    # -- on both hosts

    def keeps_connections(self) -> bool:
        """Whether this host can take part in a move that keeps connections whose address stays."""

    # -- on the source

    def images(self, session: Session) -> str:
        """The directory in which the source's checkpoint lies."""

    def reserve_space(self, session: Session, size: int) -> None:
        """Make sure before the freeze that a dump of so many bytes has its place."""

    def dump(self, session: Session, engine: Engine, group: TaskGroup) -> dict[str, t.Any]:
        """Dump the paused container, which stays paused; returns what the module reports of it."""

    def seal(self, session: Session, content: t.Sequence[str]) -> int:
        """After the dump, everything frozen: note what it consists of, if need be durably; returns its size in bytes.

        :param content: the directories with the container's files, which have to be of the same moment.
        """

    def await_dump(self, session: Session, seconds: float) -> None:
        """Before a thaw: wait for a dump whose caller is gone.

        :param seconds: until the dump is overdue, and is ended.
        """

    def give_up_checkpoint(self, session: Session) -> None:
        """Before a thaw: see to it that nothing is ever brought back from the checkpoint of what runs on."""

    def delete_images(self, session: Session, container: str) -> None:
        """Delete the checkpoint of which nothing is restored any more, without asking the Docker Engine.

        :param container: the one on this host.
        """

    def bring_back(self, session: Session, engine: Engine) -> bool:
        """Start a container that ended while it was frozen from its checkpoint; returns whether that was possible."""

    def forget(self, session: Session, engine: Engine) -> None:
        """Delete the checkpoint."""

    # -- on the destination

    def runtime_of(self, source: Inspect, engine: Engine) -> str:
        """HostConfig.Runtime of the copy."""

    def receive(self, session: Session, container: str) -> str:
        """Make the directory to which the source sends the checkpoint, and return it."""

    def arm(self, session: Session, engine: Engine) -> None:
        """What can be done for the start before the freeze."""

    def decide_interrupted(self, session: Session, engine: Engine) -> str | None:
        """Decide RUN if an interrupted start has to count as one; returns why it has not, else None."""

    def let_go(self, session: Session) -> t.Any:
        """RUN is decided: see to it that the copy runs, and note it. May be repeated."""

    def finish(self, session: Session, engine: Engine, container: str) -> None:
        """After RUN: take the checkpoint away."""

    def give_up(self, session: Session, container: str) -> str:
        """After REFUSED, before the copy is killed; returns the cgroup that it is said to be in, or nothing."""

    def discard(self, session: Session, container: str) -> None:
        """After REFUSED, when the copy is gone: take all else away."""


_MODULES: dict[str, EngineFunctions] = {API: engine_api, RUNTIME: engine_runtime}


def require(session: Session, engine: str) -> None:
    """Refuse a step that belongs to another engine.

    :raises MigrationError: ``wrong_engine``.
    """
    actual = session.facts.get("engine", API)
    if actual != engine:
        raise MigrationError(
            "wrong_engine", f"Session {session.id} was opened with the engine {actual}; this step belongs to {engine}."
        )


def can_hold(session: Session) -> bool:
    """Whether the engine of a session restores a copy that is held until RUN is decided."""
    return bool(session.facts.get("engine", API) == RUNTIME)


def functions_of(session: Session) -> EngineFunctions:
    """The functions of the engine with which a session was opened."""
    return _MODULES[session.facts.get("engine", API)]
