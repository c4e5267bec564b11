# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network fence around a real network namespace, with a real client on the other side."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._network import announce
from ansible_collections.livemigrate.criu.plugins.module_utils._network import fence as network_fence
from ansible_collections.livemigrate.criu.plugins.module_utils._network import sockets as network_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._network.fence import ALL, NEW, Fence
from tests.unit.helpers.netns import CLIENT_ADDRESS, CONTAINER_ADDRESS, Namespaces
from tests.unit.helpers.support import ROOT, wait_for

SCRIPT = ROOT / "roles" / "checkpointing" / "files" / "livemigrate-network"


def _received(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    return connection.recv(100)


def _nothing_for(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True


def test_new_connections_wait_and_open_ones_go_on(net: Namespaces) -> None:
    fence = Fence.of(net.container)
    with net.listener() as listener, net.connect() as client, listener.accept()[0] as server:
        fence.set(NEW)
        assert fence.level() == NEW
        client.sendall(b"on")
        assert _received(server) == b"on"
        with pytest.raises(TimeoutError):
            net.connect(0.3)
        # Its SYN is sent again after a second.
        fence.lift()
        assert fence.level() is None
        net.connect().close()


def test_closed_nothing_is_acknowledged_and_nothing_is_lost(net: Namespaces) -> None:
    fence = Fence.of(net.container)
    with net.listener() as listener, net.connect() as client, listener.accept()[0] as server:
        fence.set(ALL)
        assert fence.level() == ALL
        client.sendall(b"from client")
        server.sendall(b"from server")
        assert _nothing_for(server, 0.3)
        # Not acknowledged: still in the queue of the sender.
        assert f"{CLIENT_ADDRESS}:" in _unacknowledged(net)
        fence.lift()
        fence.lift()
        assert _received(server) == b"from client"
        assert _received(client) == b"from server"


def _unacknowledged(net: Namespaces) -> str:
    argv = ["nsenter", f"--net=/proc/{net.client}/ns/net", "ss", "-t", "-n", "-H", "state", "established"]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    return "\n".join(line for line in lines if line.split()[1] != "0")


def test_closed_nobody_answers_for_the_address(net: Namespaces) -> None:
    Fence.of(net.container).set(ALL)
    net.ip(net.client, "neighbour", "flush", "dev", "eth0")
    with pytest.raises(OSError, match=r"timed out|No route to host"):
        net.connect(1.5)
    assert "lladdr" not in net.ip(net.client, "neighbour", "show", CONTAINER_ADDRESS)


def test_a_reset_reaches_the_client_through_the_closed_fence(net: Namespaces) -> None:
    fence = Fence.of(net.container)
    with net.listener() as listener, net.connect() as client, listener.accept()[0] as _server:
        fence.set(ALL)
        if fence.reset() == 0:
            pytest.skip("this kernel cannot destroy sockets")
        with pytest.raises(ConnectionResetError):
            _received(client)
        assert fence.level() == ALL


def test_only_the_connections_that_were_named_are_reset(net: Namespaces) -> None:
    fence = Fence.of(net.container)
    with net.listener() as listener, net.connect() as kept, listener.accept()[0] as server, net.connect() as waiting:
        wait_for(lambda: network_sockets.left_behind(net.container), "a connection that nobody accepts")
        fence.set(ALL)
        left = network_sockets.left_behind(net.container)
        assert [socket.peer_port for socket in left] == [waiting.getsockname()[1]]
        if fence.reset(left) == 0:
            pytest.skip("this kernel cannot destroy sockets")
        with pytest.raises(ConnectionResetError):
            _received(waiting)
        fence.lift()
        server.sendall(b"still here")
        assert _received(kept) == b"still here"


def test_no_reset_for_no_connection(net: Namespaces) -> None:
    fence = Fence.of(net.container)
    fence.set(ALL)
    assert fence.reset([]) == 0
    assert fence.level() == ALL


def test_drained_when_the_program_accepts(net: Namespaces) -> None:
    with net.listener() as listener, net.connect():
        wait_for(lambda: network_sockets.left_behind(net.container), "a connection that nobody accepts")
        assert network_sockets.drain(net.container, 0.05) == 1
        listener.accept()[0].close()
        assert network_sockets.drain(net.container, 0.5) == 0


def test_what_was_printed_last_is_waited_for(net: Namespaces) -> None:
    with net.listener() as listener, net.connect() as client, listener.accept()[0] as server:
        server.settimeout(0.2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += server.send(b"x" * 65536)
        server.close()
        # Closed, but the client reads so slowly that most of it is still here.
        assert network_sockets.drain(net.container, 0.05) == 1
        client.settimeout(5)
        got = 0
        while data := client.recv(1 << 20):
            got += len(data)
        assert got == sent
        assert network_sockets.drain(net.container, 0.5) == 0


def test_the_hosts_network_is_never_closed() -> None:
    with pytest.raises(MigrationError, match="network of the host") as caught:
        Fence.of(os.getpid())
    assert caught.value.code == "network_shared"


def test_a_namespace_that_is_gone_has_no_fence_to_lift() -> None:
    def never(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a program was run")

    # The number lives on as another process'.
    Fence(os.getpid(), "net:[1]").lift(never)  # type: ignore[arg-type]


def test_refused_where_the_network_is_not_the_containers_alone(net: Namespaces) -> None:
    assert network_fence.refusal({"HostConfig": {"NetworkMode": "bridge"}}) is None
    assert "host's" in str(network_fence.refusal({"HostConfig": {"NetworkMode": "host"}}))
    assert "another container" in str(network_fence.refusal({"HostConfig": {"NetworkMode": "container:abc"}}))
    assert network_fence.strangers(net.container, [net.container]) == []
    guest = subprocess.Popen(["nsenter", f"--net=/proc/{net.container}/ns/net", "sleep", "60"])
    try:
        wait_for(lambda: network_fence.strangers(net.container, [net.container]) == [guest.pid], "the guest is seen")
        assert str(guest.pid) in str(network_fence.refusal({}, network_fence.strangers(net.container, [net.container])))
    finally:
        guest.kill()
        guest.wait()


def test_a_failure_is_reported(net: Namespaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_fence, "rules", lambda level: f"no rules for {level}\n")
    with pytest.raises(MigrationError) as caught:
        Fence.of(net.container).set(ALL)
    assert caught.value.code == "fence_failed"


def test_a_number_that_is_another_process_s_by_now_closes_nobody_s_network(net: Namespaces) -> None:
    """After a restart of the container it may be anybody's, the host's SSH daemon included."""
    for pid in (2**22 + 1, net.client, os.getpid()):
        with pytest.raises(MigrationError) as caught:
            Fence.of(net.container)._replace(pid=pid).set(ALL)
        assert caught.value.code == "process_gone"
    assert Fence.of(net.client).level() is None


def test_more_connections_than_one_call_can_name_are_ended(net: Namespaces) -> None:
    number = 120
    with net.listener(128) as listener, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(net.connect()) for _dummy in range(number)]
        servers = [stack.enter_context(listener.accept()[0]) for _dummy in range(number)]
        assert len(servers) == number
        fence = Fence.of(net.container)
        fence.set(ALL)
        seen = [one for one in network_sockets.look_at_tcp(net.container) if one.is_connection]
        assert fence.reset(seen * 20) >= number, "as many words as no argument can hold"
        for client in clients:
            with pytest.raises(ConnectionResetError):
                _received(client)
        assert fence.level() == ALL


def test_an_announcement_mends_the_neighbours_cache(net: Namespaces) -> None:
    net.ip(net.container, "address", "add", "2001:db8::10/64", "dev", "eth0", "nodad")
    net.ip(net.client, "address", "add", "2001:db8::20/64", "dev", "eth0", "nodad")
    for address in (CONTAINER_ADDRESS, "2001:db8::10"):
        wrong = ["lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "stale"]
        net.ip(net.client, "neighbour", "replace", address, *wrong)
    # Nothing else may speak for it meanwhile.
    Fence.of(net.container).set(ALL)
    with announce.Announcer(net.container) as announcer:
        assert announcer.send() == 2
    wait_for(lambda: "02:00:00:00:00:77" not in net.ip(net.client, "neighbour"), "both caches are mended")


def _network(command: str, pid: int, directory: Path) -> None:
    subprocess.run([str(SCRIPT), command, str(pid), str(directory)], check=True, timeout=30)


def test_the_script_closes_and_stands_in(net: Namespaces, tmp_path: Path) -> None:
    (tmp_path / "fence").write_text(network_fence.rules(ALL))
    (tmp_path / "addresses").write_text("198.51.100.7\n2001:db8:1::7\n")
    fence = Fence.of(net.container)
    # CRIU before 4.2 calls its script twice at each stage.
    for _dummy in range(2):
        _network("prepare", net.container, tmp_path)
    assert fence.level() == ALL
    # What CRIU does: bind to the address that the container had, and find a way to anywhere.
    for family, address, peer in (
        (socket.AF_INET, "198.51.100.7", "203.0.113.9"),
        (socket.AF_INET6, "2001:db8:1::7", "2001:db8:2::9"),
    ):
        with net.inside(net.container, partial(socket.socket, family, socket.SOCK_DGRAM)) as one:
            one.bind((address, 0))
            one.connect((peer, 9))
    # Docker refuses an interface whose address a route of the main table holds.
    assert "2001:db8:1::" not in net.ip(net.container, "-6", "route", "show", "table", "main")
    for _dummy in range(2):
        _network("plumbed", net.container, tmp_path)
    assert "livemigrate0" not in net.ip(net.container, "link")
    assert fence.level() == ALL
    # The decision opens it, see _engines/runtime.py.
    fence.lift()
    assert fence.level() is None


def test_the_script_leaves_the_hosts_network_alone(tmp_path: Path) -> None:
    (tmp_path / "fence").write_text("this would fail\n")
    _network("prepare", os.getpid(), tmp_path)


@pytest.mark.parametrize("address", ["1.2.3.4 dev eth0", "$(reboot)", "eth0"])
def test_the_script_takes_addresses_only(net: Namespaces, tmp_path: Path, address: str) -> None:
    (tmp_path / "addresses").write_text(f"{address}\n")
    with pytest.raises(subprocess.CalledProcessError):
        _network("prepare", net.container, tmp_path)
    assert "livemigrate0" not in net.ip(net.container, "link")


def test_who_comes_and_goes_in_a_network_is_no_stranger(net: Namespaces) -> None:
    """A health check enters it before it is in the container's cgroup, and is over soon; one follows another."""
    own = [net.container]
    enter = ["nsenter", f"--net=/proc/{net.container}/ns/net", "sh", "-c"]
    with subprocess.Popen([*enter, "for i in 1 2 3 4 5 6 7 8; do sleep 0.3; sleep 0.01; done; exec sleep 60"]) as shell:
        try:
            wait_for(lambda: bool(network_fence.strangers(net.container, own)), "somebody enters")
            assert shell.pid in network_fence.lasting_strangers(net.container, lambda: own, 0.5)
            # The shell itself stays; what it starts comes and goes.
            assert network_fence.lasting_strangers(net.container, lambda: [*own, shell.pid], 1.0) == []
        finally:
            shell.kill()
    assert network_fence.lasting_strangers(net.container, lambda: own) == []
