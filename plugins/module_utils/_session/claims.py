# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Who owns a container: the one session of this host that is at work on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t

from .._base import durable
from .._base.errors import MigrationError


class Claims:
    """The claims on the containers of this host: a file for each, named by the container, with its session's id.

    :param state_root: the directory of all sessions.
    :param phase_of: the phase that a session is in; None for one that is not there.
    """

    def __init__(self, state_root: str, phase_of: t.Callable[[str], str | None]) -> None:
        self._directory = os.path.join(state_root, "locks")
        self._phase_of = phase_of

    def take(self, container: str, session: str) -> None:
        """Claim a container for a session.

        :raises MigrationError: ``session_busy`` where another session owns it.
        """
        with self._one_at_a_time():
            self._take(container, session)

    def release(self, container: str, session: str) -> None:
        """Let another session have the container."""
        path = self._path(container)
        with self._one_at_a_time(), contextlib.suppress(FileNotFoundError):
            if self._owner(path) == session:
                os.unlink(path)
                durable.sync_directory(self._directory)

    def _path(self, container: str) -> str:
        return os.path.join(self._directory, container)

    @staticmethod
    def _owner(path: str) -> str:
        with open(path, encoding="ascii") as handle:
            return handle.read()

    @contextlib.contextmanager
    def _one_at_a_time(self) -> t.Iterator[None]:
        """One at a time changes who owns what: looking at an old claim and replacing it are two steps."""
        durable.make_directory(self._directory)
        fd = os.open(os.path.join(self._directory, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _take(self, container: str, session: str) -> None:
        path = self._path(container)
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
            # One that only waits to tell the other host what has been decided does not own the container any more.
            if phase not in (None, "aborted", "committed", "refused", "closed"):
                raise MigrationError(
                    "session_busy",
                    f"Session {owner} (phase {phase}) is at work on this container. Let it end, or settle it with "
                    "playbooks/recover.yml.",
                    session=owner,
                    phase=phase,
                )
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        raise MigrationError(
            "session_busy", "Other sessions keep taking this container; try again.", container=container
        )
