# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses of a container on the other host, and which connections go on by them."""

from __future__ import annotations

import json
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES, Addresses

HIDDEN, FOUND = ip_address("172.17.0.2"), ip_address("198.51.100.7")
AFTER = Addresses(frozenset({HIDDEN, FOUND}), frozenset({FOUND}))


@pytest.mark.parametrize(
    ("address", "peer", "kept"),
    [
        ("198.51.100.7", "203.0.113.5", True),
        # It is there, and nobody outside finds it.
        ("172.17.0.2", "203.0.113.5", False),
        ("192.0.2.1", "203.0.113.5", False),
        # Within the container.
        ("172.17.0.2", "172.17.0.2", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
    ],
)
def test_a_connection_goes_on_where_it_is_found(address: str, peer: str, kept: bool) -> None:
    connection: Any = SimpleNamespace(address=ip_address(address), peer=ip_address(peer))
    assert AFTER.keep(connection) is kept


def test_what_programs_have_set_is_there_and_not_found_by_others() -> None:
    more = AFTER.and_made_inside(["fd00::7"])
    assert more.there == AFTER.there | {ip_address("fd00::7")}
    assert more.reachable == AFTER.reachable


def test_they_go_to_the_other_host_as_plain_data() -> None:
    for one in (AFTER, NO_ADDRESSES, AFTER.and_made_inside(["fd00::7"])):
        assert Addresses.parse(json.loads(json.dumps(one.as_data()))) == one
    assert Addresses.parse({}) == NO_ADDRESSES
    with pytest.raises(ValueError, match="nonsense"):
        Addresses.parse({"there": ["nonsense"]})
