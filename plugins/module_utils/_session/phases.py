# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The phases of a session on each of the two hosts, which phase may follow which, and the decisions. Pure."""

from __future__ import annotations

SOURCE = "source"
DESTINATION = "destination"

GO_SENT = "GO_SENT"
ABORT = "ABORT"
RUN = "RUN"
REFUSED = "REFUSED"
DECISIONS: dict[str, tuple[str, str]] = {SOURCE: (GO_SENT, ABORT), DESTINATION: (RUN, REFUSED)}
# What a host decides when it starts again and finds no decision: the frozen tasks have ended with it, so the other one cannot be
# decided any more. Such a decision that a power cut takes back is made again. So it counts also where it is on no disk.
PRESUMED: dict[str, str] = {SOURCE: ABORT, DESTINATION: REFUSED}
# The phases that are entered when something has been done because of a decision.
DECIDED = frozenset({"committed", "aborted", "run", "refused", "closed"})

# Which phase may follow which. A phase is entered when what it names has been DONE, except the few that are intents
# because undoing needs to know of a thing half done: arming, freezing, starting (journalled before the act).
TRANSITIONS: dict[str, dict[str, tuple[str, ...]]] = {
    SOURCE: {
        "opened": ("prepared", "aborted"),
        "prepared": ("arming", "aborted"),
        "arming": ("armed", "aborted"),
        "armed": ("freezing", "aborted"),
        # Once for each attempt.
        "freezing": ("freezing", "dumped", "aborted"),
        "dumped": ("sent", "aborted"),
        # held: the destination has restored the copy and keeps it frozen (only where a copy can be held).
        "sent": ("held", "committed", "aborted"),
        "held": ("committed", "aborted"),
        "committed": ("closed",),
        "aborted": ("closed",),
        "closed": (),
    },
    DESTINATION: {
        "opened": ("creating", "refused"),
        "creating": ("created", "refused"),
        "created": ("starting", "refused"),
        "starting": ("held", "run", "refused"),
        "held": ("run", "refused"),
        "run": ("closed",),
        "refused": ("closed",),
        "closed": (),
    },
}
