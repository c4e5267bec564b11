# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The Docker Engine of this host, connected when it is first needed."""

from __future__ import annotations

import contextlib
import functools
import typing as t

from ..._docker.engine import CALL_TIMEOUT, Engine


class Keeper:
    """A step's connection to the engine. It is made when it is first needed: many steps need none, and to import docker-py
    takes longer than what they do.

    :param engine: an engine that is connected already.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        # That the engine has to be connected.
        self._seconds: float = CALL_TIMEOUT
        if engine is not None:
            self.engine = engine

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine.

        :raises MigrationError: ``engine_unreachable``, ``docker_py_missing``.
        """
        return Engine(seconds=self._seconds)

    def reach(self, seconds: float | None = None) -> None:
        """Connect to the engine, if that has not been done.

        :param seconds: that it has to answer.
        :raises MigrationError: as :attr:`engine`.
        """
        with self.within(CALL_TIMEOUT if seconds is None else seconds):
            pass

    @contextlib.contextmanager
    def within(self, seconds: float) -> t.Iterator[Engine]:
        """The engine, which is given that long to answer each call in this block, and to be connected.

        :raises MigrationError: ``engine_unreachable``, ``docker_py_missing``.
        """
        self._seconds = seconds
        try:
            engine = self.engine
        finally:
            self._seconds = CALL_TIMEOUT
        with engine.within(seconds):
            yield engine
