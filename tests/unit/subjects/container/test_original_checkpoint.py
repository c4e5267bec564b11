# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source that goes on: nothing is brought back that has run on, no memory is left, and no CRIU that hangs keeps it frozen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import runc
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import by_name as engines
from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import recovery, source
from ansible_collections.livemigrate.criu.plugins.module_utils._session import timeline, watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import GO_SENT, REFUSED
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import (
    old_copy,
    restart_policy,
)
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group
from tests.unit.helpers.pausing import Pausing
from tests.unit.helpers.support import wait_for

# -- what goes on is not brought back, and leaves no memory behind -----------------------------------------------------


def _images(session: Session) -> Path:
    """A checkpoint of a container that stands still, written out as the engine does it."""
    functions = engines.functions_of(session)
    place = Path(functions.images(session))
    place.mkdir(parents=True)
    for name in ("inventory.img", "pstree.img", "pages-1.img"):
        (place / name).write_bytes(b"memory")
    functions.seal(session, [])
    session.enter("dumped", held=[], bytes=0)
    return place


@pytest.fixture
def dumped(frozen: Session) -> Session:
    assert _images(frozen).exists()
    return frozen


@pytest.mark.usefixtures("as_it_was")
def test_one_that_ended_while_it_was_frozen_is_brought_back_once(dumped: Session, group: Group) -> None:
    group.kill()
    engine = Pausing(paused=False, running=False)
    moved.original(dumped, engine).go_on()
    assert engine.calls == ["start from the checkpoint"]
    # Cut off before that was noted; and it has ended since.
    again = Pausing(paused=False, running=False)
    moved.original(dumped, again).go_on()
    assert again.calls == ["start"]


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("rebooted", [False, True])
def test_one_that_ran_on_without_its_engine_is_not_brought_back(
    rebooted: bool, dumped: Session, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is older than its files by then."""
    source.abort_alone(moved.original(dumped), 1)
    assert not group.frozen
    # systemctl restart docker, without live-restore; or a power cut.
    group.kill()
    if rebooted:
        monkeypatch.setattr(boot, "boot_identity", lambda: "another boot")
        os.unlink(dumped.memory_path("went_on_alone"))
    engine = Pausing(paused=False, running=False, exit_code=137)
    dumped._append("arming", {**dumped.data("arming"), "policy": {"Name": "always"}})
    moved.original(dumped, engine).go_on()
    assert engine.calls == ["start"]


def test_one_that_ran_on_without_its_policy_is_not_brought_back(
    dumped: Session, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dockerd goes away between the two."""

    def fails(*_words: object) -> None:
        raise MigrationError("engine_unreachable", "It is being restarted.")

    monkeypatch.setattr(old_copy, "give_name_back", lambda *_words: None)
    monkeypatch.setattr(restart_policy, "put", fails)
    with pytest.raises(MigrationError, match="being restarted"):
        source.settle(moved.original(dumped, Pausing(paused=True)))
    assert not group.frozen
    group.kill()
    monkeypatch.setattr(restart_policy, "put", lambda *_words: None)
    again = Pausing(paused=False, running=False)
    moved.original(dumped, again).go_on()
    assert again.calls == ["start"]


@pytest.mark.parametrize("engine", ["api", "runtime"])
def test_memory_goes_when_it_goes_on_whatever_the_engine_does(
    engine: str, frozen: Session, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runc, "await_end", lambda *_words: None)
    frozen.facts["engine"] = engine
    place = _images(frozen)
    source.abort_alone(moved.original(frozen), 1)
    assert not group.frozen
    assert not place.exists()


# -- what hangs --------------------------------------------------------------------------------------------------------


def _as_criu(pid: int) -> subprocess.Popen[bytes]:
    """A process called criu that has another one in its hand and does nothing more."""
    lines = (
        "import ctypes, sys, time",
        "libc = ctypes.CDLL(None, use_errno=True)",
        "libc.prctl(15, b'criu')",
        # PTRACE_SEIZE, as CRIU does it.
        "assert libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0, ctypes.get_errno()",
        "time.sleep(600)",
    )
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines), str(pid)])


@pytest.mark.parametrize("overdue", [False, True])
def test_a_criu_that_is_overdue_is_ended(overdue: bool, running: Session, group: Group, init: int) -> None:
    began = timeline.now() - (1000 if overdue else 0)
    running._append("freezing", {"at": began})
    with _as_criu(init) as criu:
        wait_for(lambda: TaskGroup(group.path).is_dumped_now, "it has it in its hand")
        if overdue:
            source.abort_alone(moved.original(running), 1)
            assert not TaskGroup(group.path).is_dumped_now
        else:
            with pytest.raises(MigrationError, match="the watchdog ends it in") as caught:
                source.abort_alone(moved.original(running), 1)
            assert caught.value.code == "dump_running"
            assert TaskGroup(group.path).is_dumped_now
        criu.kill()


@pytest.mark.parametrize("overdue", [False, True])
def test_a_dump_of_runc_that_is_overdue_is_ended(
    overdue: bool, frozen: Session, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def runs(*_words: object) -> None:
        if not ended:
            raise MigrationError("dump_running", "It is still at work.")

    monkeypatch.setattr(runc, "await_end", runs)
    monkeypatch.setattr(runc, "end_dump", ended.append)
    frozen.facts["engine"] = "runtime"
    frozen._append("freezing", {"at": timeline.now() - (1000 if overdue else 0)})
    if overdue:
        source.abort_alone(moved.original(frozen), 1)
    else:
        with pytest.raises(MigrationError, match="still at work"):
            source.abort_alone(moved.original(frozen), 1)
    assert ended == ([frozen.id] if overdue else [])
    assert group.frozen is not overdue


@pytest.mark.parametrize("hanging", [False], indirect=True, ids=["answers nothing"])
@pytest.mark.usefixtures("hanging")
def test_a_carried_refusal_needs_no_engine(dumped: Session, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """recover.yml brings it where the channel is closed for good."""
    monkeypatch.setattr(source, "KEEPER_SECONDS", 0.5)
    dumped.enter("sent")
    assert dumped.decide(GO_SENT) == GO_SENT
    with pytest.raises(MigrationError) as caught:
        recovery._settle_one(dumped, 1, False, False, None)
    # Both reasons: why it is asked at all, and why it stays frozen.
    assert "does not answer" in caught.value.message
    assert caught.value.code == "channel_closed"
    assert group.frozen
    with pytest.raises(MigrationError) as caught:
        recovery._settle_one(dumped, 1, False, False, {"session": dumped.id, "decision": REFUSED})
    assert caught.value.code == "engine_unreachable"
    assert not group.frozen


@pytest.mark.parametrize("hanging", [False], indirect=True, ids=["answers nothing"])
@pytest.mark.usefixtures("hanging")
def test_with_a_destination_that_is_lost_it_needs_no_engine(
    dumped: Session, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "KEEPER_SECONDS", 0.5)
    monkeypatch.setattr(recovery, "require", lambda *_words: None)
    monkeypatch.setattr(recovery, "_LOST_SECONDS", 0.5)
    peer = {"address": "127.0.0.1", "port": 1, "user": "root", "host_keys": ["ssh-ed25519 AAAA"]}
    channel_client.set_peer(dumped, peer)
    dumped.enter("sent")
    assert dumped.decide(GO_SENT) == GO_SENT
    with pytest.raises(MigrationError) as caught:
        recovery._settle_one(dumped, 1, False, True, None)
    assert caught.value.code == "engine_unreachable"
    assert not group.frozen
    # It is noted: what is left to be done asks the destination no more, whoever does it.
    monkeypatch.setattr(old_copy, "give_name_back", lambda *_words: None)
    monkeypatch.setattr(restart_policy, "put", lambda *_words: None)
    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    source.settle(moved.original(dumped, Pausing(paused=True)))
    assert dumped.ended
    assert dumped.data("aborted")["destination_lost"] is True
