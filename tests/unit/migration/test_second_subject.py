# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second kind of thing goes through the whole machine: a process that sleeps, moved between two hosts on this machine.

Each host is a directory with its own sessions; its agent is a program that is started for each step, each word and each look of
the watchdog, as on a real host (``tests/unit/helpers/sleeper_host.py``). Between them is the real channel, with an ssh that
starts the other host's agent. The sleeper is a real process, and its notes tell whether it ever ran twice, or was lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects import subject
from tests.unit.helpers import sleeper
from tests.unit.helpers.sleeper import Host, state
from tests.unit.helpers.support import ROOT, wait_for

NAME = "rip"
_LEFT = 1000.0

_SSH = """\
#!/bin/sh
# What ssh and the other host's SSH daemon do with a word: the options go, and the forced command gets the rest.
while [ "${1#-}" != "$1" ]; do
    case $1 in
    -V | -O) exit 0 ;;
    -F | -p | -o | -l) shift ;;
    --) shift; break ;;
    esac
    shift
done
shift
echo "$*" >> "$OTHER_HOST/words"
DIE_AT=$DIE_AT_THERE exec "$PYTHON" -m tests.unit.helpers.sleeper_host "$OTHER_HOST" serve "$(cat "$OTHER_HOST/session")" "$*"
"""
# The timer of the watchdog is at work, and no service that settles a session.
_SYSTEMCTL = """\
#!/bin/sh
case $* in
*livemigrate-settle@*) echo ActiveState=inactive ;;
*) printf 'ActiveState=active\\nUnitFileState=enabled\\n' ;;
esac
"""
_PEER = {"address": "192.0.2.1", "port": 22, "user": "root", "host_keys": ["ssh-ed25519 AAAA"]}


class Move:
    """A sleeper on a host, another host, and what a playbook does on both."""

    def __init__(self, directory: Path) -> None:
        self.source, self.destination = Host(directory / "alpha"), Host(directory / "beta")
        self._programs = directory / "bin"
        self._programs.mkdir()
        for name, text in (("ssh", _SSH), ("systemctl", _SYSTEMCTL)):
            (self._programs / name).write_text(text)
            (self._programs / name).chmod(0o755)
        for host in (self.source, self.destination):
            for place in ("state", "units"):
                (host.root / place).mkdir(parents=True)
            (host.root / "boot").write_text("the first")
        self.session = ""
        self.source.place(NAME).mkdir(parents=True)
        (self.source.place(NAME) / "dream").write_text("of sheep")
        pid = self.source.start(NAME, _LEFT)
        self.source.write(NAME, {"id": "sleeper.1", "pid": pid, "wakes_with_host": True})
        wait_for(lambda: self.source.beats(NAME), "it sleeps")

    def end(self) -> None:
        """End all processes that have been started."""
        for pid in self.processes():
            sleeper.kill(pid)

    def processes(self) -> list[int]:
        """All processes of it on both hosts, those that stand still and those that nobody knows of any more too."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self._programs.parent).encode() in path.read_bytes() and b"/beats" in path.read_bytes():
                    found.append(int(path.parent.name))
        return [pid for pid in found if state(pid)]

    # -- what is done to the hosts

    def agent(
        self, host: Host, *words: str, params: dict[str, Any] | None = None, die_at: str = "", die_there: str = ""
    ) -> Any:
        """Run a host's agent; returns what it answers, or the exit code where it answers nothing.

        :param die_at: see ``sleeper_host.py``.
        :param die_there: the same for the agents that the other host's ssh starts.
        """
        environment = {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHON": sys.executable,
            "OTHER_HOST": str(self.destination.root),
            "DIE_AT": die_at,
            "DIE_AT_THERE": die_there,
        }
        argv = [sys.executable, "-m", "tests.unit.helpers.sleeper_host", str(host.root), *words]
        done = subprocess.run(
            argv, input=json.dumps(params or {}), capture_output=True, text=True, check=False, env=environment
        )
        if not done.stdout.startswith("{"):
            assert done.returncode >= 0 or die_at, done.stderr
            return done.returncode
        answer = json.loads(done.stdout)
        if "failure" in answer:
            raise MigrationError.from_failure(answer["failure"])
        return answer["result"]

    def step(self, host: Host, name: str, **more: Any) -> Any:
        params = more.pop("params", {})
        return self.agent(host, "step", self.session, name, params=params, **more)

    def prepare(self) -> None:
        """All that a playbook does before the freeze."""
        common = {"kind": "sleeper", "sleeper": NAME}
        opened = self.agent(self.source, "open", params={**common, "role": SOURCE, "peer_name": "beta"})
        self.session = opened["session"]
        (self.destination.root / "session").write_text(self.session)
        theirs = {key: opened[key] for key in ("session", "sleeper_id", "ancestry", "public_key")}
        self.agent(
            self.destination,
            "open",
            params={**common, **theirs, "role": DESTINATION, "peer_name": "alpha", "channel_user": "root"},
        )
        self.step(self.source, "connected", params={"peer": _PEER})
        assert self.step(self.destination, "created")["sleeper_id"] == f"sleeper.{self.session}"
        sent = self.step(self.source, "content_sent", params={"close_connections": False})
        assert sent["warnings"] == ["It sleeps."]

    def half(self, host: Host) -> Session:
        return Session(self.session, state_root=str(host.root / "state"), volatile_root=str(host.root / "run"))

    def is_over(self, host: Host) -> bool:
        try:
            return self.half(host).ended
        except MigrationError:
            return True

    def settle(self) -> None:
        """The watchdogs of both hosts look, again and again, until they have nothing to do any more."""
        for _round in range(6):
            for host in (self.destination, self.source):
                if not self.is_over(host):
                    Path(self.half(host).volatile, "lease").unlink(missing_ok=True)
                    assert self.agent(host, "settle", self.session) in (0, 75)
            if self.is_over(self.source) and self.is_over(self.destination):
                return
        raise AssertionError(f"{self.half(self.source).phase}, {self.half(self.destination).phase}")

    def reboot(self, host: Host) -> None:
        """All processes of the host end, and memory forgets; what was to be started again with it is."""
        for path in host.directory.glob("*.json"):
            note = json.loads(path.read_text())
            sleeper.kill(note["pid"])
        shutil.rmtree(host.root / "run", ignore_errors=True)
        (host.root / "boot").write_text(f"another {time.monotonic()}")
        for path in host.directory.glob("*.json"):
            note = json.loads(path.read_text())
            if note["wakes_with_host"]:
                host.write(path.stem, {**note, "pid": host.start(path.stem, float(host.beats(path.stem)[-1][2]))})

    # -- what became of it

    def awake(self) -> list[str]:
        """The hosts on which it runs: its processes that do not stand still."""
        return [
            host.name
            for host in (self.source, self.destination)
            for path in host.directory.glob("*.json")
            if state(json.loads(path.read_text())["pid"]) not in ("", "T")
        ]

    def history(self) -> list[str]:
        """On which hosts it has run, one after the other, by its own notes of both hosts."""
        beats = {tuple(line) for host in (self.source, self.destination) for line in host.beats(NAME)}
        ordered = sorted(beats, key=lambda line: float(line[0]))
        left = [float(line[2]) for line in ordered]
        assert left == sorted(left, reverse=True), "it has run twice: a part of its time was slept more than once"
        hosts = [line[1] for line in ordered]
        return [host for number, host in enumerate(hosts) if number == 0 or hosts[number - 1] != host]

    def require_alive_on(self, host: Host) -> None:
        """It runs there, and nowhere else, and goes on doing so."""
        assert self.awake() == [host.name]
        assert len(self.processes()) == 1, "nothing of it is left elsewhere"
        before = len(host.beats(NAME))
        wait_for(lambda: len(host.beats(NAME)) > before + 5, f"it goes on on {host.name}")
        assert self.history() == (["alpha"] if host is self.source else ["alpha", "beta"])
        assert (host.place(NAME) / "dream").read_text() == "of sheep"
        note = host.read(NAME)
        assert note is not None
        assert note["wakes_with_host"] is True, "what was put aside has been given back"


@pytest.fixture
def move(quick: Path) -> Iterator[Move]:
    for program in ("rsync", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    made = Move(quick)
    yield made
    made.end()


def test_it_is_moved(move: Move) -> None:
    move.prepare()
    assert move.awake() == ["alpha"]
    reported = move.step(move.source, "handed_over")
    assert (reported["processes"], reported["recognised"], reported["warnings"]) == (1, 1, [])
    assert 0 < reported["gap"] < 60
    move.require_alive_on(move.destination)
    # Both sides are closed; nothing of the checkpoint is left, and the watchdog has nothing to look at.
    assert [move.half(host).phase for host in (move.source, move.destination)] == ["closed", "closed"]
    assert not any((host.root / "state" / move.session / "images").exists() for host in (move.source, move.destination))
    assert not any(any((host.root / "units").iterdir()) for host in (move.source, move.destination))
    words = (move.destination.root / "words").read_text().split("\n")
    assert [words.count(word) for word in ("ping", "transfer", "handover", "close")] == [1, 1, 1, 1]
    # The old copy stays, until a person cleans up.
    old = f"{NAME}-moved-{move.session}"
    assert (move.source.read(NAME), move.source.read(old) is not None) == (None, True)
    reported = move.agent(
        move.source, "recover", "cleaned", params={"session": None, "name": None, "check_mode": False}
    )
    assert (reported["removed"], reported["changed"]) == ([old], True)
    assert move.source.read(old) is None


def test_the_stories_have_its_own_decision(move: Move) -> None:
    move.prepare()
    [reported] = move.agent(
        move.source,
        "recover",
        "settled",
        params={
            **dict.fromkeys(("session", "name", "role", "destination_lost")),
            "wait": 0,
            "ignore_lease": True,
            "other_half_settled": False,
            "check_mode": True,
        },
    )["sessions"]
    assert (reported["sleeper_id"], reported["sleeper_name"]) == ("sleeper.1", NAME)
    assert reported["story"].startswith("prepared; the sleeper runs here untouched")
    assert not [key for key in reported if "container" in key]


def test_its_own_steps_and_commands_are_asked_of_its_kind(move: Move) -> None:
    move.prepare()
    assert move.step(move.source, "lullaby", params={"by": "us"}) == {"changed": False, "sung_to": NAME, "by": "us"}
    with pytest.raises(MigrationError) as caught:
        move.step(move.source, "dumped")
    assert caught.value.code == "wrong_engine"
    move.require_alive_on(move.source)


def test_what_is_in_the_way_is_given_a_moment(move: Move) -> None:
    move.prepare()
    (move.source.root / "dreams").touch()
    move.step(move.source, "handed_over")
    phases = [entry["phase"] for entry in move.half(move.source).journal]
    assert phases.count("freezing") == 2
    move.require_alive_on(move.destination)


def test_a_failure_before_the_decision_lets_it_go_on(move: Move) -> None:
    move.prepare()
    (move.destination.root / "cannot_restore").touch()
    with pytest.raises(MigrationError) as caught:
        move.step(move.source, "handed_over")
    assert (caught.value.code, caught.value.message) == ("restore_failed", "There is no bed.")
    move.require_alive_on(move.source)
    assert move.destination.read(NAME) is None
    move.settle()
    move.require_alive_on(move.source)
    assert not move.destination.place(NAME).exists()


def test_a_refusal_after_the_decision_lets_it_go_on(move: Move) -> None:
    """The source has said GO_SENT when the copy is gone: whether it runs there is the destination's to say."""
    move.prepare()
    # The agent of the source is killed when it has decided, and before it says so.
    move.step(move.source, "handed_over", die_at="GO_SENT")
    assert (move.half(move.source).decision, move.half(move.destination).phase) == ("GO_SENT", "held")
    assert move.awake() == []
    held = move.destination.read(NAME)
    assert held is not None
    sleeper.kill(held["pid"])
    move.settle()
    assert move.half(move.source).phase == "closed"
    move.require_alive_on(move.source)
    assert move.destination.read(NAME) is None


def test_a_refusal_in_the_last_moment_says_why(move: Move) -> None:
    move.prepare()
    (move.destination.root / "cannot_run").touch()
    with pytest.raises(MigrationError) as caught:
        move.step(move.source, "handed_over")
    assert caught.value.code == "refused"
    why = r"Why: It is too\x1b[2J bright."
    assert caught.value.message == f"The destination refused; the source goes on with the {sleeper.NOUN}. {why}"
    move.require_alive_on(move.source)
    assert move.awake() == [move.source.name]


# At each of these moments an agent is killed: on the source, and on the destination.
_CUT: list[tuple[str, str]] = [
    *((SOURCE, word) for word in ("arming", "armed", "freezing", "dumped", "sent", "held", "GO_SENT", "committed")),
    *((DESTINATION, word) for word in ("starting", "held", "RUN", "run")),
]
_STAYS = {"arming", "armed", "freezing", "dumped", "sent", "starting"}


@pytest.mark.parametrize(("role", "word"), _CUT)
def test_wherever_it_is_cut_off_it_runs_once_in_the_end(role: str, word: str, move: Move) -> None:
    move.prepare()
    at = {"die_at": word} if role == SOURCE else {"die_there": word}
    try:
        move.step(move.source, "handed_over", **at)
    except MigrationError:
        assert role == DESTINATION
    assert len(move.awake()) <= 1
    move.settle()
    [host] = [one for one in (move.source, move.destination) if one.name in move.awake()]
    if word in _STAYS or word == "GO_SENT":
        # Nobody has told the destination to run it.
        assert host is move.source
    if word in ("RUN", "run", "committed"):
        assert host is move.destination
    move.require_alive_on(host)


@pytest.mark.parametrize(
    ("word", "name", "stays"),
    [
        ("dumped", "source", True),
        ("GO_SENT", "source", True),
        ("GO_SENT", "destination", True),
        ("committed", "destination", False),
        ("committed", "source", False),
    ],
)
def test_a_host_that_starts_again_changes_nothing_of_it(word: str, name: str, stays: bool, move: Move) -> None:
    move.prepare()
    move.step(move.source, "handed_over", die_at=word)
    move.reboot(move.source if name == "source" else move.destination)
    assert len(move.awake()) <= 1
    move.settle()
    move.require_alive_on(move.source if stays else move.destination)


def test_run_that_is_decided_outlives_the_host(move: Move) -> None:
    """RUN is on the disk, nothing has run, and the power goes: the copy is started when the host is."""
    move.prepare()
    # Its answer is lost, and the source is cut off before it asks for it.
    move.step(move.source, "handed_over", die_there="RUN", die_at="ABORT")
    assert (move.half(move.destination).decision, move.half(move.destination).phase) == ("RUN", "held")
    assert move.awake() == []
    move.reboot(move.destination)
    move.settle()
    move.require_alive_on(move.destination)


def test_somebody_who_wakes_it_up_has_it_stay(move: Move) -> None:
    """A checkpoint of what has run since is not used."""
    move.prepare()
    note = move.source.read(NAME)
    assert note is not None
    (move.destination.root / "wakes").write_text(str(note["pid"]))
    with pytest.raises(MigrationError) as caught:
        move.step(move.source, "handed_over")
    assert caught.value.code == "source_thawed"
    move.settle()
    move.require_alive_on(move.source)


def test_no_file_under_plugins_knows_it() -> None:
    """The proof would be none."""
    words = (f'"{sleeper.NOUN}"', f"'{sleeper.NOUN}'", f"{sleeper.NOUN}_id", f"{sleeper.NOUN}_name", "Sleepers")
    files = list((ROOT / "plugins").rglob("*.py"))
    assert len(files) > 100
    assert [path for path in files if any(word in path.read_text() for word in words)] == []


@pytest.mark.parametrize(
    ("protocol", "own"), [("Original", sleeper.Original), ("Copy", sleeper.Copy), ("Kind", sleeper.Sleepers)]
)
def test_it_has_what_the_protocols_ask_and_nothing_more(protocol: str, own: type) -> None:
    wanted = {name for name in vars(getattr(subject, protocol)) if not name.startswith("_")}
    # Made when it is made.
    wanted -= {"session"}
    assert {name for name in vars(own) if not name.startswith("_")} >= wanted


_checked: Callable[[Host], subject.Kind] = sleeper.Sleepers
