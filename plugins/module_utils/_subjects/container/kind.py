# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Containers as a kind of thing that can be moved. See ``_subjects/subject.py`` for each of its functions."""

from __future__ import annotations

import sys
import time
import typing as t

from ..._base import durable, valid_names
from ..._base.errors import MigrationError
from ..._session import session as sessions
from ..._session.session import Session
from ..subject import Answer, Copy, Found, Original, Params, Result, Step
from .keeper import Keeper

# The other imports are within functions, see _migration/agent.py: each start of the agent needs a part of this alone.


class Containers:
    """The containers of this host, for one step.

    :param keeper: the engine, where somebody has one.
    """

    noun = "container"

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._keeper = keeper or Keeper()

    def reach(self) -> None:
        """Connect to the Docker Engine."""
        self._keeper.reach()

    def find(self, name: str) -> Found | None:
        """Look for it in the engine."""
        from .found import Found as FoundContainer

        inspect = self._keeper.engine.find(name)
        return None if inspect is None else FoundContainer(self._keeper, inspect)

    def unknown(self, name: str) -> MigrationError:
        """The error names those that have similar names."""
        sentence = valid_names.unknown(name, self._keeper.engine.names())
        return MigrationError("container_not_found", sentence, container=name)

    def facts_of_copy(self, params: Params) -> Result:
        """Of the container and of this host's engine.

        :param params: ``container``, ``container_id``, ``engine``.
        """
        return {
            "container_id": params["container_id"],
            "container_name": valid_names.container_name(params["container"]),
            "engine": params["engine"],
            "data_root": self._keeper.engine.info()["DockerRootDir"],
        }

    def original(self, session: Session) -> Original:
        """Of a session on its source."""
        from .original import Original as OriginalContainer

        return OriginalContainer(session, self._keeper)

    def copy(self, session: Session) -> Copy:
        """Of a session on its destination."""
        from .copy import Copy as CopyOfContainer

        return CopyOfContainer(session, self._keeper)

    # -- what only containers have -------------------------------------------------------------------------------

    def steps(self) -> t.Mapping[str, Step]:
        """``image_sent``: stream the container's image from engine to engine."""
        return {"image_sent": self._send_image}

    def _send_image(self, session: Session, _params: Params) -> Result:
        from ..._channel.client import Channel

        started = time.monotonic()
        image = durable.read_json(session.memory_path("outbox", "spec.json"))["image"]
        # By its tags where it has any, so that they exist on the other side; the id alone would arrive nameless.
        chunks = self._keeper.engine.export_image(image["tags"] or [image["id"]])
        _answer, sent = Channel(session).stream("image-load", chunks)
        return {"changed": True, "bytes": sent, "seconds": time.monotonic() - started}

    def commands(self, session: Session) -> t.Mapping[str, Answer]:
        """``image-load`` (a stream follows) and ``addresses``."""
        return {"image-load": lambda: self._load_image(session), "addresses": lambda: self._addresses(session)}

    def _load_image(self, session: Session) -> Result:
        from ..._docker import image_stream
        from . import creation

        # An engine with a store of its own writes the whole image to its disk before the first byte of it comes.
        stream = image_stream.Steady(sys.stdin.buffer, sessions.PREPARING_LEASE_SECONDS)
        with session.locked():
            return creation.load_image(session, self._keeper.engine, stream)

    def _addresses(self, session: Session) -> Result:
        from . import creation

        return creation.addresses(session)

    def start_when_ready(self, session: Session) -> None:
        """Make the one call that starts the copy."""
        from ..._engines import armed_start

        armed_start.serve(session)

    # -- after the fact ------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Records, marks of the shim, logs of CRIU."""
        from . import old_records

        old_records.prune(self._keeper.engine)

    def tidy_beside(self, session: Session) -> None:
        """The same."""
        from . import old_records

        old_records.prune_beside(self._keeper.engine, session)

    def remove_old_copy(self, session: Session, *, check_mode: bool) -> list[str]:
        """The stopped container under its other name."""
        from . import old_copy

        old = self._keeper.engine.find(session.subject_id)
        if old is None:
            return []
        if check_mode:
            old_copy.require_unused(session, old)
        else:
            old_copy.remove(session, self._keeper.engine, old)
        return [str(old["Name"]).lstrip("/")]
