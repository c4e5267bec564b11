# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands in a virtual machine without its network: through QEMU's guest agent, on a serial port.

As a script: guestagent.py PORT CMD... runs a command and ends with its exit code; 255 where the agent does not answer.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
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
    """The agent at the other end of two pipes."""

    def __init__(self, to_agent: int, from_agent: int, seconds: float) -> None:
        self._to_agent, self._from_agent, self._seconds = to_agent, from_agent, seconds
        self._rest = b""

    def ask(self, command: str, arguments: dict[str, Any]) -> Any:
        """The return value of a command of the agent's protocol."""
        self._write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        answer = json.loads(self._line())
        if "error" in answer:
            raise AgentError(f"the guest agent refuses {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def synchronise(self) -> None:
        """Skip what others have left in the pipes: the answer to our number is preceded by the byte 0xFF."""
        number = next(_NUMBERS)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._write(b"\xff" + json.dumps(request).encode() + b"\n")
        while True:
            line = self._line().rpartition(b"\xff")[2]
            with contextlib.suppress(ValueError):
                if json.loads(line).get("return") == number:
                    return

    def _write(self, data: bytes) -> None:
        while data:
            if not select.select([], [self._to_agent], [], self._seconds)[1]:
                raise AgentError("the guest agent takes nothing")
            data = data[os.write(self._to_agent, data) :]

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            if not select.select([self._from_agent], [], [], self._seconds)[0]:
                raise AgentError("the guest agent does not answer")
            data = os.read(self._from_agent, 1 << 16)
            if not data:
                raise AgentError("the machine went down")
            self._rest += data
        line, _newline, self._rest = self._rest.partition(b"\n")
        return line


def make_port(path: Path) -> None:
    """The pipes of a port, for a machine that starts. QEMU calls them so.

    Pipes and no socket: QEMU holds both ends of them, where a socket without a client makes the agent ask ten times a second
    whether there is one, which is a twentieth of an emulated processor.
    """
    for end in _ends(path):
        end.unlink(missing_ok=True)
        os.mkfifo(end, 0o600)


def _ends(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".in"), path.with_suffix(".out")


@contextlib.contextmanager
def _connected(path: Path, seconds: float) -> Iterator[_Agent]:
    """The agent at this port, which has room for one at a time: a lock beside it keeps others waiting."""
    with contextlib.ExitStack() as opened:

        def open_file(file: Path, flags: int) -> int:
            descriptor = os.open(file, flags | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, descriptor)
            return descriptor

        try:
            lock = open_file(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
            _wait_for_lock(lock, seconds)
            # Nobody has the other end where QEMU does not run: that is an error (ENXIO) for a writer that does not wait.
            to_agent, from_agent = (
                open_file(end, flags | os.O_NONBLOCK)
                for end, flags in zip(_ends(path), (os.O_WRONLY, os.O_RDONLY), strict=True)
            )
        except OSError as error:
            raise AgentError(f"the machine is down: {error}") from error
        agent = _Agent(to_agent, from_agent, seconds)
        agent.synchronise()
        yield agent


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
    """Whether the agent at this port answers."""
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
