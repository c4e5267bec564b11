# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands in a virtual machine without its network: through QEMU's guest agent, on a serial port.

As a script: guestagent.py SOCKET CMD... runs a command and ends with its exit code; 255 where the agent does not answer.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANSWER_SECONDS = 20.0
_NUMBERS = itertools.count(int(time.monotonic() * 1000) % 1_000_000_000)


class AgentError(Exception):
    """The agent does not answer (the machine is down, starts, or is stuck), or refuses."""


class _Agent:
    """A connection to the agent. The port has room for one at a time: a lock beside the socket keeps others waiting."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def ask(self, command: str, arguments: dict[str, Any]) -> Any:
        """The return value of a command of the agent's protocol."""
        self._connection.settimeout(_ANSWER_SECONDS)
        try:
            self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            answer = json.loads(self._line())
        except (OSError, ValueError) as error:
            raise AgentError(f"the guest agent does not answer: {error}") from error
        if "error" in answer:
            raise AgentError(f"the guest agent refuses {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def synchronise(self, seconds: float) -> None:
        """Skip what an earlier connection left: the answer to our number is preceded by the byte 0xFF."""
        number = next(_NUMBERS)
        self._connection.settimeout(seconds)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        try:
            self._connection.sendall(b"\xff" + json.dumps(request).encode() + b"\n")
            while True:
                line = self._line().rpartition(b"\xff")[2]
                with contextlib.suppress(ValueError):
                    if json.loads(line).get("return") == number:
                        return
        except OSError as error:
            raise AgentError(f"the guest agent does not answer: {error}") from error

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            data = self._connection.recv(1 << 16)
            if not data:
                raise ConnectionError("QEMU has closed the port")
            self._rest += data
        line, _newline, self._rest = self._rest.partition(b"\n")
        return line


@contextlib.contextmanager
def _connected(path: Path, seconds: float) -> Iterator[_Agent]:
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise AgentError(f"there is no machine: {error}") from error
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for_lock(lock, seconds)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            try:
                # The path of a socket may have 107 bytes; a checkout may lie deeper.
                connection.connect(f"/proc/self/fd/{directory}/{path.name}")
            except OSError as error:
                raise AgentError(f"the machine is down: {error}") from error
            agent = _Agent(connection)
            agent.synchronise(seconds)
            yield agent
    finally:
        os.close(lock)
        os.close(directory)


def _wait_for_lock(lock: int, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise AgentError("another command holds the guest agent's port") from None
            time.sleep(0.1)
        else:
            return


def answers(path: Path, seconds: float = 2.0) -> bool:
    """Whether the agent at this socket answers."""
    try:
        with _connected(path, seconds):
            return True
    except AgentError:
        return False


def execute(path: Path, command: Sequence[str], stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run a command to its end, as root: exit code (128 and more for a signal, as a shell tells it), stdout, stderr.

    The port is free for others while the command runs. AgentError where the machine goes away meanwhile.
    """
    with _connected(path, _ANSWER_SECONDS) as agent:
        started = agent.ask(
            "guest-exec",
            {
                "path": "/usr/bin/env",
                "arg": ["-i", f"PATH={_PATH}", "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8", *command],
                "input-data": base64.b64encode(stdin).decode(),
                "capture-output": True,
            },
        )
    pause = 0.05
    while True:
        with _connected(path, _ANSWER_SECONDS) as agent:
            status = agent.ask("guest-exec-status", {"pid": started["pid"]})
        if status["exited"]:
            code = int(status["exitcode"]) if "exitcode" in status else 128 + int(status.get("signal", 0))
            return code, base64.b64decode(status.get("out-data", "")), base64.b64decode(status.get("err-data", ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    stdin = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    try:
        code, output, errors = execute(Path(argv[0]), argv[1:], stdin)
    except AgentError as error:
        print(error, file=sys.stderr)
        return 255
    sys.stdout.buffer.write(output)
    sys.stderr.buffer.write(errors)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
