# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""CRIU's own lock on a container's network, where a CRIU that was killed has left it.

CRIU drops every packet of the namespace from before it dumps until it lets the tasks go. A lock that is left cuts a container off
for good, though its tasks run. Only for the time after CRIU's end: nothing here asks whether it still needs the lock.
"""

from __future__ import annotations

import contextlib
import os
import re

from .._base.command import Runner, run
from .._base.errors import MigrationError

# Of CRIU's method `iptables`, its default; that of `nftables` is a table of its own.
_CHAIN = "CRIU"
_TABLE = re.compile(r"^table (inet CRIU-\d+)$", re.MULTILINE)


def lift(init: int, runner: Runner = run) -> bool:
    """Take away the lock from the network namespace of a process; returns whether there was one.

    :param init: the host's number of the container's first process.
    """
    try:
        if os.path.samefile(f"/proc/{init}/ns/net", "/proc/self/ns/net"):
            # CRIU locks no network that the container shares with its host.
            return False
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        # It has ended. As long as its parent has not noticed that, the kernel says that permission is denied.
        return False
    inside = ["nsenter", f"--net=/proc/{init}/ns/net"]
    lifted = False
    for program in ("iptables", "ip6tables"):
        # Where it is not installed CRIU had nothing to lock with.
        with contextlib.suppress(MigrationError):
            for hook in ("INPUT", "OUTPUT"):
                lifted |= runner([*inside, program, "-w", "-D", hook, "-j", _CHAIN]).rc == 0
            runner([*inside, program, "-w", "-F", _CHAIN])
            runner([*inside, program, "-w", "-X", _CHAIN])
    with contextlib.suppress(MigrationError):
        for table in _TABLE.findall(runner([*inside, "nft", "list", "tables"]).stdout):
            lifted |= runner([*inside, "nft", "delete", "table", *table.split()]).rc == 0
    return lifted
