# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both ends of a channel on one machine without an SSH daemon: what ssh would carry goes straight into the real serve().

Everything else is what runs on hosts: Channel and its rsync on one side, the filter of the forced command and the rsync that
it starts on the other. channel/test_client.py has the daemon.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import CONTAINER, PACKAGE, ROOT

SESSION = "20261123T000001Z-3f9a1c"

# Plays both ssh and the SSH daemon with its forced command.
_SSH = """\
#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {tree!r})
from {package}._channel import server as channel_server
from {package}._docker import socket as engine_socket
from {package}._session.session import Session
engine_socket.DOCKER_SOCKET = {engine!r}
arguments = sys.argv[1:]
while arguments[0].startswith("-"):
    if arguments[0] == "-O":
        sys.exit(0)
    arguments = arguments[2:] if arguments[0] in ("-F", "-p", "-o", "-l") else arguments[1:]
command = " ".join(arguments[1:])
instead = Path({instead!r})
if instead.exists():
    command = instead.read_text()
with open({log!r}, "a") as log:
    log.write(command + "\\n")
session = Session({session!r}, **{roots!r})
def handover():
    from {package}._migration import destination
    from {package}._subjects import by_kind
    destination.serve_handover(by_kind.of(session).copy(session), sys.stdin.buffer, sys.stdout.buffer)
def transfer():
    from {package}._channel import durable_content
    durable_content.serve_transfer(session, sys.stdin.buffer, sys.stdout.buffer)
commands = {{"ping": lambda: {{"host": "here"}}, "stumble": lambda: 1 / 0}}
sys.exit(channel_server.serve(session, command, commands, {{"handover": handover, "transfer": transfer}}))
"""


class Wire:
    """A source's channel to a destination on this machine."""

    def __init__(
        self, directory: Path, sessions: Path, monkeypatch: pytest.MonkeyPatch, *, engine: str = "api"
    ) -> None:
        ends = {}
        for role in (SOURCE, DESTINATION):
            roots = {"state_root": str(sessions / role / "state"), "volatile_root": str(sessions / role / "run")}
            facts = {"container_id": CONTAINER, "engine": engine, "data_root": str(directory / "docker")}
            ends[role] = Session.open(SESSION, role, facts, **roots)
        self.source, self.destination = ends[SOURCE], ends[DESTINATION]
        self._instead = directory / "instead"
        self._log = directory / "commands"
        self.programs = directory / "bin"
        self.programs.mkdir()
        ssh = self.programs / "ssh"
        ssh.write_text(
            _SSH.format(
                python=sys.executable,
                tree=str(ROOT / ".tree"),
                package=PACKAGE,
                instead=str(self._instead),
                log=str(self._log),
                engine=str(directory / "answering.sock"),
                session=SESSION,
                roots={
                    "state_root": self.destination.state_root,
                    "volatile_root": str(Path(self.destination.volatile).parent),
                },
            )
        )
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", str(self.programs), prepend=":")
        peer = {"address": "192.0.2.1", "port": 22, "user": "root", "host_keys": ["ssh-ed25519 AAAA"]}
        channel_client.set_peer(self.source, peer)
        self.channel = channel_client.Channel(self.source)
        self.places = directory / "places"

    def prepare(self, *targets: str) -> Path:
        """Prepare places for some targets; returns the first one's."""
        places = {target: self.places / target for target in targets}
        for place in places.values():
            place.mkdir(parents=True)
        channel_server.set_targets(self.destination, {target: str(place) for target, place in places.items()})
        return places[targets[0]]

    def send_instead(self, command: str) -> None:
        """Let a hostile client send something else than its ssh was given."""
        self._instead.write_text(command)

    @property
    def commands(self) -> list[list[str]]:
        """What the client's programs have sent to the other end, split as a shell does."""
        return [shlex.split(line) for line in self._log.read_text().splitlines()]
