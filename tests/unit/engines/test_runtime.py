# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine `runtime` on files, marks and real frozen processes: what is made ready, what is held, and what lets it go."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import durable_content
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import failure as criu_failure
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.images import Manifest
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import directories
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import armed_start
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.connections import Arrangement
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from ansible_collections.livemigrate.criu.plugins.module_utils._host import fingerprints as process_fingerprints
from ansible_collections.livemigrate.criu.plugins.module_utils._host.flush import Flush
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._network import fence as network_fence
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES
from ansible_collections.livemigrate.criu.plugins.module_utils._session import timeline
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED, RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import surroundings as surroundings_module
from tests.unit.helpers.disks import with_read_only
from tests.unit.helpers.engine_socket import Answering, answering_engine
from tests.unit.helpers.groups import Group, Shim, first_process
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, wait_for

MakeSession = Callable[..., Session]

MANIFEST: Manifest = {
    "inventory.img": {"size": 1, "sha256": "a" * 64},
    "pstree.img": {"size": 1, "sha256": "b" * 64},
}


class Programs:
    """What the engine calls of systemd, as programs that note what they are told."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "log"
        for name in ("systemctl", "systemd-run"):
            program = directory / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >>{self._log}\n')
            program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    return Programs(directory)


NETWORK = Arrangement(False, False, (), NO_ADDRESSES)
"""A container without a network of its own, and without connections."""

FLUSH = Flush([], host="destination")
"""A copy without files; those that have some are in test_durable_content.py."""


@pytest.fixture
def session(make_session: MakeSession, tmp_path: Path) -> Session:
    """A destination's session whose copy is created, marked and waits for its checkpoint."""
    (tmp_path / "docker" / "containers" / OTHER_CONTAINER).mkdir(parents=True)
    found = make_session(DESTINATION, engine="runtime", data_root=str(tmp_path / "docker"))
    found.enter("creating", name="web")
    engine_runtime.receive(found, OTHER_CONTAINER)
    found.enter("created", container_id=OTHER_CONTAINER)
    return found


@pytest.fixture
def mark(session: Session) -> Mark:
    return Mark.of(session)


@pytest.fixture
def shim(mark: Mark, group: Group, init: int) -> Shim:
    return Shim(mark, group, init)


def _hold(session: Session, group: Group) -> dict[str, Any]:
    return engine_runtime.hold(session, MANIFEST, MANIFEST, process_fingerprints.take(group.pids()), NETWORK, {}, FLUSH)


@pytest.fixture
def docker(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """This host's Docker Engine."""
    with answering_engine(disk, monkeypatch) as found:
        yield found


@pytest.fixture
def held(session: Session, shim: Shim, group: Group, docker: Answering) -> Iterator[Session]:  # noqa: ARG001
    """A session whose copy is restored and held."""
    with shim:
        _hold(session, group)
        yield session


# -- getting ready on the destination ----------------------------------------------------------------------------------


def test_the_place_of_the_checkpoint_is_where_the_shim_looks(session: Session, mark: Mark) -> None:
    assert mark.exists
    assert not mark.ready
    assert os.path.realpath(mark.images) == session.memory_path("images") == engine_runtime.checkpoint_place(session)
    assert engine_runtime.receive(session, OTHER_CONTAINER) == session.memory_path("images"), "twice is fine"


class FakeEngine:
    """The few calls of an engine that arming makes."""

    def __init__(self) -> None:
        self.renamed: list[tuple[str, str]] = []

    def info(self) -> dict[str, Any]:
        return {"Runtimes": {"runc": {}, "livemigrate": {}}}

    def rename(self, container: str, name: str) -> None:
        self.renamed.append((container, name))


def test_arming_names_the_copy_and_starts_the_call(session: Session, programs: Programs) -> None:
    engine: Any = FakeEngine()
    engine_runtime.arm(session, engine)
    assert engine.renamed == [(OTHER_CONTAINER, "web")]
    [call] = programs.calls
    assert call.startswith("systemd-run ")
    assert call.endswith(f" start {session.id}")


def test_the_copy_runs_under_the_shim_or_not_at_all() -> None:
    engine: Any = FakeEngine()
    assert engine_runtime.runtime_of({"HostConfig": {}}, engine) == "livemigrate"
    infos: list[dict[str, Any]] = [{"Runtimes": {"runc": {}}}, {"Runtimes": None}, {}]
    for info in infos:
        engine.info = partial(dict, info)
        with pytest.raises(MigrationError) as caught:
            engine_runtime.runtime_of({"HostConfig": {}}, engine)
        assert caught.value.code == "shim_missing"


# -- holding -----------------------------------------------------------------------------------------------------------


def test_a_copy_is_held_and_proved(session: Session, mark: Mark, shim: Shim, group: Group) -> None:
    with shim:
        reported = _hold(session, group)
    assert (reported["processes"], reported["recognised"]) == (1, 1)
    assert 0 < reported["seconds"] < 10
    assert timeline.parse(reported["timeline"]) == reported["timeline"], "the source knows each event"
    assert (session.phase, session.decision) == ("held", None)
    assert [entry["phase"] for entry in session.journal][-2:] == ["starting", "held"]
    assert group.frozen
    assert not mark.consumed
    options = Path(mark.path("criu.conf")).read_text().splitlines()
    assert "action-script=/usr/local/lib/livemigrate/livemigrate-criu-action" in options
    assert "manage-cgroups=ignore" in options


def test_the_log_of_the_source_is_in_its_place_before_the_engine_starts(
    session: Session, shim: Shim, group: Group, tmp_path: Path
) -> None:
    container = tmp_path / "docker" / "containers" / OTHER_CONTAINER
    incoming = Path(directories.incoming_log_directory(str(tmp_path / "docker"), OTHER_CONTAINER))
    incoming.mkdir(parents=True)
    (incoming / f"{CONTAINER}-json.log").write_text("line\n")
    with shim:
        _hold(session, group)
    assert (container / f"{OTHER_CONTAINER}-json.log").read_text() == "line\n"


def test_a_mount_through_a_link_is_named_to_criu(make_session: MakeSession) -> None:
    """By where it leads on this host: what runc says of it is the link, and CRIU mounts no links."""
    session = make_session(DESTINATION, container="c" * 64)
    session.enter("creating", name="web")
    session.enter("created", container_id="c" * 64, links={"/data": "/srv/real", "/a": "/srv/a"})
    options = engine_runtime._options(session, NETWORK)
    assert options[-2:] == ["external=mnt[/a]:/srv/a", "external=mnt[/data]:/srv/real"]
    assert "tcp-close" in options


def test_a_restore_knows_of_connections_what_the_dump_did(session: Session) -> None:
    kept = engine_runtime._options(session, NETWORK._replace(established=True))
    assert "tcp-established" in kept
    assert "tcp-close" not in kept
    # CRIU up to 4.2 dies of it; the images tell how the network was locked.
    assert not any(line.startswith("network-lock") for line in kept)


def test_the_network_of_a_copy_is_arranged_before_the_engine_starts(
    session: Session, mark: Mark, shim: Shim, group: Group
) -> None:
    """Its fence and the addresses for its sockets lie there when the shim is told that it may begin."""
    seen: dict[str, str] = {}

    def note(original: Any = mark.set_ready) -> None:
        seen.update({name: Path(mark.path(name)).read_text() for name in ("fence", "addresses", "sysctls")})
        original()

    network = NETWORK._replace(fenced=True, addresses=("192.0.2.7", "2001:db8::7"))
    # Its process shares the network of this machine, so that nothing is written but what the shim is told.
    surroundings = {"sysctls": {"values": {"net/core/somaxconn": "333"}, "set": ["net/core/somaxconn"]}}
    with shim, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mark, "set_ready", lambda _self: note())
        engine_runtime.hold(
            session, MANIFEST, MANIFEST, process_fingerprints.take(group.pids()), network, surroundings, FLUSH
        )
    assert seen["fence"] == network_fence.rules(network_fence.ALL)
    assert seen["addresses"] == "192.0.2.7\n2001:db8::7\n"
    assert seen["sysctls"] == "net/core/somaxconn 333\n"


def test_the_network_of_others_is_not_closed(session: Session, mark: Mark, shim: Shim, group: Group) -> None:
    with shim:
        _hold(session, group)
    assert not os.path.exists(mark.path("fence"))


def test_what_arrived_otherwise_is_not_restored(session: Session, mark: Mark) -> None:
    received: Manifest = {**MANIFEST, "pstree.img": {"size": 1, "sha256": "c" * 64}}
    with pytest.raises(MigrationError) as caught:
        engine_runtime.hold(session, received, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)
    assert caught.value.code == "checkpoint_corrupt"
    assert (session.phase, mark.ready) == ("created", False)


def _engine_says(session: Session, error: str) -> None:
    Path(session.memory_path("start.json")).write_text(json.dumps({"error": error}))


@pytest.mark.parametrize(
    ("printed", "reported"),
    [
        ("container web: no such network", "no such network"),
        # A runtime in between that is not the shim: the copy may run. It is refused and killed.
        ("", "nothing holds it"),
    ],
)
def test_a_start_that_comes_to_nothing_is_reported_with_criu_s_words(
    printed: str, reported: str, session: Session, mark: Mark
) -> None:
    os.mkdir(mark.path("work"))
    Path(mark.path("work", "restore.log")).write_text("(00.1) fine\n(00.2) Error (criu/files.c:1): no such file\n")
    _engine_says(session, printed)
    with pytest.raises(MigrationError) as caught:
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)
    assert caught.value.code == "restore_failed"
    assert reported in caught.value.message
    assert "CRIU says: no such file." in caught.value.message
    assert session.phase == "starting"


def test_a_restore_that_fails_is_reported_by_its_cause_and_its_log_is_kept(session: Session, mark: Mark) -> None:
    log = "(00.1) fine\n(00.2) Error (criu/files.c:1): no such file\n(00.3) Error (criu/cr-restore.c:1): Restoring FAILED.\n"
    os.mkdir(mark.path("work"))
    Path(mark.path("work", "restore.log")).write_text(log)
    frames = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    _engine_says(session, f"{frames}livemigrate: container 5ba60768a9e0 could not be restored: no such file")
    with pytest.raises(MigrationError) as caught:
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)
    kept = Path(session.state_root, "logs", f"{session.id}-restore.log")
    assert caught.value.message == (
        f"CRIU cannot restore the container: no such file. Its whole log is {kept} on the destination, for 14 days."
    )
    assert kept.read_text() == log
    assert kept.stat().st_mode & 0o777 == 0o600
    # It outlives the session, and not by much.
    session.close(keep=False)
    criu_failure.prune(session.state_root)
    assert kept.exists()
    os.utime(kept, (0, 0))
    criu_failure.prune(session.state_root)
    assert not kept.exists()


def test_what_the_action_script_says_is_the_cause(session: Session, mark: Mark) -> None:
    Path(mark.path("failed")).write_text("setup-namespaces: no device can stand in for that of the copy\n")
    _engine_says(session, "livemigrate: container 5ba60768a9e0 could not be restored: setup-namespaces: no device")
    with pytest.raises(MigrationError, match="restore the container: setup-namespaces: no device can stand in"):
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)


def test_a_criu_that_dies_in_a_restore_is_called_dead(session: Session, mark: Mark) -> None:
    os.mkdir(mark.path("work"))
    Path(mark.path("work", "restore.log")).write_text("(00.0) Version: 4.1.1 (gitid 0)\n(00.1) fine\n")
    _engine_says(session, "livemigrate: container 5ba60768a9e0 could not be restored: read unixpacket @->@: EOF")
    with pytest.raises(MigrationError, match=r"^CRIU 4\.1\.1 ended on kernel .* while it restored the container"):
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)


def test_a_restore_that_does_not_end_is_given_up(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_runtime, "_START_SECONDS", 0.1)
    monkeypatch.setattr(engine_runtime, "memory_timeout", lambda size: 0.0)
    with pytest.raises(MigrationError, match="not done after 0 seconds") as caught:
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)
    assert caught.value.code == "restore_failed"


def test_a_copy_that_is_not_frozen_is_not_trusted(session: Session, shim: Shim, group: Group) -> None:
    shim.tell()
    with pytest.raises(MigrationError) as caught:
        _hold(session, group)
    assert caught.value.code == "not_held"


def test_a_copy_whose_cgroup_is_gone_is_not_trusted(session: Session, shim: Shim, group: Group) -> None:
    shim.tell(group.path + "-gone")
    with pytest.raises(MigrationError) as caught:
        _hold(session, group)
    assert caught.value.code == "not_held"


def test_a_shim_that_does_not_tell_what_it_holds_is_not_trusted(session: Session, mark: Mark) -> None:
    Path(mark.path("plumbed")).write_text("1\n")
    with pytest.raises(MigrationError, match="did not tell") as caught:
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"}, NETWORK, {}, FLUSH)
    assert caught.value.code == "not_held"


def test_a_copy_of_something_else_is_not_held(session: Session, shim: Shim) -> None:
    with shim, pytest.raises(MigrationError) as caught:
        engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "0" * 64}, NETWORK, {}, FLUSH)
    assert caught.value.code == "not_a_restore"
    assert (session.phase, session.decision) == ("starting", None)


class Unlike:
    """A topic of the surroundings in which every copy is unlike its source."""

    NAME, OF_PROCESSES = "owner", True

    def carry(self, *_arguments: Any) -> None:
        pass

    def compare(self, *_arguments: Any) -> list[str]:
        return ["/dev/stdout belongs to somebody else"]


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Surroundings that the copy does not have."""
    monkeypatch.setattr(surroundings_module, "_TOPICS", (Unlike(),))
    return {"owner": "1000"}


def test_a_copy_that_sees_something_else_is_not_held(
    session: Session, shim: Shim, group: Group, unlike: dict[str, str]
) -> None:
    with shim, pytest.raises(MigrationError, match=r"what the original saw: /dev/stdout belongs.*goes on") as caught:
        engine_runtime.hold(
            session, MANIFEST, MANIFEST, process_fingerprints.take(group.pids()), NETWORK, unlike, FLUSH
        )
    assert caught.value.code == "surroundings_differ"
    assert (session.phase, session.decision) == ("starting", None)


def test_who_does_not_heed_that_gets_an_error(
    session: Session, shim: Shim, group: Group, unlike: dict[str, str]
) -> None:
    os.makedirs(session.memory_path("inbox"), exist_ok=True)
    Path(session.memory_path("inbox", "spec.json")).write_text('{"ignore_rules": ["surroundings_differ"]}')
    with shim:
        reported = engine_runtime.hold(
            session, MANIFEST, MANIFEST, process_fingerprints.take(group.pids()), NETWORK, unlike, FLUSH
        )
        assert session.phase == "held"
    assert reported["warnings"] == [
        "The copy does not see what the original saw: /dev/stdout belongs to somebody else."
    ]


def test_a_copy_of_which_a_process_is_missing_is_not_held(session: Session, shim: Shim, group: Group) -> None:
    """None of them has run, so none can have ended."""
    source = {**process_fingerprints.take(group.pids()), "7": "0" * 64}
    with shim, pytest.raises(MigrationError, match="1 of 2 processes") as caught:
        engine_runtime.hold(session, MANIFEST, MANIFEST, source, NETWORK, {}, FLUSH)
    assert caught.value.code == "not_a_restore"
    assert (session.phase, session.decision) == ("starting", None)


def test_a_copy_counts_as_held_when_the_engine_has_noted_that_it_runs(
    session: Session, mark: Mark, group: Group, init: int
) -> None:
    """A dockerd that ends before that takes it for stopped when it comes back, and would kill what runs."""
    shim = Shim(mark, group, init, noted=False)
    done: list[dict[str, Any]] = []
    with shim:
        thread = threading.Thread(target=lambda: done.append(_hold(session, group)))
        thread.start()
        wait_for(lambda: mark.plumbed, "it is restored")
        time.sleep(0.3)
        assert (session.phase, done) == ("starting", [])
        shim.answer()
        thread.join(10)
    assert session.phase == "held"
    events = [event for event, _seconds in done[0]["timeline"]]
    assert events[-2:] == ["noted", "flushed"]


def test_an_engine_that_answers_while_it_is_looked_for_the_shim_is_not_misread(
    session: Session, mark: Mark, shim: Shim, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it may happen between two looks: an answer that is seen means that the shim was done before."""

    def outcome(asked: Session, original: Callable[[Session], str | None] = armed_start.outcome) -> str | None:
        if mark.ready and not mark.plumbed:
            group.freeze()
            shim.tell()
            shim.answer()
        return original(asked)

    monkeypatch.setattr(armed_start, "outcome", outcome)
    _hold(session, group)
    assert session.phase == "held"


def test_a_copy_whose_start_fails_after_all_is_not_held(session: Session, mark: Mark, group: Group, init: int) -> None:
    """The shim is killed, or the engine is."""
    with Shim(mark, group, init, noted=False):
        threading.Timer(0.3, _engine_says, (session, "the daemon is shutting down")).start()
        with pytest.raises(MigrationError, match="shutting down") as caught:
            _hold(session, group)
    assert caught.value.code == "restore_failed"
    assert session.phase == "starting"


@pytest.mark.parametrize(("hangs", "reported"), [(True, "does not answer"), (False, "within 0 seconds")])
def test_a_copy_that_the_engine_does_not_note_is_not_held(
    hangs: bool,
    reported: str,
    session: Session,
    mark: Mark,
    group: Group,
    init: int,
    docker: Answering,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that hangs is found out soon. One whose disk is slow has as long as the flush of the files."""
    docker.hangs = hangs
    monkeypatch.setattr(engine_runtime, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(engine_runtime, "_ALIVE_SECONDS", 0.2)
    if not hangs:
        monkeypatch.setattr(durable_content, "FROZEN_SECONDS", 0.4)
        monkeypatch.setattr(engine_runtime, "memory_timeout", lambda _size: 0.0)
    with Shim(mark, group, init, noted=False), pytest.raises(MigrationError, match=reported):
        _hold(session, group)
    assert session.phase == "starting"
    assert docker.pings >= 1


def test_a_restore_that_took_long_leaves_the_engine_time_for_its_note(
    session: Session, mark: Mark, group: Group, init: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore may take longer than a flush may."""
    monkeypatch.setattr(durable_content, "FROZEN_SECONDS", -1.0)
    monkeypatch.setattr(engine_runtime, "memory_timeout", lambda _size: 0.0)
    with Shim(mark, group, init, noted=False) as shim:
        threading.Timer(0.5, shim.answer).start()
        _hold(session, group)
    assert session.phase == "held"


# -- letting go --------------------------------------------------------------------------------------------------------


def test_the_decision_lets_the_copy_go(held: Session, mark: Mark, group: Group, docker: Answering) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    since = engine_runtime.run(held)
    assert before <= since <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert (held.phase, held.decision) == ("run", RUN)
    assert held.data("run") == {"container_id": OTHER_CONTAINER, "running_since": since}
    assert mark.consumed
    assert not group.frozen
    assert docker.pings == 1
    # A dump before its next start reads what it reads for every container.
    assert os.readlink(mark.path("criu.conf")) == "/etc/criu/runc.conf"


def _still_held(session: Session, mark: Mark, decision: str | None = None) -> None:
    assert (session.phase, session.decision, mark.consumed) == ("held", decision, False)


@pytest.mark.parametrize("how", ["it hangs", "it is gone"])
def test_a_copy_whose_engine_does_not_answer_is_not_let_go(
    how: str, held: Session, mark: Mark, group: Group, docker: Answering
) -> None:
    """The source goes on, whose engine answers."""
    if how == "it hangs":
        docker.hangs = True
    else:
        docker.shutdown()
        docker.server_close()
    began = time.monotonic()
    with pytest.raises(MigrationError, match="does not answer") as caught:
        engine_runtime.run(held)
    assert time.monotonic() - began < 5, "the source stands still meanwhile"
    assert caught.value.code == "engine_unreachable"
    _still_held(held, mark)
    assert group.frozen


def test_a_copy_that_somebody_has_thawed_is_not_run(held: Session, mark: Mark, group: Group) -> None:
    group.thawed_by_a_stranger()
    with pytest.raises(MigrationError) as caught:
        engine_runtime.run(held)
    assert caught.value.code == "not_held"
    _still_held(held, mark)


def test_a_copy_that_was_refused_meanwhile_is_not_run(held: Session, mark: Mark, group: Group) -> None:
    held.decide(REFUSED)
    with pytest.raises(MigrationError) as caught:
        engine_runtime.run(held)
    assert caught.value.code == "already_refused"
    _still_held(held, mark, REFUSED)
    assert group.frozen


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("phase", ["created", "starting"])
def test_a_copy_that_was_never_proved_is_not_run(
    phase: str, session: Session, mark: Mark, shim: Shim, group: Group
) -> None:
    """It is restored and waits, but nobody has compared it with the source's."""
    if phase != "created":
        session.enter(phase)
    group.freeze()
    shim.tell()
    with pytest.raises(MigrationError) as caught:
        engine_runtime.run(session)
    assert caught.value.code == "not_held"
    assert (session.decision, mark.consumed) == (None, False)
    assert group.frozen


def test_a_decision_whose_process_was_killed_is_carried_out_by_the_next(
    session: Session, mark: Mark, shim: Shim, group: Group
) -> None:
    """RUN has been decided, and given out perhaps, and holds. No engine is asked."""
    with shim:
        _hold(session, group)
    session.decide(RUN)
    engine_runtime.let_go(session)
    assert not group.frozen
    assert mark.consumed
    assert session.phase == "run"


def test_a_disk_that_fills_up_after_the_decision_keeps_nobody_from_being_let_go(
    held: Session, mark: Mark, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's journal has room put by, and the tombstone may take it too."""
    held.decide(RUN)
    publish = durable.publish

    def full(path: str, data: bytes) -> bool:
        if os.path.exists(held.path("ballast")):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return publish(path, data)

    monkeypatch.setattr(durable, "publish", full)
    engine_runtime.let_go(held)
    assert mark.consumed
    assert not group.frozen


@pytest.mark.usefixtures("needs_namespaces")
def test_a_copy_goes_on_although_its_tombstone_cannot_be_written(held: Session, mark: Mark, group: Group) -> None:
    """It is written by whoever settles the session when the disk takes changes again."""
    held.decide(RUN)

    def let_go() -> str:
        try:
            engine_runtime.let_go(held)
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
        return ""

    assert with_read_only(mark.directory, let_go) == "EROFS"
    assert not group.frozen
    assert (held.phase, mark.consumed) == ("held", False)
    engine_runtime.let_go(held)
    assert (held.phase, mark.consumed) == ("run", True)


def test_the_memory_of_a_copy_that_was_let_go_is_not_kept(held: Session, mark: Mark) -> None:
    Path(mark.images, "pages-1.img").write_text("memory")
    held.decide(RUN)
    engine_runtime.let_go(held)
    assert not os.path.exists(held.memory_path("images"))


def test_who_deletes_it_when_the_session_is_over_leaves_nothing_new(held: Session) -> None:
    """The source may close this half before that process comes to it."""
    held.decide(RUN)
    engine_runtime.let_go(held)
    held.close(keep=True)
    engine_runtime.forget_images(held)
    assert not os.path.exists(held.volatile)


def test_a_copy_that_ends_while_it_is_let_go_is_run(held: Session, mark: Mark, group: Group) -> None:
    """What becomes of it is Docker's matter from here on."""
    held.decide(RUN)
    group.kill()
    engine_runtime.let_go(held)
    assert (held.phase, mark.consumed) == ("run", True)


def test_letting_go_twice_changes_nothing(held: Session, group: Group) -> None:
    held.decide(RUN)
    engine_runtime.let_go(held)
    journal = Path(held.path("journal")).read_bytes()
    engine_runtime.let_go(held)
    assert Path(held.path("journal")).read_bytes() == journal
    assert not group.frozen


def test_after_a_reboot_only_the_tombstone_is_written(
    session: Session, mark: Mark, shim: Shim, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there of the copy names a cgroup that is another's by now."""
    with shim:
        _hold(session, group)
    session.decide(RUN)
    monkeypatch.setattr(boot, "boot_identity", lambda: "another/1")
    engine_runtime.let_go(session)
    assert mark.consumed
    assert group.frozen
    assert session.phase == "run"


def test_an_interrupted_start_is_never_a_run(held: Session) -> None:
    engine: Any = None
    assert engine_runtime.decide_interrupted(held, engine)
    assert held.decision is None


# -- the end -----------------------------------------------------------------------------------------------------------


def test_after_run_no_memory_is_left(held: Session, mark: Mark) -> None:
    Path(mark.images, "pages-1.img").write_text("memory")
    os.mkdir(held.path("images"))
    held.decide(RUN)
    engine_runtime.let_go(held)
    wait_for(lambda: mark.consumed, "it is let go")
    engine: Any = None
    engine_runtime.finish(held, engine, OTHER_CONTAINER)
    engine_runtime.finish(held, engine, OTHER_CONTAINER)
    assert os.listdir(mark.work) == ["criu.conf"]
    assert not os.path.exists(held.memory_path("images"))
    assert not os.path.exists(held.path("images"))
    assert mark.consumed, "the tombstone stays as long as the container"


def test_after_refused_nothing_is_left(session: Session, mark: Mark, programs: Programs) -> None:
    Path(mark.images, "pages-1.img").write_text("memory")
    os.mkdir(session.path("images"))
    engine_runtime.give_up(session, OTHER_CONTAINER)
    assert os.path.exists(mark.path("refused"))
    for _time in range(2):
        engine_runtime.discard(session, OTHER_CONTAINER)
        assert not mark.exists
        for path in (mark.work, session.memory_path("images"), session.path("images")):
            assert not os.path.exists(path)
    assert programs.calls == [f"systemctl stop livemigrate-{session.id}-start.service"] * 2


@pytest.mark.usefixtures("programs")
def test_a_copy_that_was_never_noted_has_only_a_name_and_its_mark_goes_too(
    session: Session, mark: Mark, make_session: MakeSession
) -> None:
    """REFUSED in the middle of creating: what is known of the copy is the name it was to have."""
    other = Mark.of(make_session(DESTINATION, container="d" * 64), "c" * 64)
    other.make("20261123T235959Z-3f9a1c")
    engine_runtime.discard(session, "web-incoming")
    assert not mark.exists
    assert not os.path.exists(mark.work)
    assert other.exists, "another session's is not ours to remove"


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("who", ["a worker", "all"])
def test_a_copy_of_which_something_has_ended_while_it_was_held_is_not_let_go(
    who: str, session: Session, shim: Shim, group: Group
) -> None:
    """The kernel kills frozen processes as well, where memory is short; and the original is still whole."""
    with subprocess.Popen(["sleep", "60"]) as worker:
        group.put(worker.pid)
        wait_for(lambda: Path(f"/proc/{worker.pid}/comm").read_text() == "sleep\n", "the program is loaded")
        with shim:
            _hold(session, group)
            for pid in [worker.pid] if who == "a worker" else group.pids():
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: worker.poll() is not None, "it has ended")
            with pytest.raises(MigrationError) as caught:
                engine_runtime.run(session)
    assert caught.value.code == "not_held"
    assert session.decision is None


def _end(group: Group) -> None:
    for pid in group.pids():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not group.pids(), "it has ended")


@pytest.mark.parametrize("what", [_end, Group.thawed_by_a_stranger])
def test_what_happens_to_the_copy_while_its_engine_is_asked_is_seen(
    what: Callable[[Group], None], held: Session, mark: Mark, group: Group, docker: Answering
) -> None:
    """An engine that is busy takes its time for an answer; a person's `docker kill` may be what it is busy with."""
    docker.before_answer = partial(what, group)
    with pytest.raises(MigrationError) as caught:
        engine_runtime.run(held)
    assert caught.value.code == "not_held"
    assert docker.pings == 1
    _still_held(held, mark)


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("failures", [0, 1])
def test_its_network_is_open_and_its_tombstone_is_written_when_its_tasks_go_on(
    failures: int, session: Session, mark: Mark, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that sends through a closed fence is told so. One that does not open at first does not keep the copy frozen."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    seen: list[tuple[str | None, bool]] = []
    tries: list[int] = []

    def lift(fence: network_fence.Fence, original: Callable[..., None] = network_fence.Fence.lift) -> None:
        tries.append(len(tries))
        if len(tries) <= failures:
            raise MigrationError("fence_failed", "It does not open.")
        original(fence)

    def thaw(one: TaskGroup, original: Callable[..., None] = TaskGroup.thaw) -> None:
        seen.append((fence.level(), mark.consumed))
        original(one)

    monkeypatch.setattr(network_fence.Fence, "lift", lift)
    monkeypatch.setattr(TaskGroup, "thaw", thaw)
    with first_process(group, "--net") as init, Shim(mark, group, init):
        fence = network_fence.Fence.of(init)
        fence.set(network_fence.ALL)
        _hold(session, group)
        session.decide(RUN)
        engine_runtime.let_go(session)
        assert seen == [("all" if failures else None, True)]
        assert fence.level() is None
    assert not group.frozen
