# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The tasks of a container as the kernel has them: found, frozen, held, thawed, killed, without asking Docker.

Docker answers for a container as a whole and holds a lock while it does; what must be certain during a handover (is
everything frozen, is nothing left) is read from the container's cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import typing as t

from .._base.errors import MigrationError
from . import procfs

_POLL_SECONDS = 0.005
_READ_BYTES = 1 << 16
_CGROUPS = "/sys/fs/cgroup"


def read(path: str) -> str:
    """A file of /proc, whole.

    :raises OSError: as reading does.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, _READ_BYTES)]
        while parts[-1]:
            parts.append(os.read(descriptor, _READ_BYTES))
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def cgroup_of(pid: int) -> str:
    """The directory of a process' cgroup (version 2).

    :raises MigrationError: ``process_gone``; ``cgroup_v1`` where the host has no version 2 hierarchy for it.
    """
    try:
        # A container may call its own cgroups what it likes.
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as handle:
            lines = handle.read().splitlines()
    except FileNotFoundError:
        raise MigrationError("process_gone", f"Process {pid} has ended.", pid=pid) from None
    for line in lines:
        if line.startswith("0::"):
            path = _CGROUPS + line[3:]
            if os.path.exists(os.path.join(path, "cgroup.events")):
                return path
    raise MigrationError(
        "cgroup_v1",
        "This host uses cgroup version 1, whose freezer cannot be relied on. Boot it with cgroup version 2 "
        "(systemd.unified_cgroup_hierarchy=1).",
    )


def group_of_id(container_id: str, known_path: str = "") -> TaskGroup | None:
    """The group of a container by the name that runc gives it, without asking Docker.

    :param known_path: a cgroup that is said to be the container's, or to lie within that; believed where its path bears the name.
    """
    path = _named_part(container_id, known_path)
    if path:
        return TaskGroup(path) if os.path.isdir(path) else None
    names = _names_of(container_id)
    for usual in (f"{_CGROUPS}/system.slice/{names[0]}", f"{_CGROUPS}/docker/{names[1]}"):
        if os.path.isdir(usual):
            return TaskGroup(usual)
    for directory, below, _files in os.walk(_CGROUPS):
        for name in names:
            if name in below:
                return TaskGroup(os.path.join(directory, name))
    return None


def _names_of(container_id: str) -> tuple[str, str]:
    """How runc's two cgroup drivers call a container's cgroup.

    Above it there is whatever ``--cgroup-parent`` or ``cgroup-parent`` of daemon.json names.
    """
    return f"docker-{container_id}.scope", container_id


def _named_part(container_id: str, known_path: str) -> str:
    """The part of a cgroup's path that ends with the container's own; empty where none bears its name."""
    if known_path.startswith(_CGROUPS + "/") and os.path.normpath(known_path) == known_path:
        parts = known_path.split("/")
        for depth, part in enumerate(parts, 1):
            # The uppermost: below it the container gives names.
            if part in _names_of(container_id):
                return "/".join(parts[:depth])
    return ""


class TaskGroup:
    """All tasks of one container: a cgroup and everything below it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def of_container(cls, inspect: t.Mapping[str, t.Any]) -> TaskGroup:
        """The group of a running container: the cgroup that bears its id, wherever below that its first process is.

        :raises MigrationError: ``container_not_running``; ``cgroup_unknown``; or as :func:`cgroup_of`.
        """
        pid = int(inspect["State"].get("Pid") or 0)
        if not pid:
            raise MigrationError(
                "container_not_running",
                f"Container {inspect['Name'].lstrip('/')} is not running (status: {inspect['State'].get('Status')}): it has no "
                "memory to move. Start it first, or move it by ordinary means.",
            )
        # Its first process may be in a cgroup that the container has made itself, or in a foreign one: who freezes that may leave
        # tasks of the container running, and stop others.
        path = cgroup_of(pid)
        found = _named_part(inspect["Id"], path)
        if not found:
            raise MigrationError(
                "cgroup_unknown",
                f"The first process of container {inspect['Name'].lstrip('/')} is in the cgroup {path}, which is not below one "
                "that bears the container's id. So it is not known which tasks belong to the container. The container, or "
                "somebody, has moved the process there; start the container anew.",
                cgroup=path,
            )
        return cls(found)

    @property
    def exists(self) -> bool:
        """Whether the cgroup is still there."""
        return os.path.isdir(self.path)

    def pids(self) -> list[int]:
        """The processes in it, as this host numbers them."""
        found: list[int] = []
        for directory, _subdirectories, files in os.walk(self.path):
            if "cgroup.procs" in files:
                with (
                    contextlib.suppress(OSError),
                    open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as handle,
                ):
                    found.extend(int(line) for line in handle)
        return sorted(found)

    def _event(self, name: str) -> bool | None:
        try:
            with open(os.path.join(self.path, "cgroup.events"), encoding="ascii") as handle:
                return dict(line.split() for line in handle).get(name) == "1"
        except OSError:
            return None

    @property
    def frozen(self) -> bool:
        """Whether every task in it stands still."""
        return bool(self._event("frozen"))

    @property
    def freeze_requested(self) -> bool:
        """Whether its tasks are to stand still. That is so before all of them do: a task in an uninterruptible sleep (a disk or
        a network file system that hangs) is frozen when it comes out of that, however late."""
        try:
            with open(os.path.join(self.path, "cgroup.freeze"), encoding="ascii") as handle:
                return handle.read().strip() == "1"
        except OSError:
            return False

    @property
    def is_dumped_now(self) -> bool:
        """Whether a CRIU is at work on its tasks. It thaws their cgroup meanwhile and stops them by ptrace(2)."""
        return bool(self._dumpers())

    def _dumpers(self) -> set[int]:
        """The CRIUs that trace its tasks."""
        return {tracer for tracer in map(_tracer, self.pids()) if tracer and _name(tracer) == "criu"}

    def end_dumpers(self, timeout: float = 10.0) -> None:
        """Kill every CRIU that has tasks of it in its hand, and wait until none has.

        :raises MigrationError: ``dump_running`` after *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            dumpers = self._dumpers()
            if not dumpers:
                return
            for pid in dumpers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() >= deadline:
                raise MigrationError(
                    "dump_running",
                    f"CRIU (process {', '.join(map(str, sorted(dumpers)))}) has the container's tasks in its hand and cannot be "
                    "killed: the kernel keeps it waiting, for a disk or a network file system that does not answer.",
                )
            time.sleep(_POLL_SECONDS)

    @property
    def populated(self) -> bool:
        """Whether any task is left in it."""
        return bool(self._event("populated"))

    @property
    def resident_bytes(self) -> int:
        """Memory that its tasks hold now, swapped or not, shared pages counted once a task: as much as a dump may write of it."""
        total = 0
        for pid in self.pids():
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as handle,
            ):
                # A process that ends has neither line any more.
                total += sum(int(line.split()[1]) << 10 for line in handle if line.startswith(("VmRSS:", "VmSwap:")))
        return total

    def stops_pending(self, stopped: t.Iterable[int]) -> bool:
        """Whether nothing has run since :meth:`queue_stops`: everything is frozen, and every SIGSTOP of it is still on its way.

        A thaw by anyone, however short, would have delivered them. (Processor time is no evidence: a timer that fires into
        a frozen task is accounted to it.)
        """
        if not self.frozen:
            return False
        try:
            return all(_stop_pending(pid) for pid in stopped)
        except (FileNotFoundError, ProcessLookupError):
            return False

    def wait_frozen(self, frozen: bool, timeout: float) -> None:
        """Wait until the kernel says that all tasks are frozen, or that they are not.

        :raises MigrationError: ``freeze_failed`` or ``thaw_failed`` after *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while self._event("frozen") != frozen:
            if not frozen and not self.exists:
                return
            if time.monotonic() >= deadline:
                state = "frozen" if frozen else "thawed"
                raise MigrationError(
                    "freeze_failed" if frozen else "thaw_failed",
                    f"The container's tasks were not {state} within {timeout:g} seconds ({self.path}/cgroup.events).",
                    cgroup=self.path,
                )
            time.sleep(_POLL_SECONDS)

    def freeze(self, timeout: float = 10.0) -> None:
        """Freeze through the cgroup itself; without effect where the container has ended.

        :raises MigrationError: ``freeze_failed`` after *timeout* seconds.
        """
        with contextlib.suppress(FileNotFoundError):
            with open(os.path.join(self.path, "cgroup.freeze"), "w", encoding="ascii") as handle:
                handle.write("1")
            self.wait_frozen(True, timeout)

    def thaw(self, timeout: float = 10.0) -> None:
        """Thaw through the cgroup itself, for the case that Docker's flag and the kernel disagree."""
        with open(os.path.join(self.path, "cgroup.freeze"), "w", encoding="ascii") as handle:
            handle.write("0")
        self.wait_frozen(False, timeout)

    def queue_stops(self, note: t.Callable[[list[int]], object] | None = None) -> list[int]:
        """Queue SIGSTOP to every frozen process, so that a thaw by anyone but us runs no code of theirs.

        ``docker unpause`` by a person and dockerd's own shutdown (which sends SIGTERM to paused containers and resumes
        them) would otherwise let a copy run whose state has already left. A process that is stopped already, on purpose,
        is left out, so that :meth:`take_back_stops` does not wake it.

        :param note: called with these processes before the first of them gets its SIGSTOP. A stop that was delivered is found by
            this note alone.
        :returns: the processes that were held.
        """
        held: list[int] = []
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if _state(pid) not in ("T", "t", "Z", "X"):
                    held.append(pid)
        if note is not None:
            note(held)
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return held

    def take_back_stops(self, stopped: t.Iterable[int]) -> None:
        """Take back what :meth:`queue_stops` queued. A SIGSTOP that was never delivered leaves no trace but a SIGCONT.

        :param stopped: what :meth:`queue_stops` returned, where that was noted; a SIGSTOP that is still pending is found without
            it.
        """
        noted = set(stopped)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                # One that its user stopped twice has a stop pending as well, but it is stopped.
                if pid in noted or (_stop_pending(pid) and _state(pid) not in ("T", "t")):
                    os.kill(pid, signal.SIGCONT)

    def foreign(self, init: int) -> list[str]:
        """The command lines of processes that entered the container from outside (``docker exec``).

        :param init: the host's number of the container's first process.
        """
        inside = self.pids()
        found = []
        for pid in inside:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if pid != init and _parent(pid) not in inside:
                    with open(f"/proc/{pid}/cmdline", "rb") as handle:
                        arguments = handle.read().split(b"\0")
                    found.append(arguments[0].decode("utf-8", "replace") or f"process {pid}")
        return found

    def kill(self, timeout: float = 10.0) -> None:
        """Kill every task, frozen ones too, without any of them running again.

        :raises MigrationError: ``kill_failed`` when tasks are left after *timeout* seconds.
        """
        if not self.exists:
            return
        knob = os.path.join(self.path, "cgroup.kill")
        deadline = time.monotonic() + timeout
        with contextlib.suppress(FileNotFoundError):
            if os.path.exists(knob):
                with open(knob, "w", encoding="ascii") as handle:
                    handle.write("1")
            else:
                # Before Linux 5.14. SIGKILL reaches a task in the version 2 freezer as well.
                for pid in self.pids():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        while self.populated:
            if time.monotonic() >= deadline:
                raise MigrationError(
                    "kill_failed",
                    f"Tasks of the container are left {timeout:g} seconds after they were killed: {self.pids()}.",
                    cgroup=self.path,
                )
            time.sleep(_POLL_SECONDS)


def _state(pid: int) -> str:
    return procfs.stat_fields(pid)[procfs.STATE]


def _parent(pid: int) -> int:
    return int(procfs.stat_fields(pid)[procfs.PARENT])


def _tracer(pid: int) -> int:
    """The process that traces a process; 0 where none does."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(_status_field(pid, "TracerPid"))
    return 0


def _name(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return read(f"/proc/{pid}/comm").strip()
    return ""


def _stop_pending(pid: int) -> bool:
    return bool(int(_status_field(pid, "ShdPnd"), 16) >> (signal.SIGSTOP - 1) & 1)


def _status_field(pid: int, name: str) -> str:
    """The first word of a field of /proc/PID/status; "0" where it has no such field."""
    for line in read(f"/proc/{pid}/status").splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    return "0"
