# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second kind of thing that can be moved: a plain process that sleeps. No container, no CRIU, no keeper that could start it.

It shows that the machine of a migration knows nothing of containers: ``tests/unit/migration/test_second_subject.py`` takes it
through all of it. A sleeper has a directory of its own, which travels with it. Several times in a second it notes there that it
is awake, on which host, and for how long it has to go on; so its notes tell afterwards whether it ever ran twice, or was lost.

A host's sleepers are files in a directory, by their names: what is done to them is done to real processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.tree import DELETE, Tree
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.images import Manifest
from ansible_collections.livemigrate.criu.plugins.module_utils._host import procfs
from ansible_collections.livemigrate.criu.plugins.module_utils._host.flush import Flush
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.subject import (
    Answer,
    Dumped,
    Params,
    Prepared,
    Result,
    Step,
)

NOUN = "sleeper"
BEAT_SECONDS = 0.01
_PATIENCE_SECONDS = 10.0
_IMAGE = "sleeper.img"

# Where it is to be held it stops itself before it does anything. Each beat is one write of one line.
PROGRAM = """
import os, signal, sys, time
host, beats, left = sys.argv[1], sys.argv[2], float(sys.argv[3])
if sys.argv[4] == "held":
    os.kill(os.getpid(), signal.SIGSTOP)
def note(word):
    handle = os.open(beats, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{time.clock_gettime(time.CLOCK_BOOTTIME):.6f} {host} {word}\\n".encode())
    os.close(handle)
note(f"{left:.3f}")
while left > 0:
    time.sleep(BEAT)
    left -= BEAT
    note(f"{left:.3f}")
note("done")
""".replace("BEAT", str(BEAT_SECONDS))


def _wait(condition: Any, code: str, text: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() >= deadline:
            raise MigrationError(code, text)
        time.sleep(0.002)


class Host:
    """The sleepers of a host: what its process table and its disk hold of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name
        self.directory = root / "sleepers"

    # -- the notes, one for each name

    def read(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads((self.directory / f"{name}.json").read_text()))
        return None

    def write(self, name: str, note: Mapping[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        beside = self.directory / f".{name}"
        beside.write_text(json.dumps(dict(note)))
        beside.rename(self.directory / f"{name}.json")

    def remove(self, name: str) -> None:
        (self.directory / f"{name}.json").unlink(missing_ok=True)

    def of_id(self, identity: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted(self.directory.glob("*.json")):
            note = self.read(path.stem)
            if note is not None and note["id"] == identity:
                yield path.stem, note

    def place(self, name: str) -> Path:
        """The directory of a sleeper, and of its copy."""
        return self.root / "work" / name

    def beats(self, name: str) -> list[list[str]]:
        """What it has noted: when, on which host, and for how long it still had to go on, or that it was done."""
        with contextlib.suppress(FileNotFoundError):
            return [line.split() for line in (self.place(name) / "beats").read_text().splitlines()]
        return []

    # -- processes

    def start(self, name: str, left: float, *, held: bool = False) -> int:
        """Start one; a held one stands still when this returns, and has done nothing."""
        self.place(name).mkdir(parents=True, exist_ok=True)
        words = [self.name, str(self.place(name) / "beats"), str(left), "held" if held else "free"]
        # In a session of its own: it outlives the agent, whose end must not wake it.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Nobody here waits for it.
        process.returncode = 0
        if held:
            _wait(lambda: state(process.pid) == "T", "restore_failed", "The sleeper does not stand still.")
        return process.pid


def state(pid: int) -> str:
    """Of a process: ``T`` where it stands still; empty where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # A child of this very process.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        found = procfs.stat_fields(pid)[procfs.STATE]
        return "" if found in ("Z", "X") else found
    return ""


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill(pid: int) -> None:
    """End a process, one that stands still too."""
    send(pid, signal.SIGKILL)
    _wait(lambda: not state(pid), "kill_failed", f"Process {pid} does not end.")


# -- before there is a session -----------------------------------------------------------------------------------------


class Found:
    def __init__(self, host: Host, name: str, note: Mapping[str, Any]) -> None:
        self._host, self._note = host, note
        self.name = name
        self.id = str(note["id"])

    def require_movable(self, params: Params) -> None:
        del params
        if not state(self._note["pid"]):
            raise MigrationError("cannot_move", f"Sleeper {self.name} has woken up.")

    def facts(self, params: Params) -> Result:
        del params
        return {"sleeper_id": self.id, "sleeper_name": self.name}

    def describe(self, session: Session) -> None:
        Path(session.memory_path("outbox"), "description.json").write_text(json.dumps({"name": self.name}))


# -- on the source -----------------------------------------------------------------------------------------------------


class Original:
    def __init__(self, session: Session, host: Host) -> None:
        self.session = session
        self._host = host
        self._attempts = 0

    can_be_held = True

    def require_held(self, held: bool) -> None:
        if not held:
            raise MigrationError("wrong_engine", "A sleeper is held before it runs.")

    def reach(self, seconds: float | None = None) -> None:
        """It has no keeper."""

    @property
    def _name(self) -> str:
        return self.session.subject_name

    @property
    def _old_name(self) -> str:
        return f"{self._name}-moved-{self.session.id}"

    @property
    def _pid(self) -> int:
        return int(self.session.data("arming")["pid"])

    def trees(self) -> Sequence[Tree]:
        return [Tree("work", str(self._host.place(self._name)), DELETE)]

    def prepare(self, *, close_connections: bool) -> Prepared:
        return Prepared({"connections": close_connections}, ["It sleeps."])

    def look_ahead(self) -> None:
        """There is nothing to see."""

    def make_ready(self) -> dict[str, Any]:
        note = self._host.read(self._name)
        if note is None or not state(note["pid"]):
            raise MigrationError("cannot_move", f"Sleeper {self._name} has woken up.")
        Path(self.images()).mkdir()
        return {"pid": note["pid"], "wakes_with_host": note["wakes_with_host"], "bytes": 100}

    def put_aside(self) -> None:
        """That it is started again when its host is."""
        self._set(wakes_with_host=False)

    def _set(self, **changes: Any) -> None:
        note = self._host.read(self._name)
        if note is not None:
            self._host.write(self._name, {**note, **changes})

    def look_last(self) -> None:
        """There is nothing to see."""

    def keep_newcomers_out(self) -> None:
        """Nobody comes."""

    def stop(self) -> list[str]:
        send(self._pid, signal.SIGSTOP)
        _wait(lambda: state(self._pid) in ("T", ""), "freeze_failed", "It does not stand still.")
        self._attempts += 1
        return ["a dream"] if self._attempts <= int(self._host.root.joinpath("dreams").exists()) else []

    def step_back(self) -> None:
        send(self._pid, signal.SIGCONT)

    def in_the_way(self, found: Sequence[str]) -> MigrationError:
        return MigrationError("dreaming", f"It does not stop dreaming: {', '.join(found)}.")

    def dump_ready(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def images(self) -> str:
        return self.session.path("images")

    def files_stand_still(self) -> bool:
        return True

    def dump(self) -> Dumped:
        if state(self._pid) != "T":
            raise MigrationError("dump_failed", "It does not stand still.")
        began = time.monotonic()
        left = self._host.beats(self._name)[-1][2]
        Path(self.images(), _IMAGE).write_text(json.dumps({"program": PROGRAM, "left": left}))
        size = Path(self.images(), _IMAGE).stat().st_size
        return Dumped([self._pid], size, time.monotonic() - began, {"left": left})

    def patience(self) -> float:
        return 10.0

    def for_copy(self) -> dict[str, Any]:
        return {"left": self._host.beats(self._name)[-1][2]}

    def all_sent(self) -> None:
        """A dump leaves nothing among its files."""

    def require_not_run_since_dump(self) -> None:
        if state(self._pid) != "T":
            raise MigrationError("source_thawed", "Somebody has woken it up.")

    def end(self) -> None:
        note = self._host.read(self._name)
        if note is not None and note["id"] == self.session.subject_id:
            # First its name, by which others start it.
            self._host.write(self._old_name, {**note, "wakes_with_host": False})
            self._host.remove(self._name)
        if self.session.happened_in_this_boot("arming"):
            kill(self._pid)

    def go_on(self) -> None:
        old = self._host.read(self._old_name)
        if old is not None:
            self._host.write(self._name, old)
            self._host.remove(self._old_name)
        note = self._host.read(self._name)
        if note is None:
            return
        self._set(wakes_with_host=self.session.data("arming")["wakes_with_host"])
        if state(note["pid"]):
            self.go_on_alone()
        else:
            # It has ended with its host.
            self._set(pid=self._host.start(self._name, float(self._host.beats(self._name)[-1][2])))

    def may_go_on_alone(self) -> bool:
        return bool(state(self._pid))

    def go_on_alone(self) -> None:
        send(self._pid, signal.SIGCONT)

    def forget(self) -> None:
        shutil.rmtree(self.images(), ignore_errors=True)


# -- on the destination ------------------------------------------------------------------------------------------------


class Copy:
    def __init__(self, session: Session, host: Host) -> None:
        self.session = session
        self._host = host

    can_be_held = True

    def require_held(self, held: bool) -> None:
        if not held:
            raise MigrationError("wrong_engine", "A sleeper is held before it runs.")

    def reach(self, seconds: float | None = None) -> None:
        """It has no keeper."""

    @property
    def _name(self) -> str:
        return self.session.subject_name

    def make(self, params: Params) -> Result:
        del params
        if self._host.read(self._name) is not None:
            raise MigrationError("name_taken", f"There is a sleeper {self._name} already.")
        identity = f"sleeper.{self.session.id}"
        self.session.enter("creating", place=str(self._host.place(self._name)))
        self._host.place(self._name).mkdir(parents=True)
        Path(self.images()).mkdir(mode=0o700)
        self.session.enter("created", sleeper_id=identity)
        targets = {"inbox": self.session.memory_path("inbox"), "work": str(self._host.place(self._name))}
        channel_server.set_targets(self.session, targets)
        return {"changed": True, "sleeper_id": identity}

    def images(self) -> str:
        return self.session.path("images")

    def hold(self, received: Manifest, sent: Manifest, for_copy: Mapping[str, Any], flush: Flush) -> Result:
        if received != sent:
            raise MigrationError("checkpoint_corrupt", "It is not what has left.")
        image = json.loads(Path(self.images(), _IMAGE).read_text())
        self.session.enter("starting")
        began = time.monotonic()
        flush.begin()
        if self._host.root.joinpath("cannot_restore").exists():
            raise MigrationError("restore_failed", "There is no bed.")
        self._start(float(image["left"]), held=True)
        if for_copy["left"] != image["left"] or self._host.beats(self._name)[-1][2] != image["left"]:
            raise MigrationError("not_a_restore", "It is another sleeper.")
        with contextlib.suppress(FileNotFoundError):
            # Somebody on the other host, at this very moment.
            send(int((self._host.root / "wakes").read_text()), signal.SIGCONT)
        waited = flush.finish(10.0)
        self.session.enter("held")
        numbers = {"seconds": time.monotonic() - began, "flush_seconds": flush.seconds, "flush_waited": waited}
        return {**numbers, "processes": 1, "recognised": 1, "warnings": [], "timeline": []}

    def _start(self, left: float, *, held: bool) -> None:
        pid = self._host.start(self._name, left, held=held)
        self._host.write(self._name, {"id": self.session.copy_id, "pid": pid, "wakes_with_host": False})

    @property
    def _pid(self) -> int:
        """Of its process; 0 where there is none."""
        for _name, note in self._host.of_id(self.session.copy_id):
            return int(note["pid"]) if state(note["pid"]) else 0
        return 0

    def prepare_announcement(self) -> None:
        """Nobody looks for it."""

    def run(self) -> None:
        if self.session.phase != "held" or not self._pid or state(self._pid) != "T":
            raise MigrationError("not_held", "It does not wait any more.")
        if self._host.root.joinpath("cannot_run").exists():
            raise MigrationError("not_held", "It is too\x1b[2J bright.")
        if self.session.decide(RUN) != RUN:
            raise MigrationError("already_refused", "It was refused meanwhile.")
        self.let_go()

    def let_go(self) -> None:
        pid = self._pid
        if pid:
            send(pid, signal.SIGCONT)
            _wait(lambda: state(pid) != "T", "thaw_failed", "It does not go on.")
        elif self._host.beats(self._name)[-1][2] != "done":
            # It has ended with this host, and RUN is decided.
            self._start(float(self._host.beats(self._name)[-1][2]), held=False)
        since = time.clock_gettime(time.CLOCK_BOOTTIME)
        if self.session.phase != "run":
            self.session.enter("run", sleeper_id=self.session.copy_id, running_since=since)

    def announce_again(self) -> None:
        """Nobody looks for it."""

    def start(self) -> Result:
        raise AssertionError("it is held")

    def announce(self) -> None:
        raise AssertionError("it is held")

    def decide_interrupted(self) -> str | None:
        return "the source gave up before the hand-over"

    def end(self) -> None:
        if self.session.copy_id and self._pid:
            kill(self._pid)

    def take_away(self) -> list[str]:
        if self.session.reached("creating"):
            for name, _note in self._host.of_id(self.session.copy_id):
                self._host.remove(name)
            shutil.rmtree(self.session.data("creating")["place"], ignore_errors=True)
            shutil.rmtree(self.images(), ignore_errors=True)
        return []

    def finish(self) -> list[str]:
        shutil.rmtree(self.images(), ignore_errors=True)
        return []

    def hand_to_keeper(self) -> None:
        """From here on it is started again with its host. One that has ended before has missed that."""
        note = self._host.read(self._name)
        if note is not None:
            self._host.write(self._name, {**note, "wakes_with_host": True})
            last = self._host.beats(self._name)[-1][2]
            if not state(note["pid"]) and last != "done":
                pid = self._host.start(self._name, float(last))
                self._host.write(self._name, {**note, "wakes_with_host": True, "pid": pid})


# -- the kind ----------------------------------------------------------------------------------------------------------


class Sleepers:
    """The sleepers of a host, as a kind."""

    noun = NOUN

    def __init__(self, host: Host) -> None:
        self._host = host

    def reach(self, seconds: float | None = None) -> None:
        """They have no keeper."""

    def find(self, name: str) -> Found | None:
        note = self._host.read(name)
        return None if note is None else Found(self._host, name, note)

    def unknown(self, name: str) -> MigrationError:
        return MigrationError("sleeper_not_found", f"There is no sleeper {name!r} on this host.")

    def facts_of_copy(self, params: Params) -> Result:
        return {"sleeper_id": params["sleeper_id"], "sleeper_name": params["sleeper"]}

    def original(self, session: Session) -> Original:
        return Original(session, self._host)

    def copy(self, session: Session) -> Copy:
        return Copy(session, self._host)

    def steps(self) -> Mapping[str, Step]:
        return {"lullaby": lambda session, params: {"changed": False, "sung_to": session.subject_name, **params}}

    def commands(self, session: Session) -> Mapping[str, Answer]:
        return {"snore": lambda: {"of": session.subject_name}}

    def start_when_ready(self, session: Session) -> None:
        raise AssertionError(f"nothing waits for session {session.id}")

    def tidy(self) -> None:
        """They leave nothing but their records."""

    def tidy_beside(self, session: Session) -> None:
        del session

    def remove_old_copy(self, session: Session, *, check_mode: bool) -> list[str]:
        removed = []
        for name, note in self._host.of_id(session.subject_id):
            if state(note["pid"]) or not name.endswith(f"-moved-{session.id}"):
                raise MigrationError("old_copy_in_use", f"Sleeper {name} is in use.")
            removed.append(name)
            if not check_mode:
                self._host.remove(name)
        return removed
