# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the kernel says of a process in one line: /proc/PID/stat (proc(5)). Read here and nowhere else."""

from __future__ import annotations

# Places in the list that stat_fields() returns: proc(5) counts from 1, and the first two are left out.
STATE, PARENT, STARTED = 0, 1, 19


def parse_stat(text: str) -> list[str]:
    """The fields after a process's name, which may hold blanks and parentheses itself.

    :param text: of /proc/PID/stat.
    """
    return text.rpartition(")")[2].split()


def stat_fields(pid: int) -> list[str]:
    """The same of a process of this host.

    :raises OSError: when it is gone.
    """
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
        return parse_stat(handle.read())
