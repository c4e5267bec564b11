# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The processors of a host: those that there are, those that a container may use, and who is tied to some of them."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .task_traits import ALL, Processors
from .tasks import TaskGroup, read


def of_group(group: TaskGroup) -> set[int]:
    """The processors that a container may use: those of its cpuset, or all of the host."""
    path = group.path
    while len(path) > len("/sys/fs/cgroup"):
        with contextlib.suppress(OSError):
            return numbers(read(f"{path}/cpuset.cpus.effective"))
        path = os.path.dirname(path)
    return online()


def online() -> set[int]:
    """The processors of this host."""
    return numbers(read("/sys/devices/system/cpu/online"))


def tied(group: TaskGroup) -> list[dict[str, t.Any]]:
    """Which programs of a container have a task that is tied to some of its processors, and to which; each pair once."""
    trait = Processors("", of_group(group))
    found: set[tuple[str, tuple[int, ...]]] = set()
    for pid in group.pids():
        # A process or thread that ends meanwhile is left out.
        with contextlib.suppress(OSError):
            for task in map(int, os.listdir(f"/proc/{pid}/task")):
                value = trait.get(task)
                if value != ALL:
                    found.add((read(f"/proc/{pid}/comm").rstrip("\n"), tuple(value)))
    return [{"program": program, "processors": list(processors)} for program, processors in sorted(found)]


def numbers(text: str) -> set[int]:
    """A list as the kernel writes it: ``0-3,8``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _dash, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
