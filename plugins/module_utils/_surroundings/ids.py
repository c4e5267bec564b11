# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Users and groups as a container counts them: an engine with userns-remap gives it others than the host has."""

from __future__ import annotations

import typing as t

_ALL = [(0, 0, 4294967295)]


class Ids:
    """The map of a user namespace.

    :param lines: of ``/proc/PID/uid_map`` or ``gid_map``, see user_namespaces(7).
    """

    def __init__(self, lines: t.Iterable[str]) -> None:
        ranges = [tuple(int(number) for number in line.split()) for line in lines]
        self._ranges = ranges or _ALL
        #: whether the container's are others than the host's at all
        self.differ = self._ranges != _ALL

    @classmethod
    def of(cls, pid: int, kind: str) -> Ids:
        """The map that a process is under.

        :param kind: ``uid`` or ``gid``.
        :raises OSError: when the process is gone.
        """
        with open(f"/proc/{pid}/{kind}_map", encoding="ascii") as handle:
            return cls(handle)

    def inside(self, number: int) -> int:
        """What the container calls an id of the host; the id itself where the container has no name for it."""
        for inner, outer, count in self._ranges:
            if outer <= number < outer + count:
                return number - outer + inner
        return number

    def outside(self, number: int) -> int:
        """What the host calls an id of the container."""
        for inner, outer, count in self._ranges:
            if inner <= number < inner + count:
                return number - inner + outer
        return number
