# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What programs have made in a container's network that a move cannot bring over: the facts for the rules about it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import typing as t

from ..._host import namespaces, process_resources
from ..._network import match as network_match
from ..._network import plan as network_plan
from ..._network import state as network_state
from ..._network.netlink import NETFILTER, XFRM, Netlink, packed
from ..._network.plan import Made
from ..._network.state import State
from ..._surroundings import firewall as surroundings_firewall
from ..._surroundings import network as surroundings_network

# linux/xfrm.h, linux/netfilter/ipset/ip_set.h
_GET_SA, _GET_POLICY = 18, 21
_XFRM_REQUEST = bytes(64)
_LIST_SETS = 6 << 8 | 7
_SET_PROTOCOL, _SET_NAME = 1, 2
_NAMED = 8


def look(init: int, inspect: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What is there now.

    :param init: a process in the container's network namespace, which is its own.
    :param inspect: the container's inspect data.
    :raises OSError: when it cannot be read.
    """

    def read() -> tuple[State, int, list[str], list[str]]:
        stateful: list[str] = []
        # Where there is no nft, say, another rule tells so.
        with contextlib.suppress(OSError):
            stateful = surroundings_firewall.stateful_here(init)
        return network_state.read(), _ipsec(init), _ipsets(), stateful

    state, ipsec, ipsets, stateful = namespaces.inside(init, ["net"], read)
    made = Made(state, network_match.endpoints(inspect), {})
    links = network_match.of_endpoints(state, made.endpoints)
    engine = {address for endpoint in made.endpoints for address, _length in endpoint.addresses.values()}
    neighbours = [one for one in state.neighbours if network_plan.is_for_gateway(one, links, state)]
    return {
        "addresses": sorted(_made_inside(state, links, engine)),
        "devices": [
            f"{link.name} ({link.kind})" if link.kind else link.name for link in surroundings_network.made_inside(made)
        ][:_NAMED],
        "shaped": list(state.shaped)[:_NAMED],
        "gateways": [network_state.address_of(one.get(network_state.NDA_DST)) for one in neighbours][:_NAMED],
        "ipsec": ipsec,
        "ipsets": ipsets[:_NAMED],
        "stateful": stateful,
    }


def _made_inside(state: State, links: t.Container[int], engine: t.Container[bytes]) -> t.Iterator[str]:
    """The addresses that were set inside and are carried over: those of the engine's devices and of the loopback."""
    for one in state.addresses:
        link = state.link(network_state.ADDRESS_HEAD.unpack(one.head)[4])
        address = one.get(network_state.IFA_LOCAL) or one.get(network_state.IFA_ADDRESS) or b""
        known = link is not None and (link.is_loopback or link.number in links)
        if known and address not in engine and not ipaddress.ip_address(address).is_loopback:
            yield network_state.address_of(address)


def _has_netlink(init: int, protocol: int) -> bool:
    """Whether the kernel answers to a protocol, without having it load a module."""
    lines = process_resources.read(f"/proc/{init}/net/netlink").splitlines()[1:]
    return any(line.split()[1:2] == [str(protocol)] for line in lines)


def _ipsec(init: int) -> int:
    """How many associations and policies of IPsec there are."""
    found = 0
    if _has_netlink(init, XFRM):
        with contextlib.suppress(OSError), Netlink(XFRM) as netlink:
            found = sum(len(netlink.dump(kind, _XFRM_REQUEST)) for kind in (_GET_SA, _GET_POLICY))
    return found


def _ipsets() -> list[str]:
    """The names of the sets of ipset(8) in the namespace of the calling thread."""
    if not os.path.isdir("/sys/module/ip_set"):
        return []
    for protocol in (7, 6):
        with contextlib.suppress(OSError), Netlink(NETFILTER) as netlink:
            sets = netlink.dump(_LIST_SETS, bytes(4), packed([(_SET_PROTOCOL, bytes([protocol]))]))
            return sorted({one.text(_SET_NAME) for one in sets})
    return []
