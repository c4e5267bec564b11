# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What original and copy of a container have in common: a session, the Docker Engine, and the engine that dumps and restores."""

from __future__ import annotations

from ..._engines import by_name as engines
from ..._session.session import Session
from .keeper import Keeper


class ByEngine:
    """A container in a session, on either host.

    :param keeper: the Docker Engine, where somebody has connected it.
    """

    def __init__(self, session: Session, keeper: Keeper | None = None) -> None:
        self.session = session
        self._keeper = keeper or Keeper()
        self._engine = engines.functions_of(session)

    @property
    def can_be_held(self) -> bool:
        """Whether its engine is ``runtime``."""
        return engines.can_hold(self.session)

    def require_held(self, held: bool) -> None:
        """Refuse a step of the other engine."""
        engines.require(self.session, engines.RUNTIME if held else engines.API)

    def reach(self, seconds: float | None = None) -> None:
        """Connect to the Docker Engine."""
        self._keeper.reach(seconds)
