# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The network of a container as a program with the right to it (``--cap-add NET_ADMIN``) has changed it.

The engine makes the network of a copy anew, and runc leaves it out of the checkpoint. So addresses, routes, rules, permanent
neighbours and settings of devices that were made, changed or deleted inside are read on the source, and made on the copy.
What the engine itself has made is left to it: the copy may have another address and another gateway (see ``_network/match.py``).
What cannot be brought over, devices that were made inside above all, is refused by ``_preflight/rules/surroundings_network.py``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import typing as t

from .._host import namespaces
from .._network import match as network_match
from .._network import plan as network_plan
from .._network import state as network_state
from .._network.netlink import ADD, APPEND, ONLY, REPLACE, Message, Netlink, packed
from .._network.plan import LinkChange, Made, Plan
from .._network.state import State
from .side import Side

NAME = "network"
# Under these names it is noted what the source has, and in which points the copy differs where nothing was to be done.
_SOURCE, _DIFFERENCES = f"{NAME} of the source", f"{NAME} differences"
OF_PROCESSES = False

#: the rules by which a user says that these may be lost
DEVICES_RULE, SHAPING_RULE = "network_devices_inside", "traffic_control_inside"

_NEW_LINK, _NEW_LINK_PROPERTY = 16, 108
_NEW_ADDRESS, _DELETE_ADDRESS = 20, 21
_NEW_ROUTE, _DELETE_ROUTE = 24, 25
_NEW_NEIGHBOUR, _NEW_RULE, _DELETE_RULE, _NEW_NEXTHOP = 28, 32, 33, 104
_NESTED = 0x8000
# The engine's own file of a container.
_CONFIG = "config.v2.json"
_ENDPOINT_FIELDS = ("IPAddress", "IPPrefixLen", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")


def look_ahead(side: Side) -> t.Any:
    """Nothing: all of it may change until the freeze, and is read in a millisecond."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """The network of the source, and what its engine made of it. None where it is not the container's own."""
    return seen(side.init, side.directory, side.ignored) if side.own_network else None


def seen(init: int, directory: str, ignored: t.Container[str] = ()) -> dict[str, t.Any]:
    """The network of a container, as plain data.

    :param init: its first process.
    :param directory: where the engine keeps the files of the container.
    :param ignored: ids of rules: what the user has said may be lost is left out.
    :raises OSError: when it cannot be read.
    """
    settings = _endpoint_settings(directory)
    state = namespaces.inside(init, ["net"], network_state.read)
    mtus = network_state.host_mtus({link.peer for link in state.links if link.peer})
    made = Made(state, _parsed(settings), {link.number: mtus[link.peer] for link in state.links if link.peer in mtus})
    if DEVICES_RULE in ignored:
        made = made._replace(state=_without(state, {link.number for link in made_inside(made)}))
    if SHAPING_RULE in ignored:
        made = made._replace(state=made.state._replace(shaped=()))
    return {
        "state": made.state.as_data(),
        "endpoints": settings,
        "mtus": {str(index): mtu for index, mtu in made.mtus.items()},
    }


def made_of(data: t.Mapping[str, t.Any]) -> Made:
    """Back from plain data.

    :param data: what :func:`seen` returned.
    """
    mtus = {int(index): int(mtu) for index, mtu in data["mtus"].items()}
    return Made(State.parse(data["state"]), _parsed(data["endpoints"]), mtus)


def _endpoint_settings(directory: str) -> dict[str, t.Any]:
    with open(os.path.join(directory, _CONFIG), encoding="utf-8") as handle:
        networks = (json.load(handle).get("NetworkSettings") or {}).get("Networks") or {}
    wanted = (*_ENDPOINT_FIELDS, "MacAddress")
    return {name: {key: (one or {}).get(key) for key in wanted} for name, one in networks.items()}


def _parsed(settings: t.Mapping[str, t.Any]) -> list[network_match.Endpoint]:
    return network_match.endpoints({"NetworkSettings": {"Networks": settings}})


def made_inside(made: Made) -> list[network_state.Link]:
    """The devices that are not the engine's."""
    engine = network_match.of_endpoints(made.state, made.endpoints)
    return [link for link in made.state.links if not link.is_loopback and link.number not in engine]


def _without(state: State, left_out: t.Container[int]) -> State:
    """The same without some devices, and all that needs them."""

    def stays(*numbers: int | None) -> bool:
        return not any(number is not None and number in left_out for number in numbers)

    names = {link.name for link in state.links if link.number in left_out}
    nexthops = tuple(one for one in state.nexthops if stays(one.number(network_state.NHA_OIF)))
    ids = {one.number(network_state.NHA_ID) for one in nexthops}

    def route_stays(one: Message) -> bool:
        several = [
            index for _flags, _weight, index, _rest in network_state.hops(one.get(network_state.RTA_MULTIPATH) or b"")
        ]
        known = one.number(network_state.RTA_NH_ID)
        return stays(one.number(network_state.RTA_OIF), *several) and (known is None or known in ids)

    return state._replace(
        links=tuple(link for link in state.links if link.number not in left_out),
        addresses=tuple(one for one in state.addresses if stays(network_state.ADDRESS_HEAD.unpack(one.head)[4])),
        routes=tuple(filter(route_stays, state.routes)),
        rules=tuple(
            one for one in state.rules if not {one.text(network_state.FRA_IIF), one.text(network_state.FRA_OIF)} & names
        ),
        neighbours=tuple(one for one in state.neighbours if stays(network_state.NEIGHBOUR_HEAD.unpack(one.head)[3])),
        nexthops=nexthops,
    )


def _as_made(side: Side) -> State:
    """The copy's network as its engine has made it: as it was when it was first looked at."""
    if NAME not in side.notes:
        side.notes[NAME] = namespaces.inside(side.init, ["net"], network_state.read)
    found: State = side.notes[NAME]
    return found


def _source(side: Side, source: t.Any) -> Made:
    """The source's network, read from plain data once."""
    if _SOURCE not in side.notes:
        side.notes[_SOURCE] = made_of(source)
    found: Made = side.notes[_SOURCE]
    return found


def device_names(side: Side, source: t.Any) -> dict[str, str]:
    """What the copy's devices are called, by their names on the source; nothing for one that the copy does not have.

    :raises OSError: when the copy's network cannot be read.
    """
    made = _source(side, source)
    match = network_match.Match(made.state, made.endpoints, _as_made(side)) if side.own_network else None
    links = {link.name: match.link(link.number) for link in made.state.links} if match is not None else {}
    return {name: link.name if link is not None else "" for name, link in links.items()}


def carry(side: Side, source: t.Any) -> None:
    """Bring about on the copy what was made inside."""
    if side.own_network:
        made, before = _source(side, source), _as_made(side)
        side.notes[_DIFFERENCES] = namespaces.inside(
            side.init, ["net"], lambda: _carry(made, before, look_again=side.sysctls_written)
        )


def _carry(made: Made, before: State, *, look_again: bool) -> list[str] | None:
    """Do what is to be done; returns what differs all the same where that is nothing, and None where something was done.

    :param before: the copy's network as it was when it was first looked at.
    """
    now = network_state.read() if look_again else before
    todo = network_plan.plan(made, now, before)
    if todo.is_empty:
        return network_plan.differences(todo)
    with Netlink() as netlink:
        _apply(netlink, made, before, todo)
    return None


def _apply(netlink: Netlink, made: Made, before: State, todo: Plan) -> None:
    for change in todo.links:
        _change_link(netlink, change, change.mask & ~(network_state.UP & ~change.flags))
    for one in todo.delete_addresses:
        _try(netlink, _DELETE_ADDRESS, one)
    for one in todo.addresses:
        _add_address(netlink, one, before)
    for one in sorted(todo.nexthops, key=lambda one: one.get(network_state.NHA_GROUP) is not None):
        _try(netlink, _NEW_NEXTHOP, one, REPLACE)
    # The kernel has made routes for new addresses, and taken some away.
    rest = network_plan.plan(made, network_state.read(), before)
    for one in rest.delete_routes:
        _try(netlink, _DELETE_ROUTE, one)
    for one in rest.routes:
        # A second route to the same place, where there is one.
        if not _try(netlink, _NEW_ROUTE, one, ADD):
            _try(netlink, _NEW_ROUTE, one, APPEND)
    for one in rest.rules:
        _try(netlink, _NEW_RULE, one, ADD)
    for one in rest.delete_rules:
        _try(netlink, _DELETE_RULE, one)
    for one in rest.neighbours:
        _try(netlink, _NEW_NEIGHBOUR, one, REPLACE)
    for change in todo.links:
        # Last, because it takes the routes of the device away.
        if change.mask & network_state.UP & ~change.flags:
            _change_link(
                netlink, LinkChange(change.number, change.name, flags=0, mask=network_state.UP), network_state.UP
            )


def _try(netlink: Netlink, kind: int, message: Message, how: int = ONLY) -> bool:
    """What the kernel does not accept shows in the comparison."""
    try:
        netlink.request(kind, message, how)
    except OSError:
        return False
    return True


def _change_link(netlink: Netlink, change: LinkChange, mask: int) -> None:
    pairs: list[tuple[int, bytes]] = []
    if change.mac:
        pairs.append((network_state.IFLA_ADDRESS, bytes.fromhex(change.mac.replace(":", ""))))
    if change.mtu:
        pairs.append((network_state.IFLA_MTU, struct.pack("=I", change.mtu)))
    if change.txqlen >= 0:
        pairs.append((network_state.IFLA_TXQLEN, struct.pack("=I", change.txqlen)))
    if change.alias is not None:
        pairs.append((network_state.IFLA_ALIAS, change.alias.encode()))
    if change.group >= 0:
        pairs.append((network_state.IFLA_GROUP, struct.pack("=I", change.group)))
    if mask:
        _try(
            netlink,
            _NEW_LINK,
            Message(network_state.LINK_HEAD.pack(0, 0, change.number, change.flags & mask, mask), ()),
        )
    for pair in pairs:
        # One by one: a device may take one and not the other.
        _try(netlink, _NEW_LINK, Message(network_state.LINK_HEAD.pack(0, 0, change.number, 0, 0), (pair,)))
    if change.altnames:
        names = packed((network_state.IFLA_ALTNAME, name.encode() + b"\0") for name in change.altnames)
        message = Message(
            network_state.LINK_HEAD.pack(0, 0, change.number, 0, 0),
            ((network_state.IFLA_PROPERTIES | _NESTED, names),),
        )
        _try(netlink, _NEW_LINK_PROPERTY, message, ADD)


def _add_address(netlink: Netlink, address: Message, state: State) -> None:
    family, _length, _flags, _scope, index = network_state.ADDRESS_HEAD.unpack(address.head)
    if family != network_state.INET6:
        _try(netlink, _NEW_ADDRESS, address, ADD)
        return
    flags = address.number(network_state.IFA_FLAGS) or 0
    # Nobody is asked whether it is free, which would take a second: the source has it.
    now = address.with_attribute(network_state.IFA_FLAGS, struct.pack("=I", flags | network_state.NODAD))
    try:
        netlink.request(_NEW_ADDRESS, now, ADD)
    except OSError as exc:
        link = state.link(index)
        if exc.errno != errno.EACCES or link is None:
            return
        # The engine switches IPv6 off at a device that it gave none. The source had switched it on: it has the address.
        with (
            contextlib.suppress(OSError),
            open(f"/proc/sys/net/ipv6/conf/{link.name}/disable_ipv6", "w", encoding="ascii") as handle,
        ):
            handle.write("0\n")
        _try(netlink, _NEW_ADDRESS, now, ADD)
    if not flags & network_state.NODAD:
        _try(netlink, _NEW_ADDRESS, address, REPLACE)


def compare(side: Side, source: t.Any) -> list[str]:
    """What is not on the copy as it was on the source."""
    if not side.own_network:
        return []
    found: list[str] | None = side.notes.get(_DIFFERENCES)
    if found is None:
        made, before = _source(side, source), _as_made(side)
        now = namespaces.inside(side.init, ["net"], network_state.read)
        found = network_plan.differences(network_plan.plan(made, now, before))
    return found
