# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is durable on the source is so on the destination before the copy may run: when that is, and what a failure means."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import durable_content
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.conversation import Conversation
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import images as criu_images
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import directories
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import api as engine_api
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.connections import Arrangement
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._host import fingerprints as process_fingerprints
from ansible_collections.livemigrate.criu.plugins.module_utils._host import flush
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination, source, transfer
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import original as container_original
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.copy import Copy
from tests.unit.helpers import moved
from tests.unit.helpers.disks import Disk, require_disks, with_own_mounts
from tests.unit.helpers.groups import Group, Shim
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to
from tests.unit.helpers.wire import Wire
from tests.unit.migration.test_second_pass import Contents

MakeSession = Callable[..., Session]

_MIB = 1 << 20


@pytest.fixture
def needs_disks(needs_namespaces: None) -> None:  # noqa: ARG001
    """Skip where a test cannot have disks of its own."""
    require_disks()


# -- the pass while the container runs ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_disks")
def test_what_was_sent_ahead_is_there_after_a_power_cut(wire: Wire, disk: Path) -> None:
    """Content, names and owners, with rsync's own way of writing files."""
    contents = Contents(wire, disk / "docker")
    for number in range(20):
        (contents.volume / str(number)).write_bytes(b"x" * 10_000)
        os.chown(contents.volume / str(number), 33, 33)
    (contents.layer / "etc").mkdir()
    (contents.layer / "etc" / "link").symlink_to("nowhere")

    def work() -> dict[str, tuple[int, int]]:
        there = Disk(disk, wire.places)
        wire.prepare("layer", "log", "volume/data")
        contents.send(running=True)
        cut = there.after_a_power_cut()
        return {
            str(path.relative_to(cut)): (path.lstat().st_size, path.lstat().st_uid)
            for path in cut.rglob("*")
            if not path.is_dir()
        }

    wanted = {f"volume/data/{number}": (10_000, 33) for number in range(20)} | {"layer/etc/link": (7, 0)}
    assert with_own_mounts(work) == wanted


@pytest.mark.usefixtures("needs_disks")
def test_a_destination_whose_disk_cannot_take_what_was_sent_ahead_says_so(wire: Wire, disk: Path) -> None:
    contents = Contents(wire, disk / "docker")
    (contents.volume / "file").write_bytes(os.urandom(48 * _MIB))

    def work() -> str:
        Disk(disk, wire.places, room=24 * _MIB)
        wire.prepare("layer", "log", "volume/data")
        with pytest.raises(MigrationError) as caught:
            contents.send(running=True)
        return caught.value.code

    assert with_own_mounts(work) == "flush_failed"


def _prepare(wire: Wire) -> None:
    wire.prepare("layer")
    os.mkdir(wire.destination.facts["data_root"])


def test_the_file_systems_are_open_before_the_first_byte_comes(wire: Wire) -> None:
    """An error that another program is told of in between would be missed else, see _host/flush.py."""
    _prepare(wire)
    sent: list[str] = []

    def passes(_there: Container[str]) -> int:
        sent.append("all of it")
        return 7

    assert durable_content.send(wire.source, passes, seconds=5) == 7
    (wire.places / "layer").rmdir()
    with pytest.raises(MigrationError) as caught:
        durable_content.send(wire.source, passes, seconds=5)
    assert caught.value.code == "flush_failed"
    assert sent == ["all of it"]


@pytest.mark.parametrize("message", [{}, {"flush": "soon"}, {"flush": None}, {"run": True}])
def test_a_message_that_is_none_is_refused(message: dict[str, Any], wire: Wire) -> None:
    _prepare(wire)
    with Conversation(wire.channel, durable_content.COMMAND) as conversation:
        conversation.receive()
        with pytest.raises(MigrationError) as caught:
            conversation.request(message)
    assert caught.value.code in ("channel_refused", "channel_failed")


def test_what_is_flushed(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that has come and must stay, and the engine's own; no file system for the checkpoint's sake."""
    asked: list[Any] = []
    monkeypatch.setattr(durable_content, "Flush", lambda trees, also, host: asked.append((sorted(trees), also, host)))
    session = make_session(DESTINATION, data_root="/docker")
    names = ("inbox", "layer", "log", "checkpoint", "volume/data", "bind/0")
    channel_server.set_targets(session, {name: f"/place/{name}" for name in names})
    durable_content.arriving(session)
    places = [f"/place/{name}" for name in ("bind/0", "layer", "log", "volume/data")]
    assert asked == [(places, ["/docker"], "destination")]


# -- beside the restore (engine runtime) -------------------------------------------------------------------------------


@pytest.fixture
def session(make_session: MakeSession, disk: Path) -> Session:
    """A destination's session whose copy is created and marked, with a volume and a log that has come."""
    data_root = disk / "docker"
    (data_root / "containers" / OTHER_CONTAINER).mkdir(parents=True)
    found = make_session(DESTINATION, engine="runtime", data_root=str(data_root))
    nothing = dict.fromkeys(("volumes", "networks", "empty_directories", "made_directories"), ())
    found.enter("creating", name="web-incoming", **nothing)
    engine_runtime.receive(found, OTHER_CONTAINER)
    found.enter("created", container_id=OTHER_CONTAINER)
    incoming = Path(directories.incoming_log_directory(str(data_root), OTHER_CONTAINER))
    for place in (incoming, disk / "volume"):
        place.mkdir()
    (incoming / f"{CONTAINER}-json.log").write_text("a line\n")
    channel_server.set_targets(found, {"volume/data": str(disk / "volume"), "log": str(incoming)})
    return found


@pytest.fixture
def copy(group: Group, init: int) -> Group:
    """The cgroup of the copy, by whose name it is found when it has to be killed."""
    path = Path(group.path) / f"docker-{OTHER_CONTAINER}.scope"
    path.mkdir()
    found = Group(str(path))
    found.put(init)
    return found


def _asked_to_hold(group: Group) -> io.BytesIO:
    """What the source says."""
    network = Arrangement(False, False, (), NO_ADDRESSES).as_data()
    fingerprints = process_fingerprints.take(group.pids())
    question = {"manifest": {}, "fingerprints": fingerprints, "network": network, "surroundings": {}}
    return io.BytesIO(json.dumps({"hold": question}).encode() + b"\n")


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim of these tests restores nothing."""
    monkeypatch.setattr(criu_images, "compare", lambda received, sent: None)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to do of a refusal waits for it."""

    def engine(**_settings: Any) -> Any:
        raise MigrationError("engine_unreachable", "The Docker engine does not answer.")

    monkeypatch.setattr(keeper, "Engine", engine)


def _reported(answers: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers.getvalue().splitlines()]


@pytest.mark.usefixtures("no_images")
def test_it_is_flushed_beside_the_restore_and_before_the_copy_counts_as_held(
    session: Session, group: Group, init: int, monkeypatch: pytest.MonkeyPatch, disk: Path
) -> None:
    """A slow disk: the restore has been done for long, and nothing is said before it has taken everything."""
    seen: list[tuple[str, str, bool]] = []
    log = disk / "docker" / "containers" / OTHER_CONTAINER / f"{OTHER_CONTAINER}-json.log"
    mark = Mark.of(session)

    def slow(_descriptor: int) -> None:
        seen.append(("begun", session.phase, log.exists()))
        deadline = time.monotonic() + 10
        while not mark.plumbed and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        seen.append(("ended", session.phase, mark.plumbed))

    monkeypatch.setattr(flush, "_syncfs", slow)
    answers = io.BytesIO()
    with Shim(mark, group, init):
        destination.serve_handover(Copy(session), _asked_to_hold(group), answers)
    assert seen == [("begun", "starting", True), ("ended", "starting", True)], "once, and beside the restore"
    [ready, held] = _reported(answers)
    assert ready == {"ready": True}
    assert session.phase == "held"
    assert 0.5 <= held["flush_seconds"] <= held["seconds"]
    assert 0.2 < held["flush_waited"] <= held["flush_seconds"]


@pytest.mark.usefixtures("no_images", "no_engine")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_flush_that_fails_is_refused_and_the_copy_is_killed(
    number: int, session: Session, copy: Group, init: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(flush, "_syncfs", broken)
    answers = io.BytesIO()
    with Shim(Mark.of(session), copy, init):
        destination.serve_handover(Copy(session), _asked_to_hold(copy), answers)
    assert session.decision == REFUSED
    assert (session.phase, session.reached("held")) == ("starting", None)
    assert not copy.populated
    failure = _reported(answers)[-1]["failure"]
    assert failure["code"] == "flush_failed"
    assert os.strerror(number) in failure["message"]


@pytest.mark.usefixtures("no_images", "no_engine", "needs_disks")
@pytest.mark.parametrize("room", [200 * _MIB, 24 * _MIB])
def test_the_last_pass_on_a_real_disk(room: int, session: Session, group: Group, init: int, disk: Path) -> None:
    """One that takes it has it after a power cut that follows the answer; one that does not is told."""

    def work() -> tuple[dict[str, Any], str | None, list[int]]:
        there = Disk(disk, disk / "volume", room=room)
        arriving = durable_content.arriving

        def arriving_then_sent(of: Session) -> flush.Flush:
            found = arriving(of)
            # What rsync does between the beginning of the conversation and the command to hold the copy.
            (there.place / "file").write_bytes(os.urandom(48 * _MIB))
            return found

        answers = io.BytesIO()
        with pytest.MonkeyPatch.context() as patch, Shim(Mark.of(session), group, init):
            patch.setattr(durable_content, "arriving", arriving_then_sent)
            destination.serve_handover(Copy(session), _asked_to_hold(group), answers)
        left = list(there.after_a_power_cut().iterdir()) if session.decision is None else []
        return _reported(answers)[-1], session.decision, [path.stat().st_size for path in left]

    reported, decision, sizes = with_own_mounts(work)
    if room > 48 * _MIB:
        assert (decision, sizes) == (None, [48 * _MIB])
        assert reported["recognised"] == 1
    else:
        assert (reported["failure"]["code"], decision) == ("flush_failed", REFUSED)


@pytest.mark.usefixtures("no_images", "no_engine")
def test_a_destination_that_cannot_open_them_says_so_before_anything_is_frozen(
    session: Session, group: Group, disk: Path
) -> None:
    (disk / "volume").rmdir()
    answers = io.BytesIO()
    destination.serve_handover(Copy(session), _asked_to_hold(group), answers)
    assert [message["failure"]["code"] for message in _reported(answers)] == ["flush_failed"]
    assert (session.phase, session.decision) == ("created", None)


# -- engine api --------------------------------------------------------------------------------------------------------


class Starting:
    """The few calls of an engine that a start makes, with what had happened by then."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def rename(self, _container: str, _name: str) -> None:
        self._events.append("renamed")

    def start(self, _container: str, _checkpoint: str, **_bounds: float) -> None:
        self._events.append("started")
        raise MigrationError("restore_failed", "It is not to be restored.")


@pytest.mark.parametrize("broken", [False, True])
def test_with_api_it_is_flushed_before_the_copy_is_started(
    broken: bool, make_session: MakeSession, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (disk / "docker" / "containers" / OTHER_CONTAINER).mkdir(parents=True)
    found = make_session(DESTINATION, engine="api", data_root=str(disk / "docker"))
    found.enter("creating", name="web")
    found.enter("created", container_id=OTHER_CONTAINER)
    events: list[str] = []

    def syncfs(_descriptor: int) -> None:
        events.append("flushed")
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(flush, "_syncfs", syncfs)
    monkeypatch.setattr(criu_images, "arrived", lambda _inbox: ({}, {}))
    monkeypatch.setattr(criu_images, "verify", lambda _directory, _manifest: None)
    engine: Any = Starting(events)
    with pytest.raises(MigrationError) as caught:
        engine_api.start(found, engine)
    assert caught.value.code == ("flush_failed" if broken else "restore_failed")
    assert events == (["renamed", "flushed"] if broken else ["renamed", "flushed", "started"])
    assert found.phase == ("created" if broken else "starting")


@pytest.mark.usefixtures("needs_disks")
@pytest.mark.parametrize("hangs", [False, True])
def test_with_api_the_last_pass_has_a_bound_where_the_destination_s_disk_hangs(
    hangs: bool, wire: Wire, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rsync's receiver waits for the disk, and its generator goes on answering: no time-out of rsync's comes to an end."""
    contents = Contents(wire, disk / "docker")
    (contents.volume / "file").write_bytes(os.urandom(8 * _MIB))
    images = Path(engine_api.images(wire.source))
    images.mkdir(parents=True)
    (images / "pages-1.img").write_bytes(b"memory")
    bring_to(wire.source, "freezing").enter("dumped", held={}, bytes=0)
    hung_up: list[str] = []
    monkeypatch.setattr(channel_client.Channel, "disconnect", lambda channel: hung_up.append(channel.session.id))
    monkeypatch.setattr(transfer, "_LAST_PASS_SECONDS", 1.0 if hangs else 20.0)
    monkeypatch.setattr(container_original, "memory_timeout", lambda _size: 0.5)

    def work() -> tuple[str, bool, int, str]:
        there = Disk(disk, wire.places)
        wire.prepare("layer", "log", "volume/data", "inbox", "checkpoint")
        if hangs:
            subprocess.run(["fsfreeze", "--freeze", there.place], check=True)
        # Without a bound it would come to an end only with this.
        goes_on = threading.Timer(12, subprocess.run, (["fsfreeze", "--unfreeze", there.place],))
        began = time.monotonic()
        if hangs:
            goes_on.start()
        try:
            source.send_checkpoint(moved.original(wire.source))
            reported = "sent"
        except MigrationError as exc:
            reported = f"{exc.code}: {exc.message}"
        in_time = time.monotonic() - began < 10
        if hangs:
            goes_on.cancel()
            subprocess.run(["fsfreeze", "--unfreeze", there.place], check=False)
        return reported, in_time, len(hung_up), wire.source.phase

    late = (
        "transfer_failed: The last changes of the container's files did not reach the destination within 1.5 seconds."
    )
    assert with_own_mounts(work) == ((late, True, 1, "dumped") if hangs else ("sent", True, 0, "sent"))
