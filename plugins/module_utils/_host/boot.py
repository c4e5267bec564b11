# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What tells this start of the host from others, and this host from other hosts."""

from __future__ import annotations

from . import procfs


def boot_id() -> str:
    """The kernel's random id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
        return handle.read().strip()


def boot_identity() -> str:
    """What tells this start of the host from the one before it.

    The kernel's boot id alone is not enough: where hosts share a kernel (system containers) it outlives their reboot, so
    the start time of PID 1 goes with it.
    """
    return f"{boot_id()}/{procfs.stat_fields(1)[procfs.STARTED]}"


def host_identity() -> str:
    """What tells this host from every other one at this moment."""
    with open("/etc/machine-id", encoding="ascii") as handle:
        return f"{handle.read().strip()}/{boot_identity()}"
