# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container of a session as the steps of a migration get it, with an engine of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.copy import Copy
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.keeper import Keeper
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.kind import Containers
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.original import Original


class Nobody:
    """An engine that is not to be asked for anything."""


def original(session: Session, engine: Any = None) -> Original:
    """The original of a session on its source."""
    return Original(session, Keeper(engine or cast(Engine, Nobody())))


def copy(session: Session, engine: Any = None) -> Copy:
    """The copy of a session on its destination."""
    return Copy(session, Keeper(engine or cast(Engine, Nobody())))


def containers(engine: Any) -> Containers:
    """All containers of a host."""
    return Containers(Keeper(engine))


class AnyEngine:
    """What every connection to the Docker Engine has."""

    def __init__(self, **_settings: object) -> None:
        pass

    @contextmanager
    def within(self, _seconds: float) -> Iterator[None]:
        """Nobody waits for this one."""
        yield
