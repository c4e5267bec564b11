# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The decision of one host about a session: once made, it is never changed.

Files called ``ready.GO_SENT``, ``ready.ABORT`` ... are laid down before anything is frozen. To decide is to give one of them the
name ``decision`` by link(), which takes no room on the disk, and to flush the directory. When two processes decide at the same
moment, one of them learns that the other was first.

A disk may take no change any more while something stands still: its file system is read-only, or it reports errors. One of
a host's two decisions need not be on a disk to count, see ``phases.PRESUMED``: it is noted in memory then. The other has to be on
the disk before anybody acts on it, and is not made where that cannot be.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .phases import DECISIONS, PRESUMED, RUN

_DECISION, _READY = "decision", "ready."


class Decision:
    """The decision of the half of a session on this host.

    :param role: of this host.
    :param directory: of the session, on the disk.
    :param volatile: of the session, in memory. It is there until the host goes down or the session is closed.
    """

    def __init__(self, role: str, directory: str, volatile: str) -> None:
        self._decisions, self._presumed = DECISIONS[role], PRESUMED[role]
        self._directory = directory
        self._place = os.path.join(directory, _DECISION)
        self._memory = os.path.join(volatile, _DECISION)
        self._flushed = False

    def _ready(self, decision: str) -> str:
        return os.path.join(self._directory, _READY + decision)

    def lay_down(self) -> None:
        """Make the files that deciding needs, where they are not there yet.

        :raises OSError: where the disk does not take them.
        """
        for decision in self._decisions:
            if not os.path.exists(self._ready(decision)):
                durable.write(self._ready(decision), decision.encode() + b"\n")

    def read(self, acted_on: t.Callable[[], bool]) -> str | None:
        """The decision in force, or None.

        link() shows it to every process at once, and the process that made it may not have flushed it yet. If it were sent and
        then lost in a power cut, the host could decide otherwise the next time. So it is flushed before it is returned.

        :param acted_on: whether what follows it has been noted on the disk: then it was flushed before.
        :raises MigrationError: ``decision_not_durable`` where it is RUN and cannot be flushed.
        """
        found = self._on_disk()
        if found is None:
            return self._presumed if self._is_in_memory else None
        # Who reads GO_SENT asks the destination. That needs no flush: who sends it has it from make().
        self._flush(found, acted_on, required=found == RUN)
        return found

    def make(
        self,
        decision: str,
        acted_on: t.Callable[[], bool],
        *,
        alone: bool,
        with_room: t.Callable[[t.Callable[[], None]], None],
    ) -> str:
        """Decide, unless it has been decided.

        :param acted_on: see :meth:`read`.
        :param alone: whether nobody else can decide meanwhile: the caller holds the session's lock.
        :param with_room: calls what writes to the disk, see ``Session.write_even_when_full``.
        :returns: the decision that is in force.
        :raises OSError: where the disk does not take it, and it does not count in memory.
        :raises MigrationError: ``decision_not_durable`` where it may not be on the disk, and has to be.
        """
        found = self._on_disk()
        if found is None and self._is_in_memory:
            # By now the disk may take it, for the record.
            with contextlib.suppress(OSError):
                with_room(lambda: self._write(self._presumed))
            return self._presumed
        if found is None:
            try:
                with_room(lambda: self._write(decision))
            except OSError as exc:
                # A write that has failed may have come about all the same.
                found = self._on_disk()
                if found is None:
                    # No directory: somebody has closed the session.
                    if decision != self._presumed or not alone or isinstance(exc, FileNotFoundError):
                        raise
                    self._note_in_memory(exc)
                    return decision
            else:
                found = self._on_disk() or decision
        self._flush(found, acted_on, required=found == RUN or found == decision != self._presumed)
        return found

    def _on_disk(self) -> str | None:
        try:
            with open(self._place, encoding="ascii") as handle:
                return handle.read().strip()
        except FileNotFoundError:
            return None

    def _write(self, decision: str) -> None:
        with contextlib.suppress(FileExistsError):
            try:
                os.link(self._ready(decision), self._place)
            except FileNotFoundError:
                # The session was opened by a version that laid nothing down.
                durable.publish(self._place, decision.encode() + b"\n")

    @property
    def _is_in_memory(self) -> bool:
        return os.path.exists(self._memory)

    def _note_in_memory(self, failed: OSError) -> None:
        """Note the presumed decision where it counts until this host goes down.

        :raises OSError: *failed* where memory does not take it either.
        """
        try:
            # That it is there says all. Content would need a page more.
            os.close(os.open(self._memory, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError:
            raise failed from None

    def _flush(self, decision: str, acted_on: t.Callable[[], bool], *, required: bool) -> None:
        if self._flushed or acted_on():
            return
        try:
            durable.sync_directory(self._directory)
        except FileNotFoundError:
            # Who closed the session had it on the disk.
            pass
        except OSError as exc:
            if required:
                raise MigrationError(
                    "decision_not_durable",
                    f"{decision} has been decided, and {self._directory} reports an error when that is flushed ({exc}). A power "
                    "cut might take it back, so nothing is done because of it. Mend that file system, or restart this host: then "
                    "it is known whether it is there.",
                ) from exc
            return
        self._flushed = True
