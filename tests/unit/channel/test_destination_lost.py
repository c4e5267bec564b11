# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A destination that a person has declared lost: only one to which no connection can be made lets the source go on."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import destination_lost
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import recovery, source
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import GO_SENT, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.original import Original
from tests.unit.helpers import moved, netns
from tests.unit.helpers.moved import AnyEngine
from tests.unit.helpers.support import CONTAINER, bring_to

NOBODY = "ssh: connect to host 127.0.0.1 port 22: No route to host"

ALIVE = [
    ("root@127.0.0.1: Permission denied (publickey).", 255, "channel_revoked"),
    ("Host key verification failed.", 255, "destination_unreachable"),
    ("Connection timed out during banner exchange", 255, "destination_unreachable"),
    ("kex_exchange_identification: Connection closed by remote host", 255, "destination_unreachable"),
    ("zipimport.ZipImportError: bad magic number in agent.pyz", 1, "destination_unreachable"),
    ("sudo: a password is required", 1, "destination_unreachable"),
    # What a program there says, and ssh does not.
    (NOBODY, 1, "destination_unreachable"),
    ("/usr/bin/python3: can't open file '/var/lib/livemigrate/x/agent.pyz'", 2, "channel_revoked"),
]


class Engine(AnyEngine):
    """The engine of a source: its container is paused under its own name."""

    def find(self, _container: str) -> dict[str, Any]:
        policy = {"Name": "always", "MaximumRetryCount": 0}
        state = {"Running": True, "Status": "paused"}
        return {"Id": CONTAINER, "Name": "/web", "State": state, "HostConfig": {"RestartPolicy": policy}}

    inspect = find


@pytest.fixture
def handed_over(make_session: Callable[..., Session], quick: Path) -> Session:
    """A source that has handed over, and waits for the word of a destination at a port of this machine."""
    session = make_session(SOURCE, engine="runtime", data_root=str(quick / "docker"))
    bring_to(session, "prepared")
    session.enter("arming", policy={"Name": "always", "MaximumRetryCount": 0}, cgroup="/nowhere", pid=1, bytes=0)
    for phase in ("armed", "freezing", "dumped"):
        session.enter(phase)
    session.enter("sent")
    session.decide(GO_SENT)
    channel_client.set_peer(
        session, {"address": "127.0.0.1", "port": 22, "user": "root", "host_keys": ["ssh-ed25519 AAAA"]}
    )
    return session


@pytest.fixture
def thawed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which sessions' containers were thawed."""
    found: list[str] = []
    monkeypatch.setattr(Original, "thaw", lambda self: found.append(self.session.id))
    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    monkeypatch.setattr(recovery, "_LOST_SECONDS", 1.0)
    return found


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """A function that decides what ssh says, and with which code it ends."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def says(text: str, code: int) -> None:
        (programs / "ssh").write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{text}\nEND\nexit {code}\n")
        (programs / "ssh").chmod(0o755)

    return says


def _override(session: Session) -> str:
    """The phase it ends in, or why it is refused."""
    try:
        recovery._declare_lost(session)
        source.settle(moved.original(session, Engine()))
    except MigrationError as exc:
        return exc.code
    return session.phase


@pytest.mark.parametrize(("printed", "code", "known"), ALIVE)
def test_whoever_answers_in_any_way_is_not_lost(
    printed: str, code: int, known: str, handed_over: Session, thawed: list[str], ssh: Callable[[str, int], None]
) -> None:
    ssh(printed, code)
    with pytest.raises(MigrationError) as caught:
        Channel(handed_over).call("decision")
    assert caught.value.code == known
    # Not even where no connection can be made by now.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(destination_lost, "sign_of_life", lambda *_words: ("", ""))
        assert _override(handed_over) == "destination_not_lost"
    assert thawed == []
    assert handed_over.phase == "sent"


def test_its_own_failure_is_an_answer_too(
    handed_over: Session, thawed: list[str], tmp_path: Path, ssh: Callable[[str, int], None]
) -> None:
    ssh("", 1)
    printed = '{"failure": {"code": "session_locked", "message": "A step is at work.", "details": {}}}'
    (tmp_path / "bin" / "ssh").write_text(f"#!/bin/sh\necho '{printed}'\nexit 1\n")
    assert _override(handed_over) == "destination_not_lost"
    assert thawed == []


@pytest.mark.parametrize("printed", [NOBODY, "ssh: Could not resolve hostname beta: Name or service not known"])
def test_one_that_cannot_be_connected_is_lost(
    printed: str,
    handed_over: Session,
    thawed: list[str],
    ssh: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ssh(printed, 255)
    monkeypatch.setattr(destination_lost, "sign_of_life", lambda *_words: ("", ""))
    assert _override(handed_over) == "closed"
    assert thawed == [handed_over.id]
    assert handed_over.data("aborted")["destination_lost"] is True


def test_a_host_whose_ssh_daemon_is_down_is_alive(
    handed_over: Session, thawed: list[str], ssh: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh tells of the last address only; and who refuses a connection is there."""
    ssh(NOBODY, 255)
    asked: list[tuple[list[str], int]] = []

    def refuses(addresses: list[str], port: int) -> tuple[str, str]:
        asked.append((addresses, port))
        return "127.0.0.1", "refuses connections"

    monkeypatch.setattr(destination_lost, "sign_of_life", refuses)
    with pytest.raises(MigrationError) as caught:
        recovery._declare_lost(handed_over)
    assert asked == [(["127.0.0.1", "127.0.0.1"], 22)]
    assert handed_over.id in caught.value.message
    assert "A machine at 127.0.0.1 refuses connections." in caught.value.message
    assert "ip route add unreachable 127.0.0.1" in caught.value.message
    assert thawed == []


# -- the look at the address itself ----------------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def _looked(*addresses: str, port: int = 22, connect: Any = destination_lost._connect) -> str:
    """Where something is alive, and what it does."""
    return " ".join(destination_lost.sign_of_life(addresses, port, connect)).strip()


def test_who_accepts_or_refuses_a_connection_is_there(port: int) -> None:
    assert _looked("127.0.0.1", port=port) == f"127.0.0.1 refuses connections to port {port}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = server.getsockname()[1]
        assert _looked("127.0.0.1", port=listening) == f"127.0.0.1 accepts connections to port {listening}"
    # RFC 6761: no name ends so.
    assert _looked("beta.invalid", port=port) == ""


def test_where_a_name_leads_to_nowhere_the_addresses_that_it_had_are_asked(
    port: int, handed_over: Session, thawed: list[str], ssh: Callable[[str, int], None]
) -> None:
    ssh("ssh: Could not resolve hostname beta.invalid: Name or service not known", 255)
    place = {"address": "beta.invalid", "port": port, "user": "root", "addresses": ["127.0.0.1"]}
    durable.write_json(handed_over.path("peer.json"), place)
    with pytest.raises(MigrationError) as caught:
        recovery._declare_lost(handed_over)
    assert caught.value.code == "destination_not_lost"
    assert f"A machine at 127.0.0.1 refuses connections to port {port}." in caught.value.message
    assert "ip route add unreachable 127.0.0.1" in caught.value.message
    assert thawed == []
    # A session that began before they were noted.
    durable.write_json(handed_over.path("peer.json"), {"address": "beta.invalid", "port": port, "user": "root"})
    assert _override(handed_over) == "closed"


@pytest.mark.parametrize("code", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EPERM])
def test_every_address_of_a_name_is_looked_at(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["192.0.2.1", "192.0.2.2"]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 22)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_more: found)
    tried: list[str] = []

    def nobody(place: Any, _timeout: float) -> None:
        tried.append(place[4][0])
        raise OSError(code, "nobody")

    assert _looked("beta", "192.0.2.1", connect=nobody) == ""
    assert tried == addresses, "each of them once"

    def second(place: Any, _timeout: float) -> None:
        if place[4][0] == addresses[0]:
            raise OSError(code, "nobody")
        raise ConnectionRefusedError

    assert _looked("beta", connect=second) == "192.0.2.2 refuses connections to port 22"


# -- a machine whose firewall turns connections away -----------------------------------------------------------------

LIVING = {4: netns.CONTAINER_ADDRESS, 6: "2001:db8::10"}
NOBODY_THERE = {4: "192.0.2.30", 6: "2001:db8::30"}


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[netns.Namespaces]:
    """Two hosts with a cable between them, by both protocols."""
    with netns.namespaces() as made:
        for pid, address in ((made.container, LIVING[6]), (made.client, "2001:db8::20")):
            made.ip(pid, "address", "add", f"{address}/64", "dev", "eth0", "nodad")
        yield made


def _firewall(hosts: netns.Namespaces, rules: str) -> None:
    argv = ["nsenter", f"--net=/proc/{hosts.container}/ns/net", "nft", "-f", "-"]
    subprocess.run(argv, input=f"flush ruleset\n{rules}", text=True, check=True)


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.parametrize(
    ("version", "rejected"),
    [
        # As firewalld does, and whoever writes rules by hand.
        *[
            (4, f"icmp type {kind}")
            for kind in ("admin-prohibited", "host-prohibited", "net-unreachable", "host-unreachable")
        ],
        *[(6, f"icmpv6 type {kind}") for kind in ("admin-prohibited", "no-route", "addr-unreachable", "policy-fail")],
        (4, "icmp type port-unreachable"),
        (6, "tcp reset"),
    ],
)
def test_a_machine_whose_firewall_turns_connections_away_is_alive(
    version: int, rejected: str, two_hosts: netns.Namespaces
) -> None:
    family = "ip" if version == 4 else "ip6"
    hook = "type filter hook input priority 0;"
    _firewall(two_hosts, f"table {family} f {{\n chain i {{\n {hook}\n tcp dport 22 reject with {rejected}\n }}\n}}\n")
    reported = two_hosts.inside(two_hosts.client, lambda: _looked(LIVING[version]))
    assert reported == f"{LIVING[version]} refuses connections to port 22"


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("version", [4, 6])
def test_where_nobody_has_the_address_any_more_it_is_lost(version: int, two_hosts: netns.Namespaces) -> None:
    """The kernel tells the same error, and that it comes from this host."""
    assert two_hosts.inside(two_hosts.client, lambda: _looked(NOBODY_THERE[version])) == ""


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_one_that_a_person_has_cut_this_host_off_from_is_lost(
    kind: str, version: int, two_hosts: netns.Namespaces
) -> None:
    route = [f"-{version}", "route", "{}", kind, LIVING[version]]
    two_hosts.ip(two_hosts.client, *" ".join(route).format("add").split())
    try:
        assert two_hosts.inside(two_hosts.client, lambda: _looked(LIVING[version])) == ""
    finally:
        two_hosts.ip(two_hosts.client, *" ".join(route).format("del").split())


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("version", [4, 6])
def test_a_router_that_cannot_find_it_is_no_sign_of_its_life(version: int, two_hosts: netns.Namespaces) -> None:
    """Its answer is not the destination's."""
    _firewall(two_hosts, "")
    beyond = {4: "198.51.100.7", 6: "2001:db8:1::7"}[version]
    way = [f"-{version}", "route", "{}", beyond, "via", LIVING[version]]
    two_hosts.ip(two_hosts.client, *" ".join(way).format("add").split())
    forwarding = "net/ipv4/ip_forward" if version == 4 else "net/ipv6/conf/all/forwarding"
    argv = ["nsenter", f"--net=/proc/{two_hosts.container}/ns/net", "sh", "-c", f"echo 1 >/proc/sys/{forwarding}"]
    subprocess.run(argv, check=True)
    try:
        began = time.monotonic()
        assert two_hosts.inside(two_hosts.client, lambda: _looked(beyond)) == ""
        assert time.monotonic() - began < destination_lost._CONNECT_SECONDS, "the router has answered"
    finally:
        two_hosts.ip(two_hosts.client, *" ".join(way).format("del").split())
