# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a destination says of itself (its account, its keys) stays an account and keys on the source, and is no option of ssh."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed, run
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import login as channel_login
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._host import machine
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

MakeSession = Callable[..., Session]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb1kXn3XZ1l0nqFJtC0Q4kTgK6U3m8B0h5aYtqYw0Zk"
PEER = {"address": "198.51.100.12", "port": 22, "user": "root", "host_keys": [f"{KEY} root@beta"]}

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")


def test_a_peer_as_it_should_be_is_noted(make_session: MakeSession) -> None:
    session = make_session()
    channel_client.set_peer(session, PEER)
    assert Path(session.path("known_hosts")).read_text() == f"livemigrate-destination {KEY}\n"
    place = {"address": "198.51.100.12", "port": 22, "user": "root", "addresses": ["198.51.100.12"]}
    assert durable.read_json(session.path("peer.json")) == place


@pytest.mark.parametrize(("name", "addresses"), [("localhost", {"127.0.0.1", "::1"}), ("beta.invalid", set())])
def test_the_addresses_of_a_name_are_noted(name: str, addresses: set[str], make_session: MakeSession) -> None:
    session = make_session()
    channel_client.set_peer(session, {**PEER, "address": name})
    noted = durable.read_json(session.path("peer.json"))
    assert noted["address"] == name
    assert set(noted["addresses"]) <= addresses
    assert bool(noted["addresses"]) == bool(addresses)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"user": "-oProxyCommand=touch /pwned;#"}, "invalid_name"),
        ({"user": "root@elsewhere"}, "invalid_name"),
        ({"address": "-oProxyCommand=touch /pwned"}, "invalid_name"),
        ({"address": "root@198.51.100.12"}, "invalid_name"),
        ({"host_keys": []}, "channel_failed"),
        ({"host_keys": ["ssh-ed25519"]}, "channel_failed"),
        ({"host_keys": [f"{KEY}\n* {KEY}"]}, "channel_failed"),
        ({"host_keys": ["@cert-authority * AAAA"]}, "channel_failed"),
        ({"host_keys": ["ssh-ed25519 AAAA\u2028AAAA"]}, "channel_failed"),
    ],
)
def test_what_is_no_account_no_address_and_no_key_is_refused_before_it_is_noted(
    change: dict[str, Any], code: str, make_session: MakeSession
) -> None:
    session = make_session()
    with pytest.raises(MigrationError) as caught:
        channel_client.set_peer(session, {**PEER, **change})
    assert caught.value.code == code
    assert not Path(session.path("known_hosts")).exists()
    assert not Path(session.path("peer.json")).exists()


@needs_ssh
@pytest.mark.parametrize("field", ["user", "address"])
@pytest.mark.parametrize("way", ["call", "stream", "start_conversation", "rsync", "disconnect"])
def test_even_one_that_got_through_is_no_option_of_ssh(
    field: str, way: str, make_session: MakeSession, disk: Path
) -> None:
    session = make_session()
    channel_client.set_peer(session, PEER)
    hostile = f"-oProxyCommand=touch {disk}/ran;#"
    durable.write_json(session.path("peer.json"), {"address": "127.0.0.1", "port": 1, "user": "root", field: hostile})
    channel = channel_client.Channel(session)
    (disk / "content").mkdir()
    try:
        if way == "start_conversation":
            with channel.start_conversation("handover"):
                pass
        elif way == "rsync":
            channel.rsync(str(disk / "content"), "layer")
        else:
            {
                "call": lambda: channel.call("ping"),
                "stream": lambda: channel.stream("ping", []),
                "disconnect": channel.disconnect,
            }[way]()
    except MigrationError:
        pass
    assert not (disk / "ran").exists()


def test_the_other_host_s_address_is_no_further_setting_for_sshd() -> None:
    """Its daemon is asked what it would let in from the address that the source came from, as the source told it."""
    asked: list[Sequence[str]] = []

    def remember(argv: Sequence[str], **_keywords: Any) -> Completed:
        asked.append(argv)
        return Completed(0, "", "")

    channel_login.look(remember, "root", "192.0.2.7")
    assert asked[-1][-1] == "user=root,host=192.0.2.7,addr=192.0.2.7"
    asked.clear()
    channel_login.look(remember, "root", "192.0.2.7,user=nobody")
    assert [argv for argv in asked if argv[0] == "sshd"] == []
    assert "in its name" in channel_login.look(remember, "root,addr=192.0.2.7", None)["fails"]


def test_an_account_that_is_none_gets_no_rule_of_sudo_s(make_session: MakeSession) -> None:
    with pytest.raises(MigrationError) as caught:
        channel_server.authorise(make_session(DESTINATION), "ALL=(ALL) ALL\nroot", f"{KEY} x", ("/agent",), run)
    assert caught.value.code == "invalid_name"


def test_an_address_that_is_none_is_asked_for_no_keys() -> None:
    def unused(*_arguments: Any, **_keywords: Any) -> Completed:
        raise AssertionError("no program was to be started")

    with pytest.raises(MigrationError) as caught:
        machine.peer_facts(unused, "-f/etc/shadow", 22)
    assert caught.value.code == "invalid_name"
