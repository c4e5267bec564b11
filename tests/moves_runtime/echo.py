# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients that keep one TCP connection open and count every byte, and the container that answers them.

They run on this machine, which is on the bridge of the lab's hosts, so that a container with an address of its own on that bridge
(macvlan) is their neighbour.
"""

from __future__ import annotations

import socket
import threading
import time

from tests.workloads.host import Host

PORT = 9000
# One process for each connection, beside the counter.
COMMAND = ("sh", "-c", f"nc -ll -p {PORT} -e cat & exec /usr/local/bin/counter")

NETWORK = "engine-wan"
# The last numbers of the hosts are below 100.
_ABOVE = 100


def join(*hosts: Host) -> None:
    """Make a macvlan network of the lab's own subnet on hosts, as somebody does whose containers have addresses of their own."""
    for host in hosts:
        device = host.run(["sh", "-c", "ip -o route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'"]).stdout.strip()
        gateway = host.run(["sh", "-c", "ip -o route show default | sed 's/.* via \\([^ ]*\\).*/\\1/'"]).stdout.strip()
        host.docker("network", "rm", NETWORK, check=False)
        host.docker(
            *("network", "create", "--driver", "macvlan", "--subnet", f"{_network(host)}.0/24"),
            *("--gateway", gateway, "--opt", f"parent={device}", NETWORK),
        )


def leave(*hosts: Host) -> None:
    """Take the network away, with what is left on it."""
    for host in hosts:
        host.run(["sh", "-c", f"docker ps -aq --filter network={NETWORK} | xargs -r docker rm -f"])
        host.docker("network", "rm", NETWORK, check=False)


def _network(host: Host) -> str:
    """The first three numbers of the addresses on the lab's bridge."""
    return host.address.rpartition(".")[0]


def address(host: Host) -> str:
    """An address on the lab's bridge that no host has: one for what is started on this host."""
    return f"{_network(host)}.{_ABOVE + int(host.address.rpartition('.')[2])}"


class Client:
    """Sends numbered lines all the time over one connection, and takes every line back in its order.

    :param pause: seconds between two lines.
    """

    def __init__(self, where: str, *, port: int = PORT, pause: float = 0.002) -> None:
        self._pause = pause
        self._connection = socket.create_connection((where, port), 20)
        self._connection.settimeout(None)
        self._stop = threading.Event()
        self.sent = self.received = 0
        self.longest_silence = 0.0
        self.error = ""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        try:
            while not self._stop.wait(self._pause if self.sent else 0):
                self._say()
            self._say()
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as exc:
            # The kernel tells a reset once, to whichever of the two threads asks first; the other sees an end.
            self.error = self.error or f"{type(exc).__name__}: {exc}"

    def _say(self) -> None:
        self._connection.sendall(b"%08d\n" % self.sent)
        self.sent += 1

    def _receive(self) -> None:
        left, last = b"", time.monotonic()
        try:
            while True:
                data = self._connection.recv(65536)
                if not data:
                    return
                now = time.monotonic()
                self.longest_silence, last = max(self.longest_silence, now - last), now
                *lines, left = (left + data).split(b"\n")
                for line in lines:
                    if int(line) != self.received:
                        self.error = f"line {int(line)} came in the place of {self.received}"
                        return
                    self.received += 1
        except OSError as exc:
            # A broken pipe that the other thread has met says less.
            self.error = f"{type(exc).__name__}: {exc}"

    def end(self) -> None:
        """Stop sending, and wait for what is still on its way."""
        self._stop.set()
        if not self.is_informed(60):
            self.error = self.error or "the connection does not end"
            # Not close(), which waits for nobody, while a thread reads from it.
            self._connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def is_informed(self, timeout: float) -> bool:
        """Whether the connection ends, by a reset or otherwise, within so many seconds."""
        deadline = time.monotonic() + timeout
        for thread in self._threads[::-1]:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not self._threads[1].is_alive()

    def assert_whole(self) -> None:
        """Every line that was sent has come back, once and in order, over the connection that was opened first."""
        self.end()
        assert not self.error, self.error
        assert self.received == self.sent > 0, f"{self.sent} lines sent, {self.received} back"
