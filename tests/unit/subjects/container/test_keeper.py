# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a step waits for the Docker Engine."""

from __future__ import annotations

import functools
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import CALL_TIMEOUT, Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper


class _Call(http.server.BaseHTTPRequestHandler):
    # A Unix socket's peer has no address.
    client_address = ("nobody", 0)

    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.45", "MinAPIVersion": "1.24"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A socket that tells the version of an engine."""
    server = socketserver.ThreadingUnixStreamServer(str(tmp_path / "docker.sock"), _Call)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(keeper, "Engine", functools.partial(Engine, f"unix://{tmp_path / 'docker.sock'}"))
    yield
    server.shutdown()
    server.server_close()


def test_a_time_to_connect_is_not_the_time_of_all_calls_after_that() -> None:
    """Else a watchdog could never remove a copy with a large layer."""
    one = keeper.Keeper()
    one.reach(10)
    assert one.engine._client.timeout == CALL_TIMEOUT
    with one.within(3) as engine:
        assert engine._client.timeout == 3
    assert one.engine._client.timeout == CALL_TIMEOUT


def test_a_block_that_connects_has_its_own_time() -> None:
    one = keeper.Keeper()
    with one.within(3) as engine:
        assert engine._client.timeout == 3
    assert one.engine._client.timeout == CALL_TIMEOUT
