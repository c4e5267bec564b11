# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which session of this host owns a thing that is moved. There is only one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from .._base import durable
from .._base.errors import MigrationError


class Claims:
    """The claims on what is moved on this host: a file for each, named by its id, with its session's id.

    :param state_root: the directory of all sessions.
    :param phase_of: the phase that a session is in; None for one that is not there.
    """

    def __init__(self, state_root: str, phase_of: t.Callable[[str], str | None]) -> None:
        self._directory = os.path.join(state_root, "locks")
        self._phase_of = phase_of

    def take(self, subject: str, session: str, kind: str) -> None:
        """Claim a thing for a session.

        :param subject: its id.
        :param kind: what it is, for the message.
        :raises MigrationError: ``session_busy`` where another session owns it.
        """
        with self._one_at_a_time():
            self._take(subject, session, kind)

    def release(self, subject: str, session: str) -> None:
        """Let another session have the thing."""
        path = self._path(subject)
        with self._one_at_a_time(), contextlib.suppress(FileNotFoundError):
            if self._owner(path) == session:
                os.unlink(path)
                durable.sync_directory(self._directory)

    def _path(self, subject: str) -> str:
        return os.path.join(self._directory, subject)

    @staticmethod
    def _owner(path: str) -> str:
        with open(path, encoding="ascii") as handle:
            return handle.read()

    @contextlib.contextmanager
    def _one_at_a_time(self) -> t.Iterator[None]:
        """Only one process at a time changes claims: to look at an old claim and to replace it are two steps."""
        durable.make_directory(self._directory)
        fd = os.open(os.path.join(self._directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _take(self, subject: str, session: str, kind: str) -> None:
        path = self._path(subject)
        for _attempt in range(5):
            if durable.publish(path, session.encode()):
                return
            try:
                owner = self._owner(path)
            except FileNotFoundError:
                continue
            if owner == session:
                return
            phase = self._phase_of(owner)
            # One that only waits to tell the other host what has been decided does not own it any more.
            if phase not in (None, "aborted", "committed", "refused", "closed"):
                raise MigrationError(
                    "session_busy",
                    f"Session {owner} (phase {phase}) is at work on this {kind}. Let it end, or settle it with "
                    "playbooks/recover.yml.",
                    session=owner,
                    phase=phase,
                )
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        raise MigrationError("session_busy", f"Other sessions keep taking this {kind}; try again.", **{kind: subject})
