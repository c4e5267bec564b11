# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of connections, on real network namespaces: which go on, which are told, and what the two hosts say of it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._engines import connections
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.connections import Arrangement, Plan
from ansible_collections.livemigrate.criu.plugins.module_utils._network import fence as network_fence
from ansible_collections.livemigrate.criu.plugins.module_utils._network import sockets as network_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES, Addresses
from ansible_collections.livemigrate.criu.plugins.module_utils._network.fence import Fence
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.netns import CONTAINER_ADDRESS, Namespaces

STAYS = Addresses(*(frozenset({ipaddress.ip_address(CONTAINER_ADDRESS)}),) * 2)


def _plan(net: Namespaces, after: Addresses) -> Plan:
    return Plan(Fence.of(net.container), after, (CONTAINER_ADDRESS,), True)


def test_a_plan_outlives_the_process_that_made_it(make_session: Callable[..., Session]) -> None:
    plan = Plan(Fence(7, "net:[1]"), STAYS, ("192.0.2.7",), True)
    session = make_session(SOURCE)
    session.enter("prepared", **plan.as_data())
    assert Plan.of(Session(session.id, state_root=session.state_root, volatile_root=session.volatile_root)) == plan


def test_a_session_that_made_no_plan_closes_nothing(make_session: Callable[..., Session]) -> None:
    plan = Plan.of(make_session(SOURCE))
    assert plan == Plan(None, NO_ADDRESSES, (), False)
    connections.keep_new_ones_out(plan)
    connections.close(plan)
    connections.reopen(plan)
    assert connections.tell_clients(plan) == 0
    assert connections.outlook(plan, 1).established is False


def test_what_the_source_says_arrives(net: Namespaces) -> None:
    printed = Arrangement.of(_plan(net, STAYS), established=True)
    assert Arrangement.parse(printed.as_data()) == printed
    assert printed.fenced


@pytest.mark.parametrize("key", ["addresses", "after"])
def test_what_is_no_address_is_refused(key: str) -> None:
    """It would reach a command on the destination."""
    printed = Arrangement(True, True, ("192.0.2.7",), STAYS).as_data()
    printed[key] = ["192.0.2.7; reboot"] if key == "addresses" else {"there": ["x"], "reachable": []}
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        Arrangement.parse(printed)


def test_a_connection_goes_on_where_its_address_stays(net: Namespaces) -> None:
    with net.listener() as listener, net.connect(), listener.accept()[0]:
        assert connections.outlook(_plan(net, STAYS), net.container) == (1, 0)
        assert connections.outlook(_plan(net, NO_ADDRESSES), net.container) == (0, 1)
        with net.connect():
            # The kernel has accepted it and the program has not: it is in no checkpoint.
            assert connections.outlook(_plan(net, STAYS), net.container) == (1, 1)


def test_connections_within_the_container_go_on_whatever_its_address_is(net: Namespaces) -> None:
    def pair() -> tuple[socket.socket, ...]:
        listener = socket.create_server(("127.0.0.1", 0))
        return listener, socket.create_connection(listener.getsockname()), listener.accept()[0]

    opened = net.inside(net.container, pair)
    try:
        outlook = connections.outlook(_plan(net, NO_ADDRESSES), net.container)
        assert outlook == (2, 0)
        assert outlook.established
    finally:
        for one in opened:
            one.close()


def _is_reset(client: socket.socket) -> bool:
    client.settimeout(1.0)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_clients_of_an_address_that_changes_are_informed(net: Namespaces) -> None:
    plan = _plan(net, NO_ADDRESSES)
    with net.listener() as listener, net.connect() as client, listener.accept()[0] as _server:
        connections.close(plan)
        assert connections.tell_clients(plan) == 1
        assert _is_reset(client)
        assert plan.fence is not None
        assert plan.fence.level() == network_fence.ALL, "it opens no more"


def test_only_what_is_lost_is_reported_where_the_address_stays(net: Namespaces) -> None:
    plan = _plan(net, STAYS)
    with net.listener() as listener, net.connect() as kept, net.connect() as waiting, listener.accept()[0] as _server:
        connections.close(plan)
        assert connections.tell_clients(plan) == 1
        assert _is_reset(waiting)
        assert not _is_reset(kept)


def test_a_copy_s_programs_learn_which_connections_are_over_and_nobody_else_does(net: Namespaces) -> None:
    with net.listener() as listener, net.connect() as client, listener.accept()[0] as server:
        fence = Fence.of(net.container)
        fence.set(network_fence.ALL)
        stays = Arrangement(True, True, (CONTAINER_ADDRESS,), STAYS)
        stays.end_what_stays_behind(net.container)
        assert len([one for one in network_sockets.look_at_tcp(net.container) if one.is_connection]) == 1
        stays._replace(after=NO_ADDRESSES).end_what_stays_behind(net.container)
        with pytest.raises(ConnectionAbortedError):
            server.recv(1)
        assert not _is_reset(client), "the source tells the other end, after the decision"


def test_new_connections_wait_until_it_is_opened_again(net: Namespaces) -> None:
    plan = _plan(net, STAYS)
    with net.listener():
        connections.keep_new_ones_out(plan)
        with pytest.raises(TimeoutError):
            net.connect(0.3)
        connections.close(plan)
        connections.reopen(plan)
        net.connect().close()
