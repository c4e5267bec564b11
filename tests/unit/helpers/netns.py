# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two network namespaces with a cable between them: a container's, and that of its client."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.unit.helpers.support import wait_for

CONTAINER_ADDRESS, CLIENT_ADDRESS = "192.0.2.10", "192.0.2.20"

_T = TypeVar("_T")


class Namespaces:
    """Two processes that do nothing, each in a network namespace of its own."""

    def __init__(self, container: int, client: int) -> None:
        self.container = container
        self.client = client

    @staticmethod
    def inside(pid: int, work: Callable[[], _T]) -> _T:
        """Run a function in a thread that is in the namespace of a process; sockets that it makes stay there."""
        answers: list[_T] = []
        errors: list[BaseException] = []

        def thread() -> None:
            try:
                with open(f"/proc/{pid}/ns/net", "rb") as handle:
                    assert ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) == 0
                answers.append(work())
            except BaseException as exc:
                errors.append(exc)

        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
        if errors:
            raise errors[0]
        return answers[0]

    def ip(self, pid: int, *arguments: str) -> str:
        """Run ip(8) in the namespace of a process."""
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def listener(self, backlog: int = 16) -> socket.socket:
        """A listening socket of the container, on any address and port 9000."""
        return self.inside(self.container, lambda: socket.create_server(("0.0.0.0", 9000), backlog=backlog))

    def connect(self, timeout: float = 5.0) -> socket.socket:
        """A connection from the client to it."""
        return self.inside(self.client, lambda: socket.create_connection((CONTAINER_ADDRESS, 9000), timeout))


def _sleeps_elsewhere(pid: int) -> bool:
    elsewhere = os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    return elsewhere and Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


@contextmanager
def namespaces() -> Iterator[Namespaces]:
    """Make the two, and take them away."""
    sleepers = [subprocess.Popen(["unshare", "--net", "sleep", "600"]) for dummy in range(2)]
    try:
        for sleeper in sleepers:
            wait_for(partial(_sleeps_elsewhere, sleeper.pid), "a process in a network namespace of its own")
        made = Namespaces(sleepers[0].pid, sleepers[1].pid)
        made.ip(
            made.container, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(made.client)
        )
        for pid, address in ((made.container, CONTAINER_ADDRESS), (made.client, CLIENT_ADDRESS)):
            made.ip(pid, "link", "set", "lo", "up")
            made.ip(pid, "address", "add", f"{address}/24", "dev", "eth0")
            made.ip(pid, "link", "set", "eth0", "up")
        yield made
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
