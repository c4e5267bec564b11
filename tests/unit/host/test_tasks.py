# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real processes in a real cgroup: frozen, held, thawed by strangers, released, killed."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host import tasks
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup, cgroup_of
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from tests.unit.helpers.groups import Group, unified
from tests.unit.helpers.support import CONTAINER, ROOT, wait_for

# Counts in a file that others can see, as fast as a bounded use of the processor allows. Says how often it was told to go on.
_COUNTER = """
import mmap, signal, struct, sys, time
with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 16)
def continued(*_arguments):
    global continues
    continues += 1
continues = 0
if "handler" in sys.argv:
    signal.signal(signal.SIGCONT, continued)
number = 0
while True:
    number += 1
    struct.pack_into("qq", shared, 0, number, continues)
    time.sleep(0.0005)
"""


class Counter:
    """A process that counts where it can be watched."""

    def __init__(self, file: Path, *words: str) -> None:
        file.write_bytes(bytes(16))
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", _COUNTER, str(file), *words], start_new_session=True
        )
        self.pid = self.process.pid
        with file.open("r+b") as handle:
            self._shared = mmap.mmap(handle.fileno(), 16)

    @property
    def number(self) -> int:
        return int(struct.unpack_from("qq", self._shared)[0])

    @property
    def continues(self) -> int:
        return int(struct.unpack_from("qq", self._shared)[1])

    @property
    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait_stopped(self) -> None:
        wait_for(lambda: self.state == "T", "the process is stopped")

    def wait_running(self) -> None:
        before = self.number
        wait_for(lambda: self.number > before, "the process counts")

    def stands_still(self, seconds: float = 0.1) -> bool:
        before = self.number
        time.sleep(seconds)
        return self.number == before


@pytest.fixture
def start(group: Group, tmp_path: Path) -> Iterator[Callable[..., Counter]]:
    """A function that starts a counting process in the group: start("handler", below="")."""
    started: list[Counter] = []

    def start_one(*words: str, below: str = "") -> Counter:
        counter = Counter(tmp_path / f"counter{len(started)}", *words)
        started.append(counter)
        group.put(counter.pid, below)
        counter.wait_running()
        return counter

    yield start_one
    for counter in started:
        counter.process.kill()
        # A frozen one dies as well.
        counter.process.wait(5)


Start = Callable[..., Counter]


# -- looking ---------------------------------------------------------------------------------------------------------


def test_an_empty_group(group: Group) -> None:
    assert (group.exists, group.populated, group.frozen, group.pids()) == (True, False, False, [])
    gone = TaskGroup(group.path + "-gone")
    assert (gone.exists, gone.populated, gone.frozen, gone.pids()) == (False, False, False, [])


def test_processes_are_found_in_the_groups_below_as_well(group: Group, start: Start) -> None:
    (Path(group.path) / "a" / "b").mkdir(parents=True)
    counters = [start(), start(below="a/b")]
    assert group.pids() == sorted(counter.pid for counter in counters)
    assert group.populated
    assert not group.frozen


def test_frozen_is_reported_when_all_stand_still_and_processor_time_agrees(group: Group, start: Start) -> None:
    (Path(group.path) / "below").mkdir()
    counters = [start(), start(below="below")]
    group.freeze()
    assert group.frozen
    assert all(counter.stands_still(0.05) for counter in counters)
    group.thaw()
    assert TaskGroup(group.path).frozen is False
    for counter in counters:
        counter.wait_running()


def test_what_does_not_happen_in_time_is_an_error(group: Group, start: Start) -> None:
    start()
    with pytest.raises(MigrationError) as caught:
        group.wait_frozen(True, 0.05)
    assert caught.value.code == "freeze_failed"
    group.freeze()
    with pytest.raises(MigrationError) as caught:
        group.wait_frozen(False, 0.05)
    assert caught.value.code == "thaw_failed"
    assert caught.value.details == {"cgroup": group.path}


def test_a_group_that_has_gone_is_not_waited_for_to_thaw(group: Group) -> None:
    TaskGroup(group.path + "-gone").wait_frozen(False, 0)
    with pytest.raises(MigrationError, match="were not frozen"):
        TaskGroup(group.path + "-gone").wait_frozen(True, 0)


def test_memory_in_use_is_counted(group: Group) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "data = b'x' * (64 << 20); input()"], stdin=subprocess.PIPE)
    try:
        group.put(process.pid)
        wait_for(lambda: group.resident_bytes > 64 << 20, "64 MiB are in use")
        assert group.resident_bytes < 256 << 20
    finally:
        process.kill()
        process.communicate()
    assert TaskGroup(group.path).resident_bytes == 0


# -- the group of a process -------------------------------------------------------------------------------------------


def test_the_group_of_a_process_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(MigrationError) as caught:
        cgroup_of(process.pid)
    assert caught.value.code == "process_gone"


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("version", [1, 2])
def test_the_group_of_a_process_in_version_2_and_the_refusal_of_version_1(
    version: int, group: Group, start: Start
) -> None:
    counter = start()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / '.tree')!r})\n"
        f"from {tasks.__name__} import cgroup_of, MigrationError\n"
        f"try: print(cgroup_of({counter.pid}))\n"
        "except MigrationError as exc: print(exc.code)"
    )
    hierarchy = str(unified()) if version == 2 else "/sys/kernel"
    # What is mounted at the one place where hosts have it, in this process' own view.
    script = 'mount --bind "$1" /sys/fs/cgroup && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", hierarchy, sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == (
        "/sys/fs/cgroup" + group.path.removeprefix(str(unified())) if version == 2 else "cgroup_v1"
    )


def test_a_container_that_does_not_run_has_no_group() -> None:
    for state in ({"Pid": 0, "Status": "exited"}, {"Status": "created"}):
        with pytest.raises(MigrationError) as caught:
            TaskGroup.of_container({"Name": "/web", "State": state})
        assert caught.value.code == "container_not_running"
        assert f"web is not running (status: {state['Status']})" in caught.value.message


@pytest.mark.parametrize("name", [f"docker-{CONTAINER}.scope", CONTAINER])
@pytest.mark.parametrize("below", ["", "init.scope", "a/b", f"x/docker-{CONTAINER}.scope", CONTAINER, "\udcff\udcfe"])
def test_a_container_s_group_is_the_one_that_bears_its_id(
    name: str, below: str, group: Group, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its tasks are meant, in whatever cgroup it has put its first one."""
    monkeypatch.setattr(tasks, "_CGROUPS", str(unified()))
    path = Path(group.path) / "some.slice" / name
    (path / below).mkdir(parents=True)
    counter = start(below=f"some.slice/{name}/{below}")
    assert TaskGroup.of_container({"Id": CONTAINER, "Name": "/web", "State": {"Pid": counter.pid}}).path == str(path)


@pytest.mark.parametrize("other", ["elsewhere", f"docker-{'c' * 64}.scope", f"docker-{CONTAINER[:12]}.scope"])
def test_a_container_whose_first_process_is_in_a_foreign_group_has_none(
    other: str, group: Group, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freezing that would stop others and leave the container's own tasks running."""
    monkeypatch.setattr(tasks, "_CGROUPS", str(unified()))
    (Path(group.path) / other).mkdir()
    counter = start(below=other)
    with pytest.raises(MigrationError) as caught:
        TaskGroup.of_container({"Id": CONTAINER, "Name": "/web", "State": {"Pid": counter.pid}})
    assert caught.value.code == "cgroup_unknown"


# -- holding ---------------------------------------------------------------------------------------------------------


def test_a_held_process_runs_nothing_when_a_stranger_thaws_it(group: Group, start: Start) -> None:
    counter = start("handler")
    group.freeze()
    before = counter.number
    assert group.queue_stops() == [counter.pid]
    group.thawed_by_a_stranger()
    counter.wait_stopped()
    assert counter.stands_still()
    assert counter.number == before
    assert not group.stops_pending([counter.pid])
    group.take_back_stops([counter.pid])
    counter.wait_running()
    wait_for(lambda: counter.continues == 1, "it was told to go on")


def test_without_a_hold_a_stranger_s_thaw_runs_it(group: Group, start: Start) -> None:
    """What the test above rests on: nothing but the hold keeps a thawed process still."""
    counter = start()
    group.freeze()
    group.thawed_by_a_stranger()
    counter.wait_running()


def test_a_hold_taken_back_before_the_thaw_stops_nothing(group: Group, start: Start) -> None:
    counters = [start(), start()]
    group.freeze()
    held = group.queue_stops()
    assert held == sorted(counter.pid for counter in counters)
    group.take_back_stops(held)
    assert all(counter.stands_still(0.05) for counter in counters), "taking back is not thawing"
    group.thaw()
    for counter in counters:
        counter.wait_running()
        assert counter.state != "T"


def test_a_hold_that_nobody_noted_is_taken_back_all_the_same(group: Group, start: Start) -> None:
    counter = start()
    group.freeze()
    group.queue_stops()
    group.take_back_stops([])
    group.thaw()
    counter.wait_running()


def test_holding_twice_and_releasing_twice_is_fine(group: Group, start: Start) -> None:
    counter = start()
    group.freeze()
    assert group.queue_stops() == group.queue_stops() == [counter.pid]
    group.take_back_stops([counter.pid])
    group.take_back_stops([counter.pid])
    group.thaw()
    counter.wait_running()


@pytest.mark.parametrize("stops", [1, 2])
def test_a_process_that_was_stopped_on_purpose_stays_stopped(stops: int, group: Group, start: Start) -> None:
    counter, other = start("handler"), start()
    for _time in range(stops):
        os.kill(counter.pid, signal.SIGSTOP)
        counter.wait_stopped()
    group.freeze()
    held = group.queue_stops()
    assert held == [other.pid]
    group.take_back_stops(held)
    group.thaw()
    other.wait_running()
    assert counter.stands_still()
    assert counter.state == "T"
    os.kill(counter.pid, signal.SIGCONT)
    counter.wait_running()
    assert counter.continues == 1


def test_held_is_proved_by_signals_that_are_still_on_their_way(group: Group, start: Start) -> None:
    counters = [start(), start()]
    group.freeze()
    held = group.queue_stops()
    assert group.stops_pending(held)
    # However short a thaw was, it shows.
    group.thawed_by_a_stranger()
    for counter in counters:
        counter.wait_stopped()
    group.freeze()
    assert group.frozen
    assert not group.stops_pending(held)


def test_where_all_were_stopped_on_purpose_the_freezer_alone_holds(group: Group, start: Start) -> None:
    counter = start()
    os.kill(counter.pid, signal.SIGSTOP)
    counter.wait_stopped()
    group.freeze()
    assert group.queue_stops() == []
    assert group.stops_pending([])
    group.thawed_by_a_stranger()
    assert not group.stops_pending([])


@pytest.mark.parametrize("undone", ["thawed", "one released", "one killed"])
def test_held_is_not_reported_of_a_group_that_is_not(undone: str, group: Group, start: Start) -> None:
    counter, _other = start(), start()
    group.freeze()
    held = group.queue_stops()
    assert group.stops_pending(held)
    if undone == "thawed":
        group.thawed_by_a_stranger()
    else:
        os.kill(counter.pid, signal.SIGCONT if undone == "one released" else signal.SIGKILL)
        if undone == "one killed":
            counter.process.wait(5)
    assert not group.stops_pending(held)


def test_a_timer_that_fires_into_a_frozen_process_is_no_reason_to_doubt(group: Group) -> None:
    handler = "signal.signal(signal.SIGALRM, lambda *_: None)"
    code = f"import signal, time; {handler}; signal.setitimer(0, 0.3, 0.3); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        group.put(process.pid)
        group.freeze()
        held = group.queue_stops()
        pending = "SigPnd ShdPnd"

        def alarm_is_pending() -> bool:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            return any(int(line.split()[1], 16) & 1 << 13 for line in lines if line.split(":")[0] in pending)

        wait_for(alarm_is_pending, "the timer has fired")
        assert group.stops_pending(held)
    finally:
        process.kill()
        process.communicate()


def test_zombies_are_neither_held_nor_in_the_way(group: Group) -> None:
    code = "import os, time; input(); os.spawnlp(os.P_NOWAIT, 'true', 'true'); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, text=True)
    try:
        group.put(process.pid)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        wait_for(lambda: "Z (zombie)" in _children(process.pid), "the child has ended")
        group.freeze()
        held = group.queue_stops()
        assert held == [process.pid]
        assert group.stops_pending(held)
    finally:
        process.kill()
        process.communicate()


def _children(pid: int) -> str:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "\n".join(Path(f"/proc/{child}/status").read_text() for child in found)


# -- strangers -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_namespaces")
def test_processes_that_came_in_from_outside_are_reported(group: Group) -> None:
    # As in a container: a first process that adopts those whose parents have ended.
    script = "sleep 71 & (sleep 72 & sleep 73 &) ; echo; exec sleep 74"
    init_line = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", f"read go; {script}"]
    container = subprocess.Popen(init_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    strangers = []
    try:
        assert container.stdin is not None
        assert container.stdout is not None
        wait_for(lambda: Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text(), "the first process")
        init = int(Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text())
        group.put(init)
        container.stdin.write("go\n")
        container.stdin.flush()
        container.stdout.readline()
        wait_for(lambda: len(group.pids()) == 4, "four processes")
        assert group.foreign(init) == []
        stranger = subprocess.Popen(["sh", "-c", "read go; sleep 75 & exec sleep 76"], stdin=subprocess.PIPE, text=True)
        strangers.append(stranger)
        group.put(stranger.pid)
        assert stranger.stdin is not None
        stranger.stdin.write("go\n")
        stranger.stdin.flush()
        wait_for(lambda: len(group.pids()) == 6, "six processes")
        wait_for(lambda: group.foreign(init) == ["sleep"], "the stranger alone is told, not its child")
        group.freeze()
        assert group.foreign(init) == ["sleep"]
    finally:
        for process in (*strangers, container):
            process.kill()
            process.communicate()


def test_a_health_check_is_given_time_to_end(group: Group, init: int) -> None:
    """A process from outside that ends after a while: longer than others are waited for."""
    with subprocess.Popen(["sleep", "600"]) as check:
        group.put(check.pid)
        assert group.foreign(init) == ["sleep"]
        assert facts_of_container._lasting_foreign(group, init, 0.0) == ["sleep"]
        assert facts_of_container._lasting_foreign(group, init, 0.2) == ["sleep"]

        def end() -> None:
            time.sleep(1.2)
            check.kill()
            # Who has started it looks after it; a shim does that at once.
            check.wait()

        threading.Thread(target=end).start()
        assert facts_of_container._lasting_foreign(group, init, 5.0) == []


@pytest.mark.parametrize(
    ("check", "seconds"),
    [
        (None, 1.0),
        ({"Test": ["NONE"]}, 1.0),
        ({"Test": []}, 1.0),
        ({"Test": ["CMD", "true"]}, 5.0),
        ({"Test": ["CMD-SHELL", "true"], "Timeout": 0}, 5.0),
        ({"Test": ["CMD-SHELL", "true"], "Timeout": 3_000_000_000}, 3.0),
        ({"Test": ["CMD-SHELL", "true"], "Timeout": 60_000_000_000}, 5.0),
        ({"Test": ["CMD-SHELL", "true"], "Timeout": 1_000_000}, 1.0),
    ],
)
def test_how_long_processes_from_outside_are_waited_for(check: dict[str, Any] | None, seconds: float) -> None:
    assert facts_of_container._exec_patience({"Config": {"Healthcheck": check}}) == seconds


# -- killing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knob", ["cgroup.kill", "none"])
@pytest.mark.parametrize("state", ["running", "frozen", "held", "stopped"])
def test_all_are_killed_and_none_runs_again(
    state: str, knob: str, group: Group, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(group.path) / "below").mkdir()
    counters = [start(), start(below="below")]
    if state == "stopped":
        for counter in counters:
            os.kill(counter.pid, signal.SIGSTOP)
    elif state != "running":
        group.freeze()
    if state == "held":
        group.queue_stops()
    before = [counter.number for counter in counters]
    if knob == "none":
        # As on kernels before 5.14.
        exists = os.path.exists
        monkeypatch.setattr(os.path, "exists", lambda path: exists(path) and not str(path).endswith("cgroup.kill"))
    group.kill(timeout=5)
    assert not group.populated
    assert [counter.process.wait(1) for counter in counters] == [-signal.SIGKILL] * 2
    if state in ("frozen", "held"):
        assert [counter.number for counter in counters] == before, "nothing ran between freezing and death"
    group.kill(timeout=0)


def test_a_group_that_is_gone_has_been_killed(group: Group) -> None:
    TaskGroup(group.path + "-gone").kill(timeout=0)


def test_tasks_that_do_not_die_are_an_error(group: Group, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = start()
    never: dict[str, Any] = {"populated": property(lambda _group: True)}
    for name, value in never.items():
        monkeypatch.setattr(TaskGroup, name, value)
    with pytest.raises(MigrationError) as caught:
        group.kill(timeout=0.05)
    assert caught.value.code == "kill_failed"
    assert counter.process.wait(5) == -signal.SIGKILL


# -- found by its name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"docker-{CONTAINER}.scope", CONTAINER])
def test_a_container_s_group_is_found_under_any_parent(name: str, group: Group) -> None:
    path = Path(group.path) / "some.slice" / "some-more.slice" / name
    path.mkdir(parents=True)
    for printed in ("", str(path), str(path / "init.scope"), "/elsewhere", f"{group.path}/../{name}", group.path):
        found = tasks.group_of_id(CONTAINER, printed)
        assert found is not None, printed
        assert found.path == str(path), printed


def test_a_group_that_is_gone_is_not_looked_for_elsewhere(group: Group) -> None:
    assert tasks.group_of_id(CONTAINER, f"{group.path}/docker-{CONTAINER}.scope") is None
    assert tasks.group_of_id(CONTAINER) is None


def test_what_is_claimed_to_be_the_container_s_and_is_not_is_left_alone(group: Group) -> None:
    """Killing that would end other containers, or the host."""
    for printed in (group.path, str(Path(group.path).parent), "/sys/fs/cgroup", f"{group.path}/{'c' * 64}", "/", "."):
        assert tasks.group_of_id(CONTAINER, printed) is None
