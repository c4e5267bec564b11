# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Freezing what is moved, with the watchdog behind it."""

from __future__ import annotations

import time

from .._session import timeline, watchdog
from .._subjects.subject import Original

# How often a freeze is tried again because of something that may end by itself.
FOREIGN_ATTEMPTS = 20
_PAUSE_SECONDS = 0.25


def freeze(original: Original) -> None:
    """Put aside what would start the original again by itself, then freeze it.

    :raises MigrationError: ``no_space``; that of :meth:`Original.in_the_way` when something prevents the freeze at every attempt.
    """
    session = original.session
    session.prepare_decision()
    session.enter("arming", **original.make_ready())
    session.expect_end(session.data("arming")["bytes"])
    watchdog.prove(session.id)
    original.put_aside()
    session.enter("armed")
    found: list[str] = []
    for _attempt in range(FOREIGN_ATTEMPTS):
        original.look_last()
        original.keep_newcomers_out()
        session.enter("freezing", at=timeline.now())
        found = original.stop()
        if not found:
            return
        original.step_back()
        time.sleep(_PAUSE_SECONDS)
    raise original.in_the_way(found)
