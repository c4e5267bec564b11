# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TCP connections: they go on where the address stays, without a byte lost, and are told where it does not."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from tests.conftest import RunTool
from tests.lab.api import Lab
from tests.moves.container_state import assert_as_before, before
from tests.moves.host_conditions import criu_fails
from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.moves_runtime import echo
from tests.moves_runtime.echo import Client
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer

pytestmark = pytest.mark.usefixtures("pipelined")

Start = Callable[..., Moving]

MOVES = 2


@dataclass
class Neighbour(Moving):
    """A counter that answers at an address of its own, wherever it runs."""

    address: str = ""

    def url(self, host: Host) -> str:  # noqa: ARG002
        return f"http://{self.address}:8080/"


@pytest.fixture
def neighbour(start: Start) -> Iterator[Callable[..., Neighbour]]:
    """A function that starts a counter with an echo service at an address of the lab's bridge: neighbour(host, hosts)."""
    joined: list[Host] = []

    def begin(host: Host, hosts: list[Host], *arguments: str, command: tuple[str, ...] = echo.COMMAND) -> Neighbour:
        echo.join(*hosts)
        joined.extend(hosts)
        address = echo.address(host)
        moving = start(
            host,
            hosts,
            *("--network", echo.NETWORK, "--ip", address, *arguments),
            command=command,
            url=f"http://{address}:8080/",
        )
        return Neighbour(**vars(moving), address=address)

    yield begin
    echo.leave(*joined)


def test_they_go_on_where_the_address_stays(newer: Pair, neighbour: Callable[..., Neighbour]) -> None:
    """Moved and refused in turns, under clients that send all the time and one that is silent meanwhile."""
    hosts = [newer.alpha, newer.beta]
    moving = neighbour(hosts[0], hosts)
    clients = [Client(moving.address) for dummy in range(3)]
    silent = Client(moving.address, pause=3600)
    was = before(moving, *hosts)
    with criu_fails(hosts[1]):
        moving.move(hosts[0], hosts[1]).fail_with("the container stayed here")
    assert_as_before(moving, was, *hosts)
    for number in range(MOVES):
        source, destination = hosts[number % 2], hosts[1 - number % 2]
        output = moving.move(source, destination).succeed()
        assert "4 connection(s) went on, 0 were closed" in output
        moving.assert_runs_on(destination)
    for client in (*clients, silent):
        client.assert_whole()


@contextmanager
def _kept_by_the_host(*hosts: Host) -> Iterator[None]:
    """What the engine api needs for it: an option of the whole host."""
    change = "s/^{}$/{}/"
    for host in hosts:
        host.run(["sed", "-i", change.format("tcp-close", "tcp-established"), "/etc/criu/runc.conf"])
    try:
        yield
    finally:
        for host in hosts:
            host.run(["sed", "-i", change.format("tcp-established", "tcp-close"), "/etc/criu/runc.conf"])


@pytest.mark.parametrize("engine", ["runtime", "api"])
def test_on_docker_26_with_both_engines(older: Pair, neighbour: Callable[..., Neighbour], engine: str) -> None:
    hosts = [older.alpha, older.beta]
    moving = neighbour(hosts[0], hosts)
    client = Client(moving.address)
    with _kept_by_the_host(*hosts):
        moving.move(hosts[0], hosts[1], "-e", f"migrate_engine={engine}").succeed()
        moving.assert_runs_on(hosts[1])
        client.assert_whole()


def test_what_no_program_has_accepted_is_reported(newer: Pair, neighbour: Callable[..., Neighbour]) -> None:
    """The kernel has acknowledged it and it is in no checkpoint: its client must not wait for ever."""
    hosts = [newer.alpha, newer.beta]
    moving = neighbour(hosts[0], hosts)
    served = Client(moving.address)
    while not served.received:
        time.sleep(0.1)
    # The one who accepts stands still, by its user's will; it does so on the other host, too. It is waited for until it does:
    # who waits for a connection takes one that comes before the signal is acted upon.
    stop = "kill -STOP $(pidof nc)"
    stopped = "until grep -q 'State:.T' /proc/$(pidof nc)/status; do sleep 0.1; done"
    hosts[0].docker("exec", moving.name, "sh", "-c", f"{stop}; {stopped}")
    waiting = [Client(moving.address) for dummy in range(3)]
    moving.move(hosts[0], hosts[1]).succeed()
    for client in waiting:
        assert client.is_informed(10), "nobody told a client whose data had been acknowledged"
        assert client.received == 0
    served.assert_whole()
    hosts[1].docker("exec", moving.name, "sh", "-c", stop.replace("STOP", "CONT"))
    again = Client(moving.address)
    time.sleep(0.5)
    again.assert_whole()


_ECHO = f"nc -ll -p {echo.PORT} -e cat &"
# A connection between two programs of the container, over its loopback.
_WITHIN = (
    "nc -ll -p 7000 -e cat & sleep 1; mkfifo /tmp/words; nc 127.0.0.1 7000 </tmp/words >/tmp/heard & "
    "exec 9>/tmp/words; exec /usr/local/bin/counter"
)


def test_an_address_that_changes(newer: Pair, start: Start) -> None:
    """A client of the old address is told by a reset at once; a connection within the container goes on."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--publish", "9390:9000", command=("sh", "-c", f"{_ECHO} {_WITHIN}"))
    client = Client(source.address, port=9390)
    source.docker("exec", moving.name, "sh", "-c", "echo before >/tmp/words")
    output = moving.move(source, destination).succeed()
    assert "2 connection(s) went on, 1 were closed" in output
    assert client.is_informed(5)
    assert client.error.startswith("ConnectionResetError")
    moving.assert_runs_on(destination)
    destination.docker("exec", moving.name, "sh", "-c", "echo after >/tmp/words; sleep 1")
    assert destination.docker("exec", moving.name, "cat", "/tmp/heard").split() == ["before", "after"]


@pytest.fixture
def listener(lab: Lab, run_tool: RunTool) -> Iterator[Host]:  # noqa: ARG001
    """A host on which something listens on port 9000 and never says a word."""
    host = Host.of_lab("gamma")
    host.run(
        [
            *("systemd-run", "--unit=engine-listener", "--", "python3", "-c"),
            "import socket,time; s=socket.create_server(('',9000)); c=s.accept(); d=s.accept(); time.sleep(3600)",
        ]
    )
    yield host
    with suppress(OSError):
        host.run(["systemctl", "stop", "engine-listener"], check=False)


def test_a_connection_that_the_container_has_opened(newer: Pair, start: Start, listener: Host) -> None:
    """Its program may never open it again: refused, unless somebody says that it may be closed."""
    source, destination = newer.alpha, newer.beta
    outgoing = f"mkfifo /tmp/never; nc {listener.address} 9000 </tmp/never >/dev/null & exec 9>/tmp/never;"
    moving = start(source, [source, destination], command=("sh", "-c", f"{outgoing} exec /usr/local/bin/counter"))
    time.sleep(1)
    was = before(moving, source, destination)
    moving.move(source, destination).fail_with("migrate_close_connections")
    assert_as_before(moving, was, source, destination)
    assert source.docker("top", moving.name).count(" nc ") == 1
    moving.move(source, destination, "-e", json.dumps({"migrate_close_connections": True})).succeed()
    moving.assert_runs_on(destination)
    assert destination.docker("top", moving.name).count(" nc ") == 0, "its program was not told"


def test_a_socket_on_an_address(newer: Pair, start: Start, neighbour: Callable[..., Neighbour]) -> None:
    """Refused where the copy would not have the address; where it has, the program goes on listening there."""
    source, destination = newer.alpha, newer.beta
    address = 'ip -4 -o address show eth0 | awk \'{ sub("/.*", "", $4); print $4 }\''
    bound = f"httpd -f -p $({address}):9000 -h /tmp & exec /usr/local/bin/counter"
    moving = start(source, [source, destination], command=("sh", "-c", bound))
    time.sleep(1)
    was = before(moving, source, destination)
    moving.move(source, destination).fail_with("tied to an address")
    assert_as_before(moving, was, source, destination)
    other = neighbour(source, [source, destination], command=("sh", "-c", bound))
    time.sleep(1)
    other.move(source, destination).succeed()
    wait_for_answer(other.url(destination))
    asked = http.client.HTTPConnection(other.address, 9000, timeout=10)
    asked.request("GET", "/nothing")
    assert asked.getresponse().status == 404
