# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The surroundings of a container: all that its processes can see and that is not their memory.

Memory is proved by ``_host/fingerprints.py``. This is about the rest: sysctls, owners of pipes, addresses made inside, limits
and so on. Each topic is a module ``_surroundings_*.py`` with the functions of :class:`Topic`. They are asked in three steps:

* on the source while the container runs: :func:`look_ahead` and, right before the freeze, :func:`look_last`, what need not be
  read while it stands still;
* on the source while it is frozen: :class:`Reading`. Processes are read before the dump, because CRIU works in them;
  the rest is read beside the dump;
* on the destination while the copy is held: :func:`bring_over` carries what differs, and compares. A difference that is left
  is an error, and the source goes on.

What can be carried over is carried. What cannot is to be refused by a rule of the preflight
(``_preflight/rules/surroundings.py``) before anything is frozen; the comparison is there for what no rule knew.
"""

from __future__ import annotations

import contextlib
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from .._base.errors import MigrationError
from .._host import namespaces
from . import cgroup as surroundings_cgroup
from . import descriptors as surroundings_descriptors
from . import files as surroundings_files
from . import firewall as surroundings_firewall
from . import ipc as surroundings_ipc
from . import memory_files as surroundings_memory_files
from . import mounts as surroundings_mounts
from . import network as surroundings_network
from . import sockets as surroundings_sockets
from . import sysctls as surroundings_sysctls
from . import tasks as surroundings_tasks
from .side import Side

#: plain data, as it goes from host to host; it may hold secrets (keys among the sysctls), so it is never logged or returned
Data = t.Any

# How many differences a message names.
_NAMED = 8


class Topic(t.Protocol):
    """One topic of the surroundings; a module is one."""

    NAME: str
    """A stable name, the key of its data."""
    OF_PROCESSES: bool
    """Whether it reads the processes themselves, which CRIU works in while it dumps."""

    def look_ahead(self, side: Side) -> Data:
        """What can be read on the source while the container runs; None where there is nothing of the kind."""

    def take(self, side: Side, ahead: Data) -> Data:
        """The topic's data on the source, of a frozen container.

        :param ahead: what :meth:`look_ahead` returned.
        """

    def carry(self, side: Side, source: Data) -> None:
        """Make the held copy be like the source, as far as that can be done. What fails is left to :meth:`compare`.

        What becomes a path or an argument is checked here: the source is another host.

        :raises ValueError: for what no source can have found.
        """

    def compare(self, side: Side, source: Data) -> t.Sequence[str]:
        """In which points the held copy is not like the source: a part of a sentence each, without secrets."""


_TOPICS: tuple[Topic, ...] = (
    surroundings_descriptors,
    surroundings_sockets,
    surroundings_tasks,
    surroundings_ipc,
    surroundings_cgroup,
    surroundings_sysctls,
    surroundings_network,
    surroundings_firewall,
    surroundings_files,
    surroundings_memory_files,
    surroundings_mounts,
)
# What changes things of which other topics know: a cgroup decides on which processors its tasks run, and moving tasks or setting
# processors resets (before Linux 6.2) which ones a task is tied to; sysctls take addresses, routes and settings of devices away.
_FIRST = (surroundings_cgroup.NAME, surroundings_sysctls.NAME)
# What names things that other topics make: options of sockets name addresses and devices of the network.
_LAST = (surroundings_sockets.NAME,)


def look_ahead(side: Side) -> dict[str, Data]:
    """What every topic reads while the container runs. A topic that cannot read it now is asked without it later."""
    found = {}
    for topic in _TOPICS:
        try:
            found[topic.NAME] = topic.look_ahead(side)
        except (OSError, MigrationError):
            found[topic.NAME] = None
    return found


def look_last(side: Side, ahead: t.Mapping[str, Data]) -> dict[str, Data]:
    """The same, with what is read on the source in the last moment before the freeze.

    :param ahead: what :func:`look_ahead` returned.
    """
    sysctls = ahead.get(surroundings_sysctls.NAME)
    return {**ahead, surroundings_sysctls.NAME: sysctls and surroundings_sysctls.look_last(side, sysctls)}


def look_ahead_there() -> dict[str, Data]:
    """What can be read on the destination before there is a copy."""
    with contextlib.suppress(OSError):
        return {surroundings_sysctls.NAME: surroundings_sysctls.fresh()}
    return {}


class Reading:
    """The surroundings of a frozen container on the source, being read.

    :param ahead: what :func:`look_ahead` returned.
    :raises MigrationError: ``surroundings_unreadable``.
    """

    def __init__(self, side: Side, ahead: t.Mapping[str, Data]) -> None:
        self._parts: dict[str, Data] = {}
        self._pool = ThreadPoolExecutor(max_workers=1)
        for topic in (one for one in _TOPICS if one.OF_PROCESSES):
            self._parts[topic.NAME] = _taken(topic, side, ahead)
        self._rest: dict[str, Future[Data]] = {
            topic.NAME: self._pool.submit(_taken, topic, side, ahead) for topic in _TOPICS if not topic.OF_PROCESSES
        }

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def result(self) -> dict[str, Data]:
        """All of it, when it has been read.

        :raises MigrationError: ``surroundings_unreadable``.
        """
        return {**self._parts, **{name: part.result() for name, part in self._rest.items()}}


def _taken(topic: Topic, side: Side, ahead: t.Mapping[str, Data]) -> Data:
    try:
        return topic.take(side, ahead.get(topic.NAME))
    except OSError as exc:
        raise MigrationError(
            "surroundings_unreadable", f"Cannot read the surroundings of the container ({topic.NAME}): {exc}."
        ) from exc


def bring_over(side: Side, source: t.Mapping[str, Data]) -> list[str]:
    """Carry the surroundings of the source over to a held copy, and compare.

    What one topic carries may change what another one has looked at. So nothing is compared before all is carried, and what
    others depend on is carried before them. One after the other: threads that read files of /proc wait for each other in Python
    (measured with three processes: 25 ms side by side, 9 ms in turns). And all in the namespaces of the copy, which are entered
    once: each time is a thread, for which a busy host takes milliseconds.

    :param side: the copy.
    :param source: what :class:`Reading` returned on the source.
    :returns: in which points the two still differ, see :func:`sentence`.
    """
    try:
        return namespaces.inside(side.init, side.namespaces(), lambda: _bring_over(side, source))
    except OSError as exc:
        return [f"its namespaces cannot be entered ({exc})"]


def _bring_over(side: Side, source: t.Mapping[str, Data]) -> list[str]:
    source = _in_terms_of_the_copy(side, source)
    asked = [topic for topic in _TOPICS if source.get(topic.NAME) is not None]
    failed: dict[str, t.Sequence[str]] = {}

    def carry(topic: Topic) -> None:
        try:
            topic.carry(side, source[topic.NAME])
        except (OSError, ValueError) as exc:
            failed[topic.NAME] = _incomparable(topic, exc)

    def compare(topic: Topic) -> t.Sequence[str]:
        try:
            return failed.get(topic.NAME) or topic.compare(side, source[topic.NAME])
        except (OSError, ValueError) as exc:
            return _incomparable(topic, exc)

    side.find_processes()
    for topic in sorted(asked, key=lambda one: (one.NAME in _LAST, one.NAME not in _FIRST)):
        carry(topic)
    return [difference for topic in asked for difference in compare(topic)]


def _incomparable(topic: Topic, exc: Exception) -> list[str]:
    return [f"{topic.NAME} cannot be compared ({exc})"]


def _in_terms_of_the_copy(side: Side, source: t.Mapping[str, Data]) -> t.Mapping[str, Data]:
    """The same with the names that network devices have on the copy: the engine may have given them in another order."""
    network = source.get(surroundings_network.NAME)
    if network is None:
        return source
    try:
        names = surroundings_network.device_names(side, network)
    except OSError:
        # The topic itself will say so.
        return source
    topics = (surroundings_sysctls, surroundings_firewall, surroundings_sockets)
    renamed = {one.NAME: one.renamed(source[one.NAME], names) for one in topics if source.get(one.NAME) is not None}
    return {**source, **renamed}


def sentence(differences: t.Sequence[str]) -> str:
    """Differences, for a person."""
    more = f", and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
    return f"The copy does not see what the original saw: {'; '.join(differences[:_NAMED])}{more}."
