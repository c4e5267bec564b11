# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Files through which a session on the destination and the runtime shim speak about one container.

The shim (``roles/checkpointing/files/livemigrate-runc``) stands in front of runc for the copy of a container. As long as the
container's mark lies in ``/var/lib/livemigrate/restores/ID`` without a tombstone in it, the shim starts the container only
from the checkpoint in ``/run/livemigrate/restores/ID``, once, leaves it held, and lets nobody thaw or enter it. The mark survives
a reboot, the checkpoint does not: so a copy that was never handed over is never started afresh beside the live one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import typing as t

from .._base import durable, valid_names
from .._base.errors import MigrationError
from .._criu import log as criu_log
from .._session.session import STATE_ROOT, VOLATILE_ROOT, Session

_SESSION, _CONSUMED = "session", "consumed"
_READY, _RESTORING, _HELD, _PLUMBED, _REFUSED = "ready", "restoring", "held", "plumbed", "refused"


class Held(t.NamedTuple):
    """A restored container whose tasks stand still."""

    init: int
    """The host's number of its first process."""
    cgroup: str
    """The directory of its cgroup."""


class Mark:
    """The mark of one container, and its place for the checkpoint."""

    def __init__(self, container_id: str, *, state_root: str = STATE_ROOT, volatile_root: str = VOLATILE_ROOT) -> None:
        container = valid_names.container_id(container_id)
        self.directory = os.path.join(state_root, "restores", container)
        self.work = os.path.join(volatile_root, "restores", container)

    @classmethod
    def of(cls, session: Session, container_id: str | None = None) -> Mark:
        """The mark of a session's copy, below the session's own roots.

        :param container_id: of the copy, where the session has not noted it yet.
        """
        container = container_id or session.data("created")["container_id"]
        return cls(container, state_root=session.state_root, volatile_root=session.volatile_root)

    # -- the durable part --------------------------------------------------------------------------------------

    def make(self, session: str) -> None:
        """Mark the container as the copy of a session. From here on it starts in no other way than from its checkpoint."""
        durable.make_directory(os.path.dirname(self.directory))
        durable.make_directory(self.directory)
        durable.write(os.path.join(self.directory, _SESSION), session.encode() + b"\n")
        os.makedirs(os.path.dirname(self.work), mode=0o700, exist_ok=True)
        os.makedirs(self.work, mode=0o700, exist_ok=True)

    @property
    def session(self) -> str | None:
        """The session that it is of; None where making it was cut off."""
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.directory, _SESSION), "rb") as handle:
            return handle.read().decode("utf-8", "replace").strip()
        return None

    @property
    def exists(self) -> bool:
        """Whether the container is marked, consumed or not."""
        return os.path.isdir(self.directory)

    @property
    def consumed(self) -> bool:
        """Whether the copy has been let go: from then on it is a container like any other."""
        return os.path.exists(os.path.join(self.directory, _CONSUMED))

    def consume(self) -> None:
        """Write the tombstone: from here on the shim is runc for this container. Only after RUN has been decided."""
        if self.exists and not self.consumed:
            durable.publish(os.path.join(self.directory, _CONSUMED), b"")

    def remove(self) -> None:
        """Take the mark and the checkpoint away, of a container that is no more."""
        shutil.rmtree(self.work, ignore_errors=True)
        if self.exists:
            shutil.rmtree(self.directory)
            durable.sync_directory(os.path.dirname(self.directory))

    # -- the volatile part -------------------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        """A path in the place for the checkpoint."""
        return os.path.join(self.work, *parts)

    @property
    def images(self) -> str:
        """CRIU's images: a directory, or a link to one on a disk."""
        return self.path("images")

    def log(self) -> str:
        """What CRIU wrote during the restore; empty where it has not begun."""
        return self._text("work", "restore.log")

    def failure(self) -> str:
        """Why the action script made the restore fail; empty where it did not."""
        return self._text("failed")

    def _text(self, *names: str) -> str:
        with (
            contextlib.suppress(FileNotFoundError),
            open(self.path(*names), encoding="utf-8", errors="replace") as handle,
        ):
            return handle.read()
        return ""

    def set_options(self, lines: t.Iterable[str]) -> None:
        """CRIU's options for this one restore, a line each, as in /etc/criu/*.conf."""
        durable.write(self.path("criu.conf"), "".join(line + "\n" for line in lines).encode())

    def use_options_of_host(self) -> None:
        """Once the copy runs: runc goes by the options' name until the next start of the container, and a dump before that is to
        read what it reads for every container."""
        beside = self.path("criu.conf.next")
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            os.symlink(criu_log.CONFIGURATION, beside)
            os.replace(beside, self.path("criu.conf"))

    def set_fence(self, close: str) -> None:
        """The rules for nft by which the copy's network is closed before its sockets are there."""
        durable.write(self.path("fence"), close.encode())

    def set_addresses(self, addresses: t.Iterable[str]) -> None:
        """The addresses that sockets in the images are tied to; a device stands in with them until the engine's own is there."""
        durable.write(self.path("addresses"), "".join(address + "\n" for address in addresses).encode())

    def set_sysctls(self, lines: t.Iterable[str]) -> None:
        """The sysctls of the network namespace that have to be there before the copy's sockets, as lines ``NAME VALUE``."""
        durable.write(self.path("sysctls"), "".join(line + "\n" for line in lines).encode())

    def set_ready(self) -> None:
        """Say that the checkpoint is whole."""
        self._touch(_READY)

    @property
    def ready(self) -> bool:
        """Whether the checkpoint is whole."""
        return os.path.exists(self.path(_READY))

    @property
    def plumbed(self) -> bool:
        """Whether the engine has made the network of the held copy. It is about to note that the copy runs."""
        return os.path.exists(self.path(_PLUMBED))

    @property
    def held(self) -> Held | None:
        """What was restored and stands still, or None."""
        return self._process(_HELD)

    @property
    def cgroup(self) -> str:
        """The cgroup in which a restore is at work or its tasks are held, as the action script says; else nothing."""
        found = self.held or self._process(_RESTORING)
        return found.cgroup if found is not None else ""

    def _process(self, name: str) -> Held | None:
        # ValueError: two lines that the action script did not write say nothing.
        with contextlib.suppress(FileNotFoundError, ValueError), open(self.path(name), encoding="utf-8") as handle:
            pid, cgroup = handle.read().splitlines()[:2]
            return Held(int(pid), cgroup)
        return None

    def refuse(self) -> None:
        """Tell the shim to give up: it restores nothing, and lets nothing in."""
        with contextlib.suppress(FileNotFoundError):
            self._touch(_REFUSED)

    def forget_checkpoint(self) -> None:
        """Delete the images and all that was said about them, but not the options, which runc's own notes go on naming."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.work):
                path = self.path(name)
                if name == "criu.conf":
                    continue
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    # Somebody else may settle the session at the same time.
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)

    def _touch(self, name: str) -> None:
        with open(self.path(name), "w", encoding="ascii"):
            pass


def _all(state_root: str, volatile_root: str) -> t.Iterator[Mark]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(state_root, "restores")):
            with contextlib.suppress(MigrationError):
                yield Mark(name, state_root=state_root, volatile_root=volatile_root)


def of_session(session: Session) -> list[Mark]:
    """The marks that a session has made; a container is marked before its id is in the session's journal."""
    return [mark for mark in _all(session.state_root, session.volatile_root) if mark.session == session.id]


def prune(containers: t.Container[str], *, state_root: str = STATE_ROOT, volatile_root: str = VOLATILE_ROOT) -> None:
    """Remove the marks of containers that are no more, and their places for a checkpoint.

    :param containers: the ids of all containers of this host.
    """
    for mark in _all(state_root, volatile_root):
        if os.path.basename(mark.directory) not in containers:
            with contextlib.suppress(OSError):
                if mark.consumed or _is_over(mark.session, state_root, volatile_root):
                    mark.remove()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(volatile_root, "restores")):
            # A mark is made before its place.
            marked = os.path.isdir(os.path.join(state_root, "restores", name))
            if valid_names.ID_PATTERN.fullmatch(name) and name not in containers and not marked:
                shutil.rmtree(os.path.join(volatile_root, "restores", name), ignore_errors=True)


def _is_over(session: str | None, state_root: str, volatile_root: str) -> bool:
    """Whether nobody works on a session any more that has made a mark. One whose making was cut off names none."""
    if session is None:
        return False
    try:
        return Session(session, state_root=state_root, volatile_root=volatile_root).ended
    except MigrationError:
        return True
