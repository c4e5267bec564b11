# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether the processes of a container can change the sysctls of its namespaces.

In a container as Docker makes it they cannot: /proc/sys is mounted read-only, and nobody in there has the capability to mount it
otherwise. Then the sysctls need not be read while the container stands still.

A process that makes a user namespace of its own has all capabilities there, but none over these: the kernel locks the read-only
mounts that come along, and mounts no new /proc where the old one is partly covered (mount_namespaces(7), user_namespaces(7)).
"""

from __future__ import annotations

import os
import typing as t

from .._host import mountinfo, namespaces
from .._host.tasks import read
from .side import Side

# By linux/capability.h. The first one sets what netlink has of the same settings (RTM_SETLINK, RTM_SETNEIGHTBL). The second one
# goes through /proc/PID/root of a process that sees another /proc. The third one mounts, and sets the name of the host.
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21}
_MASK = sum(1 << number for number in _CAPABILITIES.values())
# What a thread has, and what it can get by starting a program: the bounding set does not limit what is inherited.
_SETS = ("CapPrm", "CapBnd", "CapInh")


def can_write(side: Side) -> bool:
    """Whether any process of the container can change one of its sysctls.

    :raises OSError: when a process or a thread ended during the look.
    """
    return any(
        not all(namespaces.shares(pid, side.init, kind) for kind in ("mnt", "pid", "user"))
        # Each thread has capabilities of its own.
        or any(_has_capability(read(f"/proc/{pid}/task/{task}/status")) for task in os.listdir(f"/proc/{pid}/task"))
        for pid in side.group.pids()
    ) or has_writable_place(mountinfo.parse(read(f"/proc/{side.init}/mountinfo")))


def _has_capability(status: str) -> bool:
    """Whether a thread has one of the capabilities, or can get it.

    :param status: the text of its /proc/PID/task/TID/status.
    """
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return any(int(values.get(name, "f" * 16), 16) & _MASK for name in _SETS)


def has_writable_place(mounts: t.Sequence[mountinfo.KernelMount]) -> bool:
    """Whether sysctls can be written through one of the mounts of a container."""
    hidden = mountinfo.covered(mounts)
    seen = [one for one in mounts if one.kind == "proc" and one.number not in hidden]
    # What lies upon /proc/sys, whatever it is: writable mounts of proc among them are looked at themselves.
    places = {one.place for one in mounts if one.number not in hidden}
    return any(
        "rw" in one.options.split(",")
        and (one.root == "/sys" or one.root.startswith("/sys/") or _shows_sys(one, places))
        for one in seen
    )


def _shows_sys(mount: mountinfo.KernelMount, places: t.Collection[str]) -> bool:
    """Whether a mount of the whole of proc shows its directory sys, with nothing mounted upon it."""
    return mount.root == "/" and os.path.join(mount.place, "sys") not in places
