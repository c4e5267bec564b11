# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The call that starts the copy: waits for the checkpoint, speaks to the engine's socket, notes what it said."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed, run
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import armed_start
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED, RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.docker.test_runc import Runner
from tests.unit.helpers.support import OTHER_CONTAINER, wait_for


class _Handler(BaseHTTPRequestHandler):
    """The one endpoint of the engine that is called."""

    server: Engine
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Content-Length")))
        self.server.gate.wait(10)
        status, body = self.server.answer
        if not status:
            # Hangs up without a word, as a dockerd that is killed.
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


class Engine(ThreadingMixIn, UnixStreamServer):
    """A real HTTP server on a real socket, with an answer of our choice."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.path = str(path)
        self.answer: tuple[int, bytes] = (204, b"")
        self.requests: list[tuple[str, str | None]] = []
        self.gate = threading.Event()
        self.gate.set()


@pytest.fixture
def engine(disk: Path) -> Iterator[Engine]:
    with Engine(disk / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    """A destination's session whose copy is marked and created; its checkpoint has not come yet."""
    found = make_session(DESTINATION, engine="runtime")
    found.enter("creating", name="web")
    found.enter("created", container_id=OTHER_CONTAINER)
    Mark.of(found).make(found.id)
    return found


class Serving:
    """serve() at its work."""

    def __init__(self, session: Session, path: str) -> None:
        self._thread = threading.Thread(target=armed_start.serve, args=(session, path), daemon=True)
        self._thread.start()

    @property
    def at_work(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        wait_for(lambda: not self.at_work, "the call has ended")


def _start(session: Session, engine: Engine) -> str | None:
    Mark.of(session).set_ready()
    Serving(session, engine.path).wait()
    return armed_start.outcome(session)


# -- the call ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
def test_a_start_that_worked(status: int, session: Session, engine: Engine) -> None:
    engine.answer = (status, b"")
    assert _start(session, engine) == ""
    assert engine.requests == [(f"/containers/{OTHER_CONTAINER}/start", "0")]


@pytest.mark.parametrize(
    ("status", "body", "reported"),
    [
        (409, b'{"message": "container is paused"}\n', "container is paused"),
        (500, json.dumps({"message": "livemigrate: \u00fcbel"}).encode(), "livemigrate: \u00fcbel"),
        (404, b'{"message": ["odd"]}', "['odd']"),
        (500, b"page not found\n", "page not found"),
        (500, b'["a list"]', '["a list"]'),
        (500, b"{}", "{}"),
        (500, b"\xff", "\ufffd"),
        (503, b"", "status 503"),
        (500, b" \n", "status 500"),
        # Nothing that Docker says for a start.
        (200, b"", "status 200"),
    ],
)
def test_a_start_that_failed_is_noted_in_the_engine_s_words(
    status: int, body: bytes, reported: str, session: Session, engine: Engine
) -> None:
    engine.answer = (status, body)
    assert _start(session, engine) == reported


def test_an_engine_that_hangs_up(session: Session, engine: Engine) -> None:
    engine.answer = (0, b"")
    reported = _start(session, engine)
    assert reported is not None
    assert "does not answer" in reported
    assert len(engine.requests) == 1, "who knows what came of it: it is not called again"


@pytest.mark.parametrize("there", [True, False])
def test_an_engine_that_is_not_there(there: bool, session: Session, disk: Path) -> None:
    path = str(disk / "docker.sock")
    if there:
        # What a dockerd leaves that was killed.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
    Mark.of(session).set_ready()
    armed_start.serve(session, path)
    reported = armed_start.outcome(session)
    assert reported is not None
    assert "does not answer" in reported


def test_the_answer_may_take_its_time(session: Session, engine: Engine) -> None:
    """The engine answers when it has noted that the copy runs; until then that is not taken for noted."""
    engine.gate.clear()
    Mark.of(session).set_ready()
    serving = Serving(session, engine.path)
    wait_for(lambda: engine.requests, "the engine was called")
    time.sleep(0.1)
    assert serving.at_work
    assert armed_start.outcome(session) is None
    assert not armed_start.is_noted(session)
    engine.gate.set()
    serving.wait()
    assert armed_start.outcome(session) == ""
    assert armed_start.is_noted(session)


def test_a_session_that_is_closed_meanwhile_is_not_made_anew(session: Session, engine: Engine) -> None:
    engine.gate.clear()
    Mark.of(session).set_ready()
    serving = Serving(session, engine.path)
    wait_for(lambda: engine.requests, "the engine was called")
    session.close(keep=False)
    engine.gate.set()
    serving.wait()
    assert not os.path.exists(session.volatile)


# -- the wait ----------------------------------------------------------------------------------------------------------


def test_nothing_is_started_before_the_checkpoint_is_whole(session: Session, engine: Engine) -> None:
    serving = Serving(session, engine.path)
    time.sleep(0.1)
    assert serving.at_work
    assert engine.requests == []
    Mark.of(session).set_ready()
    serving.wait()
    assert len(engine.requests) == 1


@pytest.mark.parametrize("word", [REFUSED, RUN])
def test_a_decision_ends_the_wait(word: str, session: Session, engine: Engine) -> None:
    serving = Serving(session, engine.path)
    session.decide(word)
    serving.wait()
    assert engine.requests == []
    assert armed_start.outcome(session) is None


def test_a_checkpoint_that_is_given_up_ends_the_wait(session: Session, engine: Engine) -> None:
    serving = Serving(session, engine.path)
    Mark.of(session).remove()
    serving.wait()
    assert engine.requests == []


def test_a_session_that_is_gone_ends_the_wait(session: Session, engine: Engine) -> None:
    mark = Mark.of(session)
    serving = Serving(session, engine.path)
    # Let it begin to wait: what it is about it reads once.
    time.sleep(0.2)
    shutil.rmtree(session.directory)
    mark.remove()
    serving.wait()
    assert engine.requests == []


# -- the unit ----------------------------------------------------------------------------------------------------------


def test_arming_starts_the_agent_in_a_unit(session: Session) -> None:
    runner = Runner(Completed(0, "", ""))
    armed_start.arm(session, ["python3", "/agent"], runner)
    [argv] = runner.calls
    assert argv[0] == "systemd-run"
    assert f"--unit=livemigrate-{session.id}-start.service" in argv
    assert argv[-4:] == ["python3", "/agent", "start", session.id]
    assert "--wait" not in argv


def test_arming_that_fails_is_reported(session: Session) -> None:
    with pytest.raises(MigrationError) as caught:
        armed_start.arm(session, ["/agent"], Runner(Completed(1, "", "no bus")))
    assert caught.value.code == "start_failed"
    assert "no bus" in caught.value.message


def test_disarming_can_be_repeated(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(Completed(5, "", "not loaded"))
    armed_start.disarm(session.id, runner)
    armed_start.disarm(session.id, runner)
    assert runner.calls == [["systemctl", "stop", f"livemigrate-{session.id}-start.service"]] * 2
    # A host without systemd has no unit to stop.
    monkeypatch.setattr(
        "ansible_collections.livemigrate.criu.plugins.module_utils._base.command.SYSTEM_PATH", "/nowhere"
    )
    monkeypatch.setenv("PATH", "/nowhere")
    armed_start.disarm(session.id, run)


def test_a_start_that_failed_is_no_note(session: Session, engine: Engine) -> None:
    engine.answer = (500, b"{}")
    _start(session, engine)
    assert not armed_start.is_noted(session)
