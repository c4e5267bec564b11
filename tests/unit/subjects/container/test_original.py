# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source whose engine does not answer: the service goes on as soon as it may, and not before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import connections
from ansible_collections.livemigrate.criu.plugins.module_utils._host import fingerprints as process_fingerprints
from ansible_collections.livemigrate.criu.plugins.module_utils._host import procfs
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import source
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES
from ansible_collections.livemigrate.criu.plugins.module_utils._network.fence import NEW, Fence
from ansible_collections.livemigrate.criu.plugins.module_utils._session import timeline
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import ABORT, GO_SENT, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import (
    original,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import surroundings
from tests.unit.helpers import moved
from tests.unit.helpers.disks import Disk, require_disks, with_own_mounts
from tests.unit.helpers.groups import Group
from tests.unit.helpers.netns import namespaces
from tests.unit.helpers.pausing import Pausing, is_stopped
from tests.unit.helpers.support import wait_for


def test_what_is_not_decided_goes_on(frozen: Session, group: Group) -> None:
    source.abort_alone(moved.original(frozen), 1)
    assert not group.frozen
    assert frozen.decision == ABORT
    assert frozen.phase == "freezing", "the rest waits for the engine"
    source.abort_alone(moved.original(frozen), 1)


def test_what_is_handed_over_waits_for_the_decision(frozen: Session, group: Group) -> None:
    assert frozen.decide(GO_SENT) == GO_SENT
    with pytest.raises(MigrationError):
        source.abort_alone(moved.original(frozen), 0)
    assert group.frozen


@pytest.mark.usefixtures("hanging")
def test_an_engine_that_hangs_keeps_nothing_frozen(frozen: Session, group: Group) -> None:
    """As the watchdog settles it, and a person."""
    began = time.monotonic()
    one = original.Original(frozen)

    def settle() -> None:
        source.reach(one, 0.5)
        source.settle(one)

    with pytest.raises(MigrationError) as caught:
        settle()
    assert caught.value.code == "engine_unreachable"
    assert not group.frozen
    assert time.monotonic() - began < 20
    assert (frozen.decision, frozen.phase) == (ABORT, "freezing"), "the rest waits for the engine"


@pytest.mark.parametrize("hanging", [True], indirect=True, ids=["answers nothing about a container"])
@pytest.mark.usefixtures("hanging")
def test_a_step_that_fails_waits_no_longer_for_it(frozen: Session, group: Group) -> None:
    """It has been connected to the engine since before the freeze, with all the time that calls usually have."""
    began = time.monotonic()
    one = original.Original(frozen)
    one.reach()
    with pytest.raises(MigrationError, match="The processes of the container go on all the same"):
        source.settle(one)
    assert not group.frozen
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("hanging", [True], indirect=True, ids=["answers nothing about a container"])
@pytest.mark.usefixtures("hanging")
def test_what_a_user_stops_afterwards_stays_stopped(frozen: Session, group: Group, init: int) -> None:
    """The watchdog looks every few seconds until the engine answers. The stops of the dump were taken back by its first look."""
    frozen.enter("dumped", held=TaskGroup(group.path).queue_stops(), bytes=0)
    one = original.Original(frozen)

    def look() -> None:
        with pytest.raises(MigrationError, match="The processes of the container go on all the same"):
            source.settle(one)

    look()
    wait_for(lambda: not group.frozen and not is_stopped(init), "it goes on")
    os.kill(init, signal.SIGSTOP)
    wait_for(lambda: is_stopped(init), "its user has stopped it")
    look()
    assert is_stopped(init)


@pytest.mark.usefixtures("as_it_was")
def test_what_was_stopped_by_a_dump_that_was_cut_off_goes_on(frozen: Session, group: Group, init: int) -> None:
    """A person's docker unpause delivers the stops before the watchdog comes; the journal does not know of them yet."""
    one = moved.original(frozen, Pausing(paused=False))
    with pytest.MonkeyPatch.context() as patch:
        nothing = contextlib.nullcontext(SimpleNamespace(result=dict))
        patch.setattr(surroundings, "Reading", lambda *_words: nothing)
        patch.setattr(process_fingerprints, "take", _cut_off)
        patch.setattr(one._engine, "dump", lambda *_words: {})
        with pytest.raises(KeyboardInterrupt):
            one.dump()
    assert frozen.phase == "freezing"
    group.thawed_by_a_stranger()
    wait_for(lambda: is_stopped(init), "its SIGSTOP is delivered")
    moved.original(frozen, Pausing(paused=False)).go_on()
    wait_for(lambda: not is_stopped(init), "it goes on")


def _cut_off(*_words: object) -> None:
    raise KeyboardInterrupt


class Refusing(moved.AnyEngine):
    """An engine that takes its container for paused and cannot unpause it."""

    def find(self, container: str) -> dict[str, Any]:
        return {"Id": container, "Name": "/web", "State": {"Paused": True, "Running": True}}

    inspect = find

    def unpause(self, _container: str) -> None:
        raise MigrationError("thaw_failed", "Cannot unpause it.")


def test_an_engine_that_cannot_unpause_it_keeps_nothing_frozen(frozen: Session, group: Group) -> None:
    for _attempt in range(2):
        with pytest.raises(MigrationError, match="Cannot unpause it"):
            source.settle(moved.original(frozen, Refusing()))
        assert not group.frozen
    assert frozen.phase == "freezing"


# Opens a file when it is told to, and writes into it.
_WRITER = "import sys; sys.stdin.readline(); open(sys.argv[1], 'wb', 0).write(b'x'); sys.stdin.readline()"


@pytest.mark.parametrize("paused", [False, True], ids=["docker has given up", "docker believes that it is paused"])
@pytest.mark.usefixtures("needs_namespaces", "as_it_was")
def test_one_that_waits_for_a_disk_is_not_frozen_when_the_disk_answers(
    paused: bool, running: Session, group: Group, tmp_path: Path
) -> None:
    """A task in an uninterruptible sleep is frozen when it wakes up: minutes after the move has been given up."""
    require_disks()

    def work() -> list[object]:
        place = tmp_path / "disk"
        Disk(tmp_path, place)
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(place / "file")], stdin=subprocess.PIPE) as writer:
            assert writer.stdin is not None
            group.put(writer.pid)
            subprocess.run(["fsfreeze", "--freeze", str(place)], check=True)
            try:
                writer.stdin.write(b"\n")
                writer.stdin.flush()
                wait_for(lambda: procfs.stat_fields(writer.pid)[procfs.STATE] == "D", "it waits for the disk")
                if not paused:
                    # runc has waited for all tasks, and has failed.
                    (Path(group.path) / "cgroup.freeze").write_text("1")
                try:
                    source.abort(moved.original(running, Pausing(paused=paused)))
                    reported = ""
                except MigrationError as exc:
                    reported = exc.code
                seen: list[object] = [reported, group.freeze_requested]
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", str(place)], check=True)
                if sys.exc_info()[0] is not None:
                    group.kill()
            wait_for(lambda: procfs.stat_fields(writer.pid)[procfs.STATE] == "S", "it goes on")
            seen.append(group.frozen)
            writer.kill()
        return seen

    # What Docker believes is put right when the tasks can be frozen once more; the watchdog tries that.
    assert with_own_mounts(work) == ["freeze_failed" if paused else "", False, False]


@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize("hanging", [True], indirect=True, ids=["answers nothing about a container"])
def test_an_engine_that_hangs_before_it_freezes_anything_leaves_no_fence(
    make_session: Callable[..., Session], group: Group, tmp_path: Path
) -> None:
    with namespaces() as net:
        plan = connections.Plan(Fence.of(net.container), NO_ADDRESSES, (), skip_lock=False)
        session = make_session(SOURCE, engine="api", data_root=str(tmp_path))
        session.enter("prepared", **plan.as_data())
        session.enter("arming", policy={"Name": "no"}, pid=net.container, cgroup=group.path, bytes=0)
        session.enter("armed")
        session.enter("freezing", at=timeline.now())
        connections.keep_new_ones_out(plan)
        assert plan.fence is not None
        assert plan.fence.level() == NEW
        one = original.Original(session)

        def settle() -> None:
            source.reach(one, 0.5)
            source.settle(one)

        with pytest.raises(MigrationError, match="does not answer"):
            settle()
        assert plan.fence.level() is None
        assert session.decision == ABORT


@pytest.mark.parametrize(
    ("policy", "exit_code", "calls"),
    [("no", 0, []), ("no", 1, []), ("on-failure", 0, []), ("on-failure", 1, ["start"]), ("always", 0, ["start"])],
)
@pytest.mark.usefixtures("as_it_was")
def test_one_that_ends_after_it_was_let_go_is_started_only_if_docker_would(
    policy: str, exit_code: int, calls: list[str], frozen: Session, group: Group
) -> None:
    """A job that is done must not be done again because its engine has hung for a while."""
    frozen._append("arming", {**frozen.data("arming"), "policy": {"Name": policy}})
    source.abort_alone(moved.original(frozen), 1)
    group.kill()
    engine = Pausing(paused=False, running=False, exit_code=exit_code)
    moved.original(frozen, engine).go_on()
    assert engine.calls == calls


@pytest.mark.usefixtures("as_it_was")
def test_one_that_ends_while_it_is_frozen_is_started(frozen: Session, group: Group) -> None:
    """By a restart of dockerd: it was to run."""
    group.kill()
    engine = Pausing(paused=False, running=False)
    moved.original(frozen, engine).go_on()
    assert engine.calls == ["start"]


def test_what_a_dump_has_in_its_hand_is_left_alone(
    running: Session, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRIU thaws the cgroup while it works. The watchdog tries it again."""
    monkeypatch.setattr(TaskGroup, "is_dumped_now", True)
    with pytest.raises(MigrationError) as caught:
        source.abort_alone(moved.original(running), 1)
    assert caught.value.code == "dump_running"
    assert not group.frozen
