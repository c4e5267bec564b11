# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conversation of the handover through the channel, against the real other end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import checkpoint_stream, messages
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.conversation import Conversation
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import connections
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.connections import Arrangement
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._host import fingerprints as process_fingerprints
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination as destination_module
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES
from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import REFUSED, RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.copy import Copy
from tests.unit.helpers.engine_socket import Answering, answering_engine
from tests.unit.helpers.groups import Group, Shim
from tests.unit.helpers.support import OTHER_CONTAINER, wait_for
from tests.unit.helpers.wire import Wire

PAGES = (1 << 20) + 4097


NETWORK = Arrangement(False, False, (), NO_ADDRESSES).as_data()


@pytest.fixture
def engine(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """The Docker Engine of the other end."""
    with answering_engine(disk, monkeypatch) as found:
        yield found


@pytest.fixture
def destination(runtime_wire: Wire, engine: Answering) -> Session:  # noqa: ARG001
    """The other end's session: its copy is created and waits for the checkpoint."""
    session = runtime_wire.destination
    Path(session.facts["data_root"], "containers", OTHER_CONTAINER).mkdir(parents=True)
    session.enter("creating", name="web")
    engine_runtime.receive(session, OTHER_CONTAINER)
    session.enter("created", container_id=OTHER_CONTAINER)
    return session


@pytest.fixture
def images(disk: Path) -> Path:
    directory = disk / "images"
    directory.mkdir()
    for name in ("inventory.img", "pstree.img", "pages-1.img"):
        (directory / name).write_bytes(name.encode() * (PAGES // len(name)))
    return directory


def _stands(session: Session) -> tuple[str, str | None]:
    """Read afresh: another process has written it."""
    return session.phase, session.decision


def test_a_checkpoint_travels_is_held_and_let_go(
    runtime_wire: Wire, destination: Session, images: Path, group: Group, init: int
) -> None:
    mark = Mark.of(destination)
    place = runtime_wire.prepare("layer")
    with Shim(mark, group, init), Conversation(runtime_wire.channel, "handover") as conversation:
        assert conversation.receive() == {"ready": True}
        manifest, sent = checkpoint_stream.put(conversation.output, str(images))
        assert sent == sum(path.stat().st_size for path in images.iterdir())
        held = conversation.request(
            {
                "hold": {
                    "manifest": manifest,
                    "fingerprints": process_fingerprints.take(group.pids()),
                    "network": NETWORK,
                    "surroundings": {},
                }
            }
        )
        assert (held["processes"], held["recognised"]) == (1, 1)
        assert _stands(destination) == ("held", None)
        # What has been flushed and is about to run is written by nobody any more.
        with pytest.raises(MigrationError, match="has not been prepared"):
            runtime_wire.channel.rsync(str(images), "layer", ())
        assert not any(place.iterdir())
        assert group.frozen
        for path in images.iterdir():
            assert Path(mark.images, path.name).read_bytes() == path.read_bytes()
        answer = conversation.request({"run": True})
        assert (answer["decision"], answer["container_id"]) == (RUN, OTHER_CONTAINER)
        assert 0 <= answer["running_for"] < 10
    assert _stands(destination) == ("run", RUN)
    assert mark.consumed
    assert not Group(group.path).frozen
    assert runtime_wire.commands[0] == ["handover"]


def test_a_source_that_hangs_up_while_it_is_held_decides_nothing(
    runtime_wire: Wire, destination: Session, images: Path, group: Group, init: int
) -> None:
    with Shim(Mark.of(destination), group, init):
        with Conversation(runtime_wire.channel, "handover") as conversation:
            conversation.receive()
            manifest, _sent = checkpoint_stream.put(conversation.output, str(images))
            conversation.request(
                {
                    "hold": {
                        "manifest": manifest,
                        "fingerprints": process_fingerprints.take(group.pids()),
                        "network": NETWORK,
                        "surroundings": {},
                    }
                }
            )
        assert _stands(destination) == ("held", None)
        assert group.frozen
        # A second conversation goes on where the first was cut off.
        with Conversation(runtime_wire.channel, "handover") as conversation:
            conversation.receive()
            assert conversation.request({"run": True})["decision"] == RUN
    assert not group.frozen


def test_a_source_that_hangs_up_in_the_middle_of_a_file_decides_nothing(
    runtime_wire: Wire, destination: Session
) -> None:
    with Conversation(runtime_wire.channel, "handover") as conversation:
        conversation.receive()
        messages.send(conversation.output, {"put": "pages-1.img", "size": PAGES})
        conversation.output.write(b"x" * 10)
        conversation.output.close()
        with pytest.raises(MigrationError, match=r"in the middle of pages-1\.img") as caught:
            conversation.receive()
    assert caught.value.code == "checkpoint_corrupt"
    assert _stands(destination) == ("created", None)
    assert not Mark.of(destination).ready


Message = dict[str, Any]
REFUSED_MESSAGES: dict[str, tuple[Message, str]] = {
    "a path": ({"put": "../evil.img", "size": 3}, "channel_refused"),
    "an absolute path": ({"put": "/tmp/evil.img", "size": 3}, "channel_refused"),
    "a size below nothing": ({"put": "evil.img", "size": -1}, "channel_refused"),
    "no size": ({"put": "evil.img"}, "channel_failed"),
    "a file that is there": ({"put": "there.img", "size": 3}, "channel_failed"),
    "an unknown message": ({"shell": "id"}, "channel_refused"),
    "nothing": ({}, "channel_refused"),
}


@pytest.mark.parametrize("kind", REFUSED_MESSAGES)
def test_what_the_other_end_does_not_take_is_reported(kind: str, runtime_wire: Wire, destination: Session) -> None:
    message, code = REFUSED_MESSAGES[kind]
    there = Path(Mark.of(destination).images, "there.img")
    there.write_text("old")
    with Conversation(runtime_wire.channel, "handover") as conversation:
        conversation.receive()
        with pytest.raises(MigrationError) as caught:
            conversation.request(message)
        assert caught.value.code == code
        with pytest.raises(MigrationError) as caught:
            conversation.request({"run": True})
        assert caught.value.code == "destination_unreachable", "after a failure nothing more is taken"
    assert there.read_text() == "old"
    assert [path.name for path in there.parent.iterdir()] == ["there.img"]
    assert _stands(destination) == ("created", None)


def test_a_line_that_is_no_message_ends_the_conversation(runtime_wire: Wire, destination: Session) -> None:
    for line, code in ((b"rubbish\n", "channel_failed"), (b"[]\n", "channel_failed")):
        with Conversation(runtime_wire.channel, "handover") as conversation:
            conversation.receive()
            conversation.output.write(line)
            conversation.output.flush()
            with pytest.raises(MigrationError) as caught:
                conversation.receive()
            assert caught.value.code == code
    assert destination.decision is None


def test_a_destination_that_has_refused_says_so(runtime_wire: Wire, destination: Session) -> None:
    destination.decide(REFUSED)
    with Conversation(runtime_wire.channel, "handover") as conversation:
        conversation.receive()
        with pytest.raises(MigrationError) as caught:
            conversation.request({"hold": {"manifest": {}, "fingerprints": {}, "network": NETWORK, "surroundings": {}}})
    assert caught.value.code == "already_refused"
    with Conversation(runtime_wire.channel, "handover") as conversation:
        conversation.receive()
        assert conversation.request({"run": True})["decision"] == REFUSED


def test_what_was_decided_already_is_only_repeated(runtime_wire: Wire, destination: Session) -> None:
    destination.enter("starting")
    destination.enter("held")
    destination.decide(RUN)
    destination.enter("run", container_id=OTHER_CONTAINER, running_since=time.clock_gettime(time.CLOCK_BOOTTIME))
    with Conversation(runtime_wire.channel, "handover") as conversation:
        conversation.receive()
        assert conversation.request({"run": True})["decision"] == RUN
    assert [entry["phase"] for entry in destination.journal].count("run") == 1


@pytest.mark.parametrize("command", ["decision", "ping"])
def test_who_asks_for_a_decision_that_was_made_keeps_no_watchdog_away(command: str, destination: Session) -> None:
    """A source that cannot act on it asks every few seconds, and this host has to tidy up meanwhile."""
    commands = {
        "decision": partial(destination_module.make_decision, Copy(destination)),
        "ping": partial(dict[str, Any]),
    }
    lease = Path(destination.volatile, "lease")
    before = lease.stat().st_mtime_ns
    assert channel_server.serve(destination, "ping", commands) == 0
    assert lease.stat().st_mtime_ns > before
    destination.enter("starting")
    destination.enter("held")
    destination.decide(RUN)
    destination.enter("run", container_id=OTHER_CONTAINER, running_since=time.clock_gettime(time.CLOCK_BOOTTIME))
    before = lease.stat().st_mtime_ns
    assert channel_server.serve(destination, command, commands) == 0
    assert lease.stat().st_mtime_ns == before


def test_a_session_of_the_other_engine_says_why_it_answers_nothing(wire: Wire) -> None:
    with Conversation(wire.channel, "handover") as conversation, pytest.raises(MigrationError) as caught:
        conversation.receive()
    assert caught.value.code == "wrong_engine"


def test_a_destination_that_does_not_know_the_command_says_so(runtime_wire: Wire) -> None:
    """One with an older agent."""
    runtime_wire.send_instead("handover-2")
    with Conversation(runtime_wire.channel, "handover") as conversation, pytest.raises(MigrationError) as caught:
        conversation.receive()
    assert caught.value.code == "channel_refused"


def _renewed_since(lease: Path, moment: int) -> bool:
    return lease.stat().st_mtime_ns > moment


def test_only_what_the_source_says_is_a_sign_of_life(
    destination: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that has lost its power leaves the connection standing for hours; a held copy must not wait for that."""
    # With it the interval in which a process that is alive would say so by itself.
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.2)
    lease = Path(destination.volatile, "lease")
    reading, writing = os.pipe()
    answers = (tmp_path / "answers").open("wb")
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as printed:
        conversations = {"handover": lambda: destination_module.serve_handover(Copy(destination), source, answers)}
        serving = threading.Thread(target=channel_server.serve, args=(destination, "handover", {}, conversations))
        before = lease.stat().st_mtime_ns
        serving.start()
        wait_for(lambda: (tmp_path / "answers").stat().st_size, "it is ready")
        assert lease.stat().st_mtime_ns > before, "who begins to conversation is alive"
        pieces = (
            json.dumps({"put": "pages-1.img", "size": 3 << 20}).encode() + b"\n",
            bytes(1 << 20),
            bytes(1 << 20),
            bytes(1 << 20) + json.dumps({"put": "pages-2.img", "size": 1}).encode() + b"\n",
        )
        for piece in pieces:
            silent = lease.stat().st_mtime_ns
            time.sleep(0.3)
            assert lease.stat().st_mtime_ns == silent, "it has said nothing"
            printed.write(piece)
            wait_for(partial(_renewed_since, lease, silent), "the lease is renewed")
        # Its last piece was two signs of life.
        time.sleep(0.3)
        silent = lease.stat().st_mtime_ns
        printed.close()
        serving.join(5)
        assert not serving.is_alive()
        assert lease.stat().st_mtime_ns == silent, "the end of a connection is no sign of life"
    answers.close()


@pytest.mark.parametrize("ours", [True, False])
def test_a_conversation_that_nobody_continues_ends_with_a_refusal(ours: bool, destination: Session) -> None:
    """Its process waits for words that do not come; it is found by its note and its own words, as on a host."""
    other = "20261123T235959Z-3f9a1c"
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "serve", destination.id if ours else other, "handover"]
    with subprocess.Popen(argv) as talking:
        wait_for(lambda: b"serve" in Path(f"/proc/{talking.pid}/cmdline").read_bytes(), "it is there")
        for pid in (talking.pid, os.getpid()):
            Path(destination.memory_path(f"transfer.{pid}")).touch()
        channel_server.end_transfers(destination)
        if ours:
            assert talking.wait(5) == -9
        else:
            time.sleep(0.2)
            assert talking.poll() is None, "the number may be another's by now"
            talking.kill()


@pytest.mark.parametrize("decision", [RUN, REFUSED])
def test_announcements_after_run_do_not_end_with_the_conversation(
    decision: str, destination: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The source closes the other half at once, by which all that still takes something in is ended; the neighbours are told
    again later."""
    noted: list[list[str]] = []

    def note(*_arguments: object) -> dict[str, Any]:
        noted.append([path.name for path in Path(destination.volatile).glob("transfer.*")])
        return {"decision": decision}

    monkeypatch.setattr(destination_module, "run", note)
    monkeypatch.setattr(connections, "repeat", note)
    (tmp_path / "printed").write_bytes(b'{"run": true}\n')
    with (tmp_path / "printed").open("rb") as source, (tmp_path / "answers").open("wb") as answers:
        conversations = {"handover": lambda: destination_module.serve_handover(Copy(destination), source, answers)}
        assert channel_server.serve(destination, "handover", {}, conversations) == 0
    # Nor does the second copy of its memory stay until the other half is closed.
    assert Path(destination.volatile, "images").exists() == (decision == REFUSED)
    own = [f"transfer.{os.getpid()}"]
    assert noted == ([own, []] if decision == RUN else [own])
