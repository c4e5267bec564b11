# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Earlier moves of a thing: the ids that it had on other hosts, and what it left on this host."""

from __future__ import annotations

import typing as t

from .phases import DESTINATION, SOURCE
from .session import Session, id_key


def ancestry(subject_id: str) -> list[str]:
    """The ids that a thing of this host had before, on any host; the newest comes first."""
    for session in reversed(Session.all()):
        if session.role == DESTINATION and session.data("run").get(id_key(session.kind)) == subject_id:
            return [session.subject_id, *session.facts.get("ancestry", [])]
    return []


def past_of(ids: t.Collection[str]) -> list[Session]:
    """Earlier sessions that moved a thing away from this host. What they left here belongs to that thing.

    :param ids: all ids that it has ever had.
    """
    return [
        earlier
        for earlier in Session.all()
        if earlier.role == SOURCE and earlier.reached("committed") and earlier.subject_id in ids
    ]
