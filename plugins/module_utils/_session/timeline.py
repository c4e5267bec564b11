# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The events of the frozen time on both hosts, with their times.

Events are noted in memory, and written into the journal when nothing is frozen any more. Each line of the journal is a flush of
the disk, which would be measured with the rest.
"""

from __future__ import annotations

import math
import time
import typing as t

from .._base import printable
from .phases import DESTINATION, SOURCE

#: events of the source, in their usual order
FROZEN, DUMPED, SENT, HELD = "frozen", "dumped", "sent", "held"
#: the last event: the copy runs
RUNNING = "running"
#: events of the destination while it holds the copy
RECEIVED, RESTORED, RECOGNISED, COMPARED, FLUSHED = "received", "restored", "recognised", "compared", "flushed"
#: another one: its engine has noted that it runs
NOTED = "noted"
_OF_DESTINATION = frozenset((RECEIVED, RESTORED, RECOGNISED, COMPARED, NOTED, FLUSHED))

Events = list[tuple[str, float]]
"""Names of events, each with the seconds since the first moment of its timeline."""


def now() -> float:
    """The clock of timelines: it goes on while the host is suspended, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Timeline:
    """The events of one host.

    :param began: its first moment, by :func:`now`.
    """

    def __init__(self, began: float | None = None) -> None:
        self.began = now() if began is None else began
        self._events: Events = []

    def record(self, event: str, at: float | None = None) -> float:
        """Note an event; returns the seconds since the first moment.

        :param at: when it was, by :func:`now`; now if left out.
        """
        seconds = (now() if at is None else at) - self.began
        self._events.append((event, seconds))
        return seconds

    @property
    def events(self) -> Events:
        """Those noted so far, in the order of their time."""
        return sorted(self._events, key=lambda one: one[1])


def parse(data: t.Any) -> Events:
    """The events of a destination's timeline, as they have come from there.

    :raises ValueError: for anything else.
    """
    try:
        found = [(str(event), float(seconds)) for event, seconds in data]
    except TypeError as exc:
        raise ValueError(f"this is no timeline: {printable.text(str(data))[:80]}") from exc
    if not all(event in _OF_DESTINATION and math.isfinite(seconds) for event, seconds in found):
        raise ValueError("an unknown event of a timeline")
    return found


class Both(t.NamedTuple):
    """The timelines of both hosts."""

    source: Events
    destination: Events
    """It begins when the source has sent all, apart from the time that one message takes."""

    def report(self, running: float) -> list[dict[str, t.Any]]:
        """Both timelines as one, by the clock of the source.

        :param running: seconds until the copy ran.
        :returns: ``event``, ``host`` (``source`` or ``destination``) and ``seconds`` since the freeze began, by time.
        """
        sent = dict(self.source).get(SENT, 0.0)
        found: list[tuple[float, str, str]] = [
            *((seconds, SOURCE, event) for event, seconds in self.source),
            *((sent + seconds, DESTINATION, event) for event, seconds in self.destination),
            (running, DESTINATION, RUNNING),
        ]
        return [{"event": event, "host": host, "seconds": round(seconds, 4)} for seconds, host, event in sorted(found)]
