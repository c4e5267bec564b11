# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which container is looked at, on which host: what every topic of the surroundings is given."""

from __future__ import annotations

import contextlib
import functools
import os
import typing as t

from .._host import namespaces
from .._host.fingerprints import inner_pid
from .._host.tasks import TaskGroup, read


class Side:
    """A container on one of the two hosts, its processes frozen or at work.

    :param init: its first process, as this host numbers it.
    :param group: all its tasks.
    :param directory: where the engine keeps the files of this container (``DATA_ROOT/containers/ID``).
    :param own_network: whether its network namespace is its own alone, so that it may be changed.
    :param ignored: ids of rules of the preflight that the user does not heed.
    :param ahead: on the destination, what was read there before the freeze, by the names of topics.
    :param keeps_connections: whether connections to other hosts may go on. Else their sockets are restored closed.
    """

    def __init__(
        self,
        init: int,
        group: TaskGroup,
        directory: str,
        *,
        own_network: bool,
        ignored: t.Iterable[str] = (),
        ahead: t.Mapping[str, t.Any] | None = None,
        keeps_connections: bool = True,
    ) -> None:
        self.init = init
        self.group = group
        self.directory = directory
        self.own_network = own_network
        self.ignored = frozenset(ignored)
        self.ahead = ahead or {}
        self.keeps_connections = keeps_connections
        #: what topics note while they carry, for their comparison, by their names
        self.notes: dict[str, t.Any] = {}
        #: whether a sysctl was written since its network was first looked at: some take addresses and routes away
        self.sysctls_written = False

    @functools.cached_property
    def statuses(self) -> dict[int, str]:
        """The text of /proc/PID/status of each of its processes, by the number that this host gives it."""
        found = {}
        for pid in self.group.pids():
            # Nothing ends while it stands still, but a look ahead is made while it runs.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[pid] = read(f"/proc/{pid}/status")
        return found

    @functools.cached_property
    def processes(self) -> dict[str, int]:
        """Its processes: the number that each has inside of the container, to that which this host gives it."""
        return {inner_pid(status): pid for pid, status in self.statuses.items()}

    def find_processes(self) -> None:
        """Read which there are, before a topic moves processes between cgroups."""
        self.processes.keys()

    def namespaces(self) -> list[str]:
        """The kinds of namespaces that are its own and may be changed; those of mounts and PIDs are not among them."""
        kinds = [kind for kind in ("ipc", "uts") if self.owns(kind)]
        return ["net", *kinds] if self.own_network and self.owns("net") else kinds

    def owns(self, kind: str) -> bool:
        """Whether its namespace of a kind is not that of the host.

        :param kind: as in ``/proc/PID/ns``.
        """
        return not namespaces.shares(self.init, os.getpid(), kind)
