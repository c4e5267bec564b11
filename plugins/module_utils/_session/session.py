# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""One migration on one host: its directory, its journal, its decision, and who may work on it.

A session has two directories, both 0700:

* ``/var/lib/livemigrate/SESSION`` on a real disk: ``session.json`` (what it is about, written once), ``journal`` (one JSON line
  per phase), ``decision`` (written once), the channel's key, the agent;
* ``/run/livemigrate/SESSION`` in memory: what must not reach a disk (what describes the thing that is moved, fingerprints).

The decision is what makes a migration atomic. The source's is ``GO_SENT`` or ``ABORT``, the destination's is ``RUN`` or
``REFUSED``, see ``_session/decision.py``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
import threading
import time
import typing as t

from .._base import durable, valid_names
from .._base.errors import MigrationError
from .._host import boot, memory_filesystem
from . import claims, holder
from .decision import Decision
from .phases import DECIDED, DECISIONS, SOURCE, TRANSITIONS

STATE_ROOT = "/var/lib/livemigrate"
VOLATILE_ROOT = "/run/livemigrate"

# Seconds without any sign of life after which the watchdog takes a session for abandoned, while something is frozen.
LEASE_SECONDS = 30.0
# The time of a lease's file that was written by nobody who is at work.
_NO_SIGN = 0
# The same where nothing is frozen and a step on the other host may take its time (pulling an image).
PREPARING_LEASE_SECONDS = 900.0
# The same for a copy that is restored and held: what keeps it on its host may have it locked meanwhile.
HELD_LEASE_SECONDS = 120.0
# Seconds that a step may take in all while something stands still. They are more than the time limits of its calls together.
_STILL_SECONDS, _STILL_SECONDS_PER_GIB = 720.0, 480.0
# The time that somebody waits for who is at work on a session.
LOCK_SECONDS = 30.0

_HOLDER = "holder"
_LOCK = "lock"
_BALLAST_BYTES = 256 << 10
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

#: the program that acts for a session, see ``_session/agent_package.py``
AGENT = "agent.pyz"
# The destination's note that it has done all that follows RUN, and that the copy's keeper answers for it from then on. (The name
# of the file is of the time when that could only be Docker.)
WITH_KEEPER = "with_docker"

# The source's note that a person has declared its destination lost.
_LOST = "destination_lost"

#: the kind of what is moved in records that do not name one: when they were written there was no other
FIRST_KIND = "container"

_KEPT_AFTER_CLOSE = frozenset({"session.json", "journal", "decision"})


def id_key(kind: str) -> str:
    """The key of the id of a thing of this kind, in records, in messages between the hosts and in results of modules."""
    return f"{kind}_id"


def name_key(kind: str) -> str:
    """The key of its name, in the same places."""
    return f"{kind}_name"


def agent_command(path: str) -> tuple[str, ...]:
    """The command line of an agent in a file."""
    # -I: nothing from the caller's environment or working directory gets imported by what runs as root.
    return (sys.executable, "-I", "-B", path)


class Session:
    """A session that exists on this host."""

    def __init__(self, session: str, *, state_root: str = STATE_ROOT, volatile_root: str = VOLATILE_ROOT) -> None:
        self.id = valid_names.session_id(session)
        self.state_root = state_root
        self.volatile_root = volatile_root
        self.directory = os.path.join(state_root, self.id)
        self.volatile = os.path.join(volatile_root, self.id)
        facts = durable.read_json(os.path.join(self.directory, "session.json"))
        if facts is None:
            raise MigrationError("session_unknown", f"There is no session {self.id} on this host.", session=self.id)
        self._renewing = threading.Lock()
        # When this process is to be done, by time.monotonic().
        self._to_end_by = float("inf")
        self._over = False
        self._holds_lock = False
        self.facts: dict[str, t.Any] = facts
        self.role: str = facts["role"]
        self._decision = Decision(self.role, self.directory, self.volatile)

    # -- making, finding ---------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        session: str,
        role: str,
        facts: t.Mapping[str, t.Any],
        *,
        state_root: str = STATE_ROOT,
        volatile_root: str = VOLATILE_ROOT,
    ) -> Session:
        """Make a session on this host and claim what it moves.

        :param facts: plain data about it. ``kind`` and, under :func:`id_key`, the id of what is moved are required (without a
            kind it is ``FIRST_KIND``). No secrets: this stays until cleanup.
        :raises MigrationError: ``state_not_durable``; ``session_busy`` where another session owns it; ``invalid_id``.
        """
        valid_names.session_id(session)
        kind = str(facts.get("kind", FIRST_KIND))
        subject = valid_names.subject_id(kind, facts[id_key(kind)])
        durable.make_directory(state_root)
        durable.require_durable(state_root)
        directory = os.path.join(state_root, session)
        durable.make_directory(directory)
        os.makedirs(volatile_root, mode=0o700, exist_ok=True)
        os.makedirs(os.path.join(volatile_root, session), mode=0o700, exist_ok=True)
        record = dict(facts, role=role, session=session, opened=time.time())
        if not durable.publish(os.path.join(directory, "session.json"), json.dumps(record, sort_keys=True).encode()):
            raise MigrationError(
                "session_exists", f"There is a session {session} on this host already.", session=session
            )
        self = cls(session, state_root=state_root, volatile_root=volatile_root)
        try:
            self._claims.take(subject, session, kind)
        except MigrationError:
            shutil.rmtree(self.directory)
            shutil.rmtree(self.volatile, ignore_errors=True)
            raise
        self.prepare_decision()
        self.renew()
        self._append("opened", {})
        return self

    @classmethod
    def all(cls, *, state_root: str = STATE_ROOT, volatile_root: str = VOLATILE_ROOT) -> list[Session]:
        """All sessions of this host, oldest first."""
        found: list[Session] = []
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(os.listdir(state_root)):
                if valid_names.SESSION_PATTERN.fullmatch(entry):
                    # A directory without session.json is one whose opening was cut off before anything was done.
                    with contextlib.suppress(MigrationError):
                        found.append(cls(entry, state_root=state_root, volatile_root=volatile_root))
        return found

    # -- what is moved -----------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """The noun of the kind of thing that is moved, see ``_subjects/by_kind.py``."""
        return str(self.facts.get("kind", FIRST_KIND))

    @property
    def subject_id(self) -> str:
        """The id on the source of what is moved. No two things on a host have the same, whatever their kinds."""
        return str(self.facts[id_key(self.kind)])

    @property
    def subject_name(self) -> str:
        """The name by which people call what is moved; empty where it has none."""
        return str(self.facts.get(name_key(self.kind)) or "")

    @property
    def copy_id(self) -> str:
        """On the destination: the id of the copy, from phase ``created`` on; empty before."""
        return str(self.data("created").get(id_key(self.kind)) or "")

    @property
    def _claims(self) -> claims.Claims:
        return claims.Claims(self.state_root, self._phase_of)

    def _phase_of(self, session: str) -> str | None:
        try:
            return Session(session, state_root=self.state_root, volatile_root=self.volatile_root).phase
        except MigrationError:
            return None

    def release_claim(self) -> None:
        """Release the claim, so that another session may move the same thing."""
        self._claims.release(self.subject_id, self.id)

    # -- places ------------------------------------------------------------------------------------------------

    def path(self, *parts: str) -> str:
        """A path in the durable directory."""
        return os.path.join(self.directory, *parts)

    def keep_out_of_swap(self) -> None:
        """Keep the session's files in memory out of swap, where the kernel can do that. Call it once, before anything is
        written there."""
        if memory_filesystem.keep_out_of_swap(self.volatile):
            # What was in the directory is below it.
            self.renew()

    def memory_path(self, *parts: str) -> str:
        """A path in the directory that never reaches a disk."""
        os.makedirs(self.volatile, mode=0o700, exist_ok=True)
        return os.path.join(self.volatile, *parts)

    @property
    def agent(self) -> tuple[str, ...]:
        """The command line of its agent, see ``_session/agent_package.py``: of the interpreter that runs the modules."""
        return agent_command(self.path(AGENT))

    # -- journal -----------------------------------------------------------------------------------------------

    @property
    def journal(self) -> list[dict[str, t.Any]]:
        """All entries, oldest first; a last line that a power cut left half written does not count."""
        entries: list[dict[str, t.Any]] = []
        with (
            contextlib.suppress(FileNotFoundError),
            open(self.path("journal"), encoding="utf-8", errors="replace") as handle,
        ):
            for line in handle:
                with contextlib.suppress(ValueError):
                    entries.append(json.loads(line))
        return entries

    @property
    def phase(self) -> str:
        """The last phase entered."""
        entries = self.journal
        return str(entries[-1]["phase"]) if entries else "opened"

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.phase == "closed"

    def reached(self, phase: str) -> dict[str, t.Any] | None:
        """The newest entry of a phase, or None if it was never entered."""
        for entry in reversed(self.journal):
            if entry["phase"] == phase:
                return dict(entry)
        return None

    def data(self, phase: str) -> dict[str, t.Any]:
        """What was noted with the newest entry of a phase; empty if it was never entered."""
        entry = self.reached(phase)
        return dict(entry["data"]) if entry else {}

    def enter(self, phase: str, **data: t.Any) -> None:
        """Note a phase durably. To enter the current phase again changes nothing, so that every step can be repeated.

        :raises MigrationError: ``illegal_transition``.
        """
        current = self.phase
        if phase == current and phase not in TRANSITIONS[self.role].get(phase, ()):
            return
        self._require_legal(current, phase)
        self._append(phase, data)
        if phase != "closed":
            # How long a sign of life counts depends on the phase: what was said while it ran must not count while
            # it is frozen.
            self.renew()

    def _require_legal(self, current: str, phase: str) -> None:
        if current in ("aborted", "refused", "closed") and phase != "closed":
            raise MigrationError(
                "session_over",
                f"Session {self.id} is over on its {self.role}: it was given up, by a step that failed or by its watchdog "
                "after it had shown no sign of life for too long.",
                session=self.id,
                phase=current,
            )
        if phase not in TRANSITIONS[self.role].get(current, ()):
            raise MigrationError(
                "illegal_transition",
                f"Session {self.id} is in phase {current} on its {self.role}; {phase} cannot follow that.",
                session=self.id,
                phase=current,
                wanted=phase,
            )

    def _append(self, phase: str, data: t.Mapping[str, t.Any]) -> None:
        entry = {"phase": phase, "time": time.time(), "boot": boot.boot_identity(), "data": dict(data)}
        journal = self.path("journal")
        # A line cut off by a power failure has no end; the next one must not be glued to it.
        with contextlib.suppress(FileNotFoundError), open(journal, "rb") as handle:
            content = handle.read()
            if content and not content.endswith(b"\n"):
                durable.append_line(journal, "")
        line = json.dumps(entry, sort_keys=True)
        self.write_even_when_full(lambda: durable.append_line(journal, line))

    def prepare_decision(self) -> None:
        """Have on the disk what a decision needs: its files, and space for the journal that is given up when the disk is full.

        What lets a frozen service go on must find a place. A disk that was full for a moment may have taken that space already,
        so call this before anything is frozen.

        :raises MigrationError: ``no_space``.
        """
        try:
            self._decision.lay_down()
            if not os.path.exists(self.path("ballast")):
                durable.write(self.path("ballast"), os.urandom(_BALLAST_BYTES))
        except OSError as exc:
            if exc.errno not in _DISK_FULL:
                raise
            raise MigrationError(
                "no_space",
                f"The disk of {self.directory} is full, so that decisions about what stands still could not be noted there. "
                "Nothing has been frozen. Make room.",
            ) from None

    def write_even_when_full(self, write: t.Callable[[], t.Any]) -> None:
        """Write something that must get onto the journal's disk even when that is full: then the ballast makes room for it."""
        try:
            write()
        except OSError as exc:
            if exc.errno not in _DISK_FULL or not os.path.exists(self.path("ballast")):
                raise
            os.unlink(self.path("ballast"))
            write()

    def declare_destination_lost(self) -> None:
        """Note that a person has declared the destination dead and fenced, and that no connection to it can be made.

        It is noted durably. Where the disk does not take that it counts until this host goes down, and with it what stands still.
        """
        try:
            self.write_even_when_full(lambda: durable.publish(self.path(_LOST), b""))
        except OSError:
            with open(self.memory_path(_LOST), "wb"):
                pass

    def take_back_lost(self) -> None:
        """The destination has answered after all: its decision counts."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.volatile, _LOST))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(_LOST))
            durable.sync_directory(self.directory)

    @property
    def destination_declared_lost(self) -> bool:
        """Whether :meth:`declare_destination_lost` was called. Nobody waits for the destination's decision then."""
        return os.path.exists(self.path(_LOST)) or os.path.exists(os.path.join(self.volatile, _LOST))

    def happened_in_this_boot(self, phase: str) -> bool:
        """Whether a phase was entered since this host started."""
        entry = self.reached(phase)
        return entry is not None and entry["boot"] == boot.boot_identity()

    # -- decision ----------------------------------------------------------------------------------------------

    @property
    def decision(self) -> str | None:
        """The decision of this host, or None. It counts: see ``_session/decision.py``.

        :raises MigrationError: ``decision_not_durable``.
        """
        return self._decision.read(self._has_acted)

    def decide(self, decision: str) -> str:
        """Decide, unless it has been decided. Where the disk takes no decision, who holds the session's lock may still give up:
        that is noted in memory.

        :returns: the decision that is in force.
        :raises OSError: where the disk does not take the decision.
        :raises MigrationError: ``decision_not_durable``.
        """
        if decision not in DECISIONS[self.role]:
            raise ValueError(f"{decision} is no decision of a {self.role}")
        return self._decision.make(
            decision, self._has_acted, alone=self._holds_lock, with_room=self.write_even_when_full
        )

    def _has_acted(self) -> bool:
        return self.phase in DECIDED

    # -- who works on it ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, timeout: float = LOCK_SECONDS, *, alive: bool = True) -> t.Iterator[None]:
        """Hold the session's lock: only one process at a time works on a session. The kernel releases the lock when its holder
        ends, however that happens.

        :param alive: whether to hold the lock is a sign of life. The watchdog's own attempts are none, else it would wait for
            itself.
        :raises MigrationError: ``session_locked`` after *timeout* seconds.
        """
        # Read only: a disk that takes no change any more gives no other descriptor.
        fd = os.open(self.path(_LOCK), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise MigrationError(
                            "session_locked",
                            f"A step of session {self.id} (phase {self.phase}) is at work on this host and did not end within "
                            f"{timeout:g} seconds.",
                            session=self.id,
                            phase=self.phase,
                        ) from None
                    time.sleep(0.05)
            holder.note(os.path.join(self.volatile, _HOLDER), step=alive)
            self._holds_lock = True
            with self.alive() if alive else contextlib.nullcontext():
                yield
        finally:
            self._holds_lock = False
            os.close(fd)

    def end_holder(self) -> bool:
        """End the process that holds the lock, if it has shown no sign of life until the lease had run out.

        A step renews the lease every quarter of it. A step that is only slow gets that time once more.

        :returns: whether there was such a process.
        """

        def shows_life() -> bool:
            deadline = time.monotonic() + LEASE_SECONDS / 4 + 1
            while self.lease_left == 0:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.05)
            return True

        return self.lease_left == 0 and holder.end(self.path(_LOCK), os.path.join(self.volatile, _HOLDER), shows_life)

    def expect_end(self, size: int) -> None:
        """Something stands still from now on: have :meth:`alive` renew the lease no longer than that may last at most.

        A call into the kernel may never return (a network file system whose server is away), and the thread that renews the lease
        does not notice. The watchdog ends this process then, and brings the session to its end.

        :param size: bytes of memory that are moved.
        """
        self._to_end_by = time.monotonic() + _STILL_SECONDS + _STILL_SECONDS_PER_GIB * size / (1 << 30)

    @contextlib.contextmanager
    def alive(self) -> t.Iterator[None]:
        """Renew the lease while this block runs: a long dump or transfer must not look like an abandoned session."""
        stop = threading.Event()

        def beat() -> None:
            # Another process may close it meanwhile (the source closes this half while a transfer ends).
            while not stop.is_set() and not self._over and os.path.isdir(self.directory) and not self.ended:
                if time.monotonic() > self._to_end_by:
                    return
                with contextlib.suppress(OSError):
                    self.renew()
                stop.wait(LEASE_SECONDS / 4)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _lease_seconds(self) -> float:
        if self.role == SOURCE:
            return PREPARING_LEASE_SECONDS if self.phase in ("opened", "prepared") else LEASE_SECONDS
        if self.phase in ("starting", "held"):
            return HELD_LEASE_SECONDS
        # What is decided is tidied up soon, also when the source does not ask for it.
        return LEASE_SECONDS if self.phase in ("run", "refused") else PREPARING_LEASE_SECONDS

    def renew(self) -> None:
        """Give a sign of life: the watchdog leaves the session alone for some time from now on."""
        self._lease(self._lease_seconds())

    def rest(self, seconds: float) -> None:
        """Let the watchdog leave the session alone for that time, or until this host starts again.

        This is no sign of life: nobody is at work on the session, and somebody who wants to settle it need not wait.
        """
        self._lease(seconds, rests=True)

    def _lease(self, seconds: float, *, rests: bool = False) -> None:
        expires = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
        # Never beside close(), which takes the directory away.
        with self._renewing:
            if self._over:
                return
            # The directory is never made here: another process may have closed the session and taken it away.
            path = os.path.join(self.volatile, "lease")
            temporary = f"{path}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                with open(temporary, "w", encoding="ascii") as handle:
                    handle.write(f"{boot.boot_identity()} {expires:.3f}")
                if rests:
                    os.utime(temporary, (_NO_SIGN, _NO_SIGN))
                os.rename(temporary, path)

    @property
    def lease_left(self) -> float:
        """Seconds until the session counts as abandoned; 0 when it does. A reboot ends every lease."""
        try:
            with open(os.path.join(self.volatile, "lease"), encoding="ascii") as handle:
                start, expires = handle.read().split()
        except (FileNotFoundError, ValueError):
            return 0.0
        if start != boot.boot_identity():
            return 0.0
        return max(0.0, float(expires) - time.clock_gettime(time.CLOCK_BOOTTIME))

    @property
    def silence(self) -> float:
        """Seconds since its last sign of life; infinite after a reboot."""
        if self.lease_left == 0:
            return float("inf")
        with contextlib.suppress(FileNotFoundError):
            return max(0.0, time.time() - os.stat(os.path.join(self.volatile, "lease")).st_mtime)
        return float("inf")

    @property
    def rests(self) -> bool:
        """Whether nobody is at work on it and the watchdog will look at it later (:meth:`rest`)."""
        with contextlib.suppress(FileNotFoundError):
            return self.lease_left > 0 and os.stat(os.path.join(self.volatile, "lease")).st_mtime == _NO_SIGN
        return False

    # -- the end -----------------------------------------------------------------------------------------------

    def close(self, *, keep: bool, other_host_knows: bool = False) -> None:
        """End the session: delete secrets and tools, and release the claim. If this is cut off, it may be repeated: see
        :meth:`close_again`.

        :param keep: whether session.json, journal and decision stay, as the record of what happened (no secrets in it).
        :param other_host_knows: whether the other host knows the outcome, so that a record which stays is for people alone.
        """
        if keep and not self.ended:
            self._require_legal(self.phase, "closed")
        decided = self.decision
        if keep and decided is not None:
            # One that counts in memory would be gone from the record.
            self._decision.make(decided, self._has_acted, alone=False, with_room=self.write_even_when_full)
        with self._renewing:
            self._over = True
        if not keep and "closed" in TRANSITIONS[self.role][self.phase]:
            # The other host knows the outcome, so nothing of this need stay. Who finishes this finds that noted.
            self.enter("closed", keep=False)
        # The lease and the lock stay to the end: a watchdog that comes meanwhile must neither take this for abandoned nor work
        # beside it. So do the agent, which finishes what is cut off, and the note of what it need not do again.
        _remove_all_but(self.volatile, ("lease", _HOLDER))
        _remove_all_but(self.directory, (*_KEPT_AFTER_CLOSE, _LOCK, AGENT, WITH_KEEPER))
        durable.sync_directory(self.directory)
        self.release_claim()
        if not keep:
            # From here on there is no such session.
            os.unlink(self.path("session.json"))
            remove_remains(self.id, state_root=self.state_root, volatile_root=self.volatile_root)
            return
        if not self.ended:
            self.enter("closed", keep=True, **({"heard": True} if other_host_knows else {}))
        elif other_host_knows and not self.data("closed").get("heard"):
            self._append("closed", {"keep": True, "heard": True})
        memory_filesystem.remove(self.volatile)
        _remove_all_but(self.directory, _KEPT_AFTER_CLOSE)

    def close_again(self) -> None:
        """Finish the closing of a session whose journal says that it is closed."""
        self.close(keep=self.data("closed").get("keep", True))

    def summary(self) -> dict[str, t.Any]:
        """The facts of the session for a person or a playbook."""
        return {
            "session": self.id,
            "role": self.role,
            id_key(self.kind): self.subject_id,
            name_key(self.kind): self.facts.get(name_key(self.kind)),
            "peer": self.facts.get("peer_name"),
            "phase": self.phase,
            "phases": [entry["phase"] for entry in self.journal],
            "decision": self.decision,
            "ended": self.ended,
            # One that rests is anybody's to settle.
            "lease_left": 0.0 if self.rests else round(self.lease_left, 1),
            "opened": self.facts.get("opened"),
            "data": {entry["phase"]: entry["data"] for entry in self.journal},
        }


def _remove_all_but(directory: str, names: t.Container[str]) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(directory):
            if entry not in names:
                target = os.path.join(directory, entry)
                if os.path.isdir(target) and not os.path.islink(target):
                    shutil.rmtree(target)
                else:
                    os.unlink(target)


def remove_remains(session: str, *, state_root: str = STATE_ROOT, volatile_root: str = VOLATILE_ROOT) -> None:
    """Remove what is left of a session that has no session.json any more."""
    directory = os.path.join(state_root, valid_names.session_id(session))
    memory_filesystem.remove(os.path.join(volatile_root, session))
    if os.path.isdir(directory) and not os.path.exists(os.path.join(directory, "session.json")):
        shutil.rmtree(directory)
        durable.sync_directory(state_root)
