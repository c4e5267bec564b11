# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine asked through its socket: a real one, with a server behind it that answers what an engine does, or does not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.socket import (
    EngineSocket,
    answers,
    engine_get,
)
from tests.unit.helpers.engine_socket import answering_engine


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.answers: dict[str, tuple[int, Any]] = {"/version": (200, {"ApiVersion": "1.52"})}
        self.asked: list[str] = []
        super().__init__(path, _Call)


class _Call(BaseHTTPRequestHandler):
    # A Unix socket's peer has no address.
    client_address = ("nobody", 0)

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.asked.append(self.path)
        status, answer = server.answers.get(self.path.partition("?")[0], (404, {"message": "no such thing"}))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server(disk: Path) -> Iterator[_Server]:
    with _Server(str(disk / "docker.sock")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _place(server: _Server) -> str:
    return str(server.server_address)


def test_an_object_is_an_answer_and_nothing_else(server: _Server) -> None:
    server.answers.update(
        {"/info": (200, {"Name": "alpha"}), "/list": (200, [1]), "/broken": (500, {"message": "broken"})}
    )
    assert engine_get("/info", _place(server)) == {"Name": "alpha"}
    with pytest.raises(ValueError, match="no JSON object"):
        engine_get("/list", _place(server))
    with pytest.raises(ValueError, match=r"/broken answered 500.*broken"):
        engine_get("/broken", _place(server))


def test_an_engine_that_is_not_there_cannot_be_reached(disk: Path) -> None:
    with pytest.raises(FileNotFoundError):
        engine_get("/info", str(disk / "docker.sock"))


def test_an_engine_that_hangs_does_not_answer(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not answers(str(disk / "no.sock"), timeout=1)
    with answering_engine(disk, monkeypatch) as engine:
        assert answers(timeout=5)
        engine.hangs = True
        began = time.monotonic()
        assert not answers(timeout=0.2)
        assert time.monotonic() - began < 5
    assert not answers(timeout=1), "what a dockerd leaves that was killed"


def test_what_answers_with_an_error_is_no_engine_that_works(server: _Server) -> None:
    server.answers["/_ping"] = (500, {})
    assert not answers(_place(server), timeout=5)


@pytest.mark.parametrize(("newest", "spoken"), [("1.52", "1.51"), ("1.100", "1.51"), ("1.41", "1.41")])
def test_no_version_is_spoken_that_tells_less(newest: str, spoken: str, server: _Server) -> None:
    """By numbers: 1.100 is newer than 1.51."""
    server.answers.update({"/version": (200, {"ApiVersion": newest}), f"/v{spoken}/info": (200, {"Name": "alpha"})})
    assert EngineSocket(_place(server)).info() == {"Name": "alpha"}


def test_what_is_not_there_is_none_and_what_fails_is_an_error(server: _Server) -> None:
    engine = EngineSocket(_place(server))
    assert engine.find("web") is None
    assert engine.find_volume("data") is None
    server.answers["/v1.51/networks/lan"] = (500, {"message": "busy"})
    with pytest.raises(ValueError, match="answered 500"):
        engine.find_network("lan")


def test_a_name_stays_one_part_of_the_path(server: _Server) -> None:
    engine = EngineSocket(_place(server))
    assert engine.find("../info?x") is None
    assert engine.find_image("registry:5000/web:1") is None
    assert server.asked[1:] == ["/v1.51/containers/..%2Finfo%3Fx/json", "/v1.51/images/registry:5000/web:1/json"]


def test_containers_are_asked_for_by_lists(server: _Server) -> None:
    server.answers["/v1.51/containers/json"] = (200, [{"Names": ["/web", "/db/web"]}, {"Names": None}])
    engine = EngineSocket(_place(server))
    assert engine.names() == ["db/web", "web"]
    engine.containers({"volume": "data"}, running=True)
    assert server.asked[-1] == "/v1.51/containers/json?all=0&filters=%7B%22volume%22%3A+%5B%22data%22%5D%7D"
