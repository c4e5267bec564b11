# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source whose engine does not answer: the service goes on as soon as it may, and not before."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import source
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import ABORT, GO_SENT, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper, original
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group


@pytest.fixture
def frozen(make_session: Callable[..., Session], group: Group, init: int) -> Session:
    """A session whose container stands still, not dumped yet."""
    session = make_session(SOURCE, engine="api")
    session.enter("prepared")
    session.enter("arming", policy={"Name": "no"}, pid=init, cgroup=group.path, bytes=0)
    session.enter("armed")
    session.enter("freezing", at=0.0)
    group.freeze()
    TaskGroup(group.path).wait_frozen(True, 5)
    return session


def test_what_is_not_decided_goes_on(frozen: Session, group: Group) -> None:
    source.abort_alone(moved.original(frozen), 1)
    assert not group.frozen
    assert frozen.decision == ABORT
    assert frozen.phase == "freezing", "the rest waits for the engine"
    source.abort_alone(moved.original(frozen), 1)


def test_what_is_handed_over_waits_for_the_word(frozen: Session, group: Group) -> None:
    assert frozen.decide(GO_SENT) == GO_SENT
    with pytest.raises(MigrationError):
        source.abort_alone(moved.original(frozen), 0)
    assert group.frozen


class Hanging(ThreadingUnixStreamServer):
    """A Docker Engine that takes every call. Most of them it does not answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, *, tells_its_version: bool) -> None:
        self.tells_its_version = tells_its_version
        self.ends = threading.Event()
        super().__init__(str(path), _Call)


class _Call(BaseHTTPRequestHandler):
    # A Unix socket's peer has no address.
    client_address = ("nobody", 0)

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Hanging)
        if not (server.tells_its_version and self.path.endswith("/version")):
            server.ends.wait(60)
            return
        body = json.dumps({"ApiVersion": "1.45", "MinAPIVersion": "1.24"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["answers nothing", "answers nothing about a container"])
def hanging(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """The engine of this host hangs: by SIGSTOP, or because of a lock that somebody in it holds."""
    server = Hanging(tmp_path / "docker.sock", tells_its_version=request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(keeper, "Engine", functools.partial(Engine, f"unix://{tmp_path / 'docker.sock'}"))
    monkeypatch.setattr(original, "_THAW_SECONDS", 0.5)
    yield server
    server.ends.set()
    server.shutdown()
    server.server_close()


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
