# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host for Ansible that is a mount namespace of this machine: sessions and keys of its own, and an engine with no container.

Real playbooks and modules run on it. What needs containers, systemd or another kernel is for the lab.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.helpers.support import PACKAGE, ROOT, wait_for

# The engine: an API of version 1.45 that has nothing.
_ENGINE = """
import http.server, json, os, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "client"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0].rsplit("/v1.45", 1)[-1]
        known = {
            "/version": {"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24"},
            "/info": {"DockerRootDir": "/var/lib/docker"},
            "/containers/json": [],
        }
        body = json.dumps(known.get(path, {"message": f"No such thing: {path}"})).encode()
        self.send_response(200 if path in known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

Server("/run/docker.sock", Handler).serve_forever()
"""

_START = """\
mount --make-rprivate /
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /run
exec "$0" -c "$1"
"""

_TREE = f"""
import json, sys, time
sys.path.insert(0, {str(ROOT / ".tree")!r})
from {PACKAGE}._channel import client as channel_client
from {PACKAGE}._base import durable
from {PACKAGE}._session.session import Session
# A tmpfs plays the disk.
durable.require_durable = lambda path: None
"""


class MountedHost:
    """One such host.

    :param directory: for its programs.
    :param ssh: what ssh says on it, with which exit code.
    """

    def __init__(self, name: str, directory: Path, *, ssh: tuple[str, int]) -> None:
        self.name = name
        programs = directory / name
        programs.mkdir()
        (programs / "ssh").write_text(f"#!/bin/sh\necho '{ssh[0]}' >&2\nexit {ssh[1]}\n")
        (programs / "ssh").chmod(0o755)
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _START, sys.executable, _ENGINE], stdin=subprocess.DEVNULL
        )
        #: runs Ansible's modules on it
        self.interpreter = programs / "python"
        self.interpreter.write_text(
            f"#!/bin/sh\nPATH={programs}:$PATH\nexport PATH\n"
            f'exec nsenter --target {self._process.pid} --mount {sys.executable} "$@"\n'
        )
        self.interpreter.chmod(0o755)
        try:
            wait_for(
                lambda: self.run("import os; print(os.path.exists('/run/docker.sock'))") == "True\n", "an engine", 20
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def run(self, code: str, *words: str, printed: Any = None) -> str:
        """Run Python on it; returns what that printed."""
        done = subprocess.run(
            [str(self.interpreter), "-c", code, *words],
            input=json.dumps(printed),
            check=True,
            capture_output=True,
            text=True,
            cwd=os.sep,
        )
        return done.stdout

    def open(self, session: str, role: str, phases: list[str], decision: str, **facts: Any) -> None:
        """A session that went through phases and shows no sign of life any more.

        :param facts: ``closed``: whether it was closed with its record kept; others are its own.
        """
        code = """
order = json.load(sys.stdin)
facts = order["facts"]
session = Session.open(order["session"], order["role"], {"peer_name": "the other", **facts})
for phase in order["phases"]:
    data = {"run": {"container_id": "c" * 64}, "refused": {"reason": "nobody finished it"}}.get(phase, {})
    if phase in ("sent", "starting"):
        session.decide(order["decision"])
    session.enter(phase, **data)
if order["role"] == "source":
    peer = {"address": "127.0.0.1", "port": 9, "user": "root", "host_keys": ["ssh-ed25519 AAAA"]}
    channel_client.set_peer(session, peer)
if order["closed"]:
    session.close(keep=True)
else:
    with open(session.memory_path("lease"), "w") as handle:
        handle.write("another boot 0")
"""
        closed = bool(facts.pop("closed", False))
        order = {"session": session, "role": role, "phases": phases, "decision": decision, "closed": closed}
        self.run(_TREE + code, printed={**order, "facts": facts})

    def sessions(self) -> dict[str, tuple[str, list[str]]]:
        """Of each session its decision and its phases."""
        code = 'json.dump({one.id: [one.decision, one.summary()["phases"]] for one in Session.all()}, sys.stdout)'
        return {name: (word, phases) for name, (word, phases) in json.loads(self.run(_TREE + code)).items()}
