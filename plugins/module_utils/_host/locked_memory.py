# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Processes that have locked all their memory, see mlockall(2).

CRIU locks again what was locked. That what a process maps later is to be locked too (MCL_FUTURE) is kept by the kernel with
the process, shown nowhere, and lost in a restore (run with CRIU 4.2.1). It shows in its effect: all memory is locked that can
be written to.
"""

from __future__ import annotations

import re

_LOCKED = re.compile(r"^VmLck:\s+(\d+) kB", re.MULTILINE)
_FLAGS = re.compile(r"^VmFlags:(.*)$", re.MULTILINE)
# By the documentation of /proc/PID/smaps: what the kernel never locks is memory of devices, of huge pages, and without a page
# behind it.
_NEVER = frozenset({"io", "pf", "ht", "mm"})


def has_some(status: str) -> bool:
    """Whether any of a process' memory is locked: only then :func:`is_all` is asked, for which the kernel looks at all of it.

    :param status: the text of /proc/PID/status.
    """
    found = _LOCKED.search(status)
    return found is not None and found.group(1) != "0"


def is_all(smaps: str) -> bool:
    """Whether all memory of a process that it may write to is locked.

    :param smaps: the text of /proc/PID/smaps; empty where the process is gone.
    """
    flags = [set(line.split()) for line in _FLAGS.findall(smaps)]
    written = [one for one in flags if "wr" in one and not one & _NEVER]
    return bool(written) and all("lo" in one for one in written)
