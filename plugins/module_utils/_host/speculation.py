# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Threads that have asked the processor not to speculate for them (PR_SET_SPECULATION_CONTROL of prctl(2)).

Programs do that to keep secrets from others on the same processor. CRIU does not restore it, and only the thread itself could.
/proc/PID/status tells it, in words that depend on the processor and on how the kernel was started too. So a loss is only what
was asked for on one host and is not in force on the other.
"""

from __future__ import annotations

import typing as t

#: lines of /proc/PID/status, and what they are called in a message
LABELS = {
    "Speculation_Store_Bypass": "its protection from speculative stores",
    "SpeculationIndirectBranch": "its protection from speculative branches",
}
#: of :func:`state`
ASKED_FOR, LACKING = "asked for", "lacking"

# What the kernel says (fs/proc/array.c): a thread has asked for it, for good or not; and nothing protects the thread.
_ASKED = frozenset({"thread mitigated", "conditional disabled"})
_FOR_GOOD = frozenset({"thread force mitigated", "conditional force disabled"})
_LACKING = frozenset({"thread vulnerable", "vulnerable", "conditional enabled", "always enabled"})


def state(name: str, status: t.Mapping[str, str]) -> str | None:
    """Whether a thread has asked for one of :data:`LABELS`, or lacks it; None where the host does it for all or need not.

    Some kernels give every thread with a seccomp filter the kind that is for good (all before Linux 5.16, newer ones by an option
    of the kernel). That is no wish of the program's, and comes back with the filter where the destination's kernel does the same.

    :param status: the lines of its /proc/PID/status, by what is in front of the colon.
    """
    value = status.get(name)
    if value in _ASKED or (value in _FOR_GOOD and status.get("Seccomp") != "2"):
        return ASKED_FOR
    return LACKING if value in _LACKING else None
