# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Keys that a container's programs have given to the kernel (see keyrings(7)), as far as that can be seen from outside.

runc gives every container a session keyring of its own, which bears the container's name and which root may see. Nobody else may
look into the other keyrings of its processes. Docker's own seccomp profile forbids all of it, so that only containers without it
can have keys.
"""

from __future__ import annotations


def count(container: str, path: str = "/proc/keys") -> int:
    """How many keys are in the session keyring of a container.

    :param container: its id.
    """
    # 13ed18f4 I--Q---    10 perm 3f1b0000     0     0 keyring   _ses.ID: 2
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            for line in handle:
                left, _colon, number = line.rpartition(": ")
                if left.endswith(f" _ses.{container}") and number.strip().isdigit():
                    return int(number)
    except OSError:
        # A kernel without keys.
        pass
    return 0
