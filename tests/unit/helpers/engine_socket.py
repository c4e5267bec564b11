# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Docker Engine that takes every call and does not answer, and one that answers to a ping: real sockets."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import socket as engine_socket
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, call: type[_Call]) -> None:
        #: lets go of the calls that are not answered
        self.ends = threading.Event()
        super().__init__(str(path), call)


class _Call(BaseHTTPRequestHandler):
    # A Unix socket's peer has no address.
    client_address = ("nobody", 0)

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def _serving(server: _Server) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield
    finally:
        server.ends.set()
        server.shutdown()
        server.server_close()


class Hanging(_Server):
    """A Docker Engine that takes every call. Most of them it does not answer."""

    def __init__(self, path: Path, *, tells_its_version: bool) -> None:
        self.tells_its_version = tells_its_version
        super().__init__(path, _Version)


class _Version(_Call):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Hanging)
        if not (server.tells_its_version and self.path.endswith("/version")):
            server.ends.wait(60)
            return
        self.answer(json.dumps({"ApiVersion": "1.45", "MinAPIVersion": "1.24"}).encode())


@contextlib.contextmanager
def hanging_engine(directory: Path, monkeypatch: pytest.MonkeyPatch, *, tells_its_version: bool) -> Iterator[Hanging]:
    """The engine of this host hangs, in this block.

    :param tells_its_version: whether it can be connected.
    """
    server = Hanging(directory / "docker.sock", tells_its_version=tells_its_version)
    monkeypatch.setattr(keeper, "Engine", functools.partial(Engine, f"unix://{directory / 'docker.sock'}"))
    with _serving(server):
        yield server


class Answering(_Server):
    """A Docker Engine that does nothing but answer to a ping.

    :ivar hangs: whether it does not do that either.
    :ivar before_answer: what happens while it is asked.
    """

    def __init__(self, path: Path) -> None:
        self.hangs = False
        self.before_answer: Callable[[], object] = lambda: None
        self.pings = 0
        super().__init__(path, _Ping)


class _Ping(_Call):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Answering)
        server.pings += 1
        if server.hangs:
            server.ends.wait(60)
            return
        server.before_answer()
        self.answer(b"OK", 200 if self.path == "/_ping" else 404)


@contextlib.contextmanager
def answering_engine(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """The engine of this host answers to a ping, in this block."""
    path = directory / "answering.sock"
    server = Answering(path)
    monkeypatch.setattr(engine_socket, "DOCKER_SOCKET", str(path))
    with _serving(server):
        yield server
