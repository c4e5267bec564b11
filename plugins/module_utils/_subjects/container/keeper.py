# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The Docker Engine of this host, connected when it is first needed."""

from __future__ import annotations

import functools

from ..._docker.engine import Engine


class Keeper:
    """A step's connection to the engine. Many steps do without one: importing docker-py takes longer than what they do.

    :param engine: one that is connected.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        if engine is not None:
            self.engine = engine

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine.

        :raises MigrationError: ``engine_unreachable``, ``docker_py_missing``.
        """
        return Engine()
