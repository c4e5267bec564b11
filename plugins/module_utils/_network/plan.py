# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What has to be done to a copy's network for it to be like the source's: pure functions.

What the engine made on the source is left to the engine of the destination, which may have made something else for good reasons.
The rest was made, changed or deleted inside of the container: it is brought about on the copy, in the copy's own terms.
"""

from __future__ import annotations

import ipaddress
import typing as t

from . import state as network_state
from .match import Endpoint, Match, NoCounterpartError
from .netlink import Message
from .state import Link, State

Key = tuple[t.Any, ...]

# Said by newer kernels only, or by nobody in particular: they make no difference between two rules or addresses.
_RULE_SUPPRESS_PREFIX, _RULE_PROTOCOL = 14, 21
# Linux 6.14: RTA_FLOWLABEL.
_RTA_LAST = 31
_KERNEL_RULES = (0, 32766, 32767)
_RTA_VIA_FREE = (
    network_state.RTA_OIF,
    network_state.RTA_GATEWAY,
    network_state.RTA_PRIORITY,
    network_state.RTA_TABLE,
    20,
)


class LinkChange(t.NamedTuple):
    """What is another one at a device of the copy."""

    number: int
    name: str
    mac: str = ""
    mtu: int = 0
    txqlen: int = -1
    flags: int = 0
    mask: int = 0
    """Which of the flags are to be set or taken away."""
    alias: str | None = None
    group: int = -1
    altnames: tuple[str, ...] = ()


class Plan(t.NamedTuple):
    """What has to be done, in this order."""

    links: list[LinkChange]
    delete_addresses: list[Message]
    addresses: list[Message]
    nexthops: list[Message]
    delete_routes: list[Message]
    routes: list[Message]
    delete_rules: list[Message]
    rules: list[Message]
    neighbours: list[Message]
    lost: list[str]
    """What has no counterpart on the copy."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(self[:-1])


class Made(t.NamedTuple):
    """The network of the source."""

    state: State
    endpoints: list[Endpoint]
    mtus: dict[int, int]
    """The MTU that each of the engine's devices was given there: that of its other end, or of the host's device below it."""


def plan(source: Made, copy: State, engine_made: State | None = None) -> Plan:
    """Compare the network of a copy with that of the source.

    :param engine_made: the copy's network as the engine made it, where it was changed since.
    """
    source = source._replace(state=_for_kernel_of(engine_made or copy, source.state))
    match = Match(source.state, source.endpoints, engine_made or copy)
    lost: list[str] = []

    def translated(messages: t.Iterable[Message], how: t.Callable[[Match, Message], Message]) -> list[Message]:
        found = []
        for message in messages:
            try:
                found.append(how(match, message))
            except NoCounterpartError as exc:
                lost.append(f"{describe(message, source.state)} ({exc} is not there)")
        return found

    for link in source.state.links:
        if match.link(link.number) is None:
            lost.append(f"the network device {link.name}")
    lost += [f"the traffic control of {one}" for one in source.state.shaped]
    wanted_addresses, given_up = _wanted_addresses(match, source.endpoints, lost)
    addresses = [*translated(wanted_addresses, _address), *_taken_away(match, copy, given_up)]
    there = {_address_key(one) for one in copy.addresses}
    delete_addresses = [one for one in copy.addresses if _given(one) in given_up]
    routes = translated(_wanted_routes(match, source), _route)
    rules = translated(source.state.rules, _rule)
    neighbours = translated(_wanted_neighbours(match), _neighbour)
    nexthops = translated(source.state.nexthops, _nexthop)
    return Plan(
        links=[change for link in source.state.links for change in _link_changes(match, source, link, copy)],
        delete_addresses=delete_addresses,
        addresses=[one for one in addresses if _address_key(one) not in there],
        nexthops=_missing(nexthops, copy.nexthops, _plain_key),
        delete_routes=_routes_to_delete(match, source, copy, routes),
        routes=sorted(_missing(routes, copy.routes, route_key), key=_by_scope),
        delete_rules=[one for one in _missing(copy.rules, rules, rule_key) if _is_of_the_kernel(one)],
        rules=_missing(rules, copy.rules, rule_key),
        neighbours=_missing(neighbours, copy.neighbours, _plain_key),
        lost=lost,
    )


def _for_kernel_of(copy: State, source: State) -> State:
    """The source's network without what each kernel that has IPv6 makes by itself, where the copy's kernel has none.

    That is the address ``::1`` with its route, and the rules that lead to the tables of routes. A program cannot miss them: it
    gets no socket of IPv6 from such a kernel. What anybody has set of IPv6 stays, and is told as lost.
    """
    six = network_state.INET6
    if any(one.head[0] == six for one in copy.rules):
        return source
    loopback = ipaddress.IPv6Address("::1").packed

    def is_loopback_address(one: Message) -> bool:
        return one.head[0] == six and one.get(network_state.IFA_ADDRESS) == loopback

    def is_loopback_route(one: Message) -> bool:
        head = network_state.ROUTE_HEAD.unpack(one.head)
        return head[0] == six and head[5] == network_state.KERNEL and one.get(network_state.RTA_DST) == loopback

    return source._replace(
        addresses=tuple(one for one in source.addresses if not is_loopback_address(one)),
        routes=tuple(one for one in source.routes if not is_loopback_route(one)),
        rules=tuple(one for one in source.rules if one.head[0] != six or not _is_of_the_kernel(one)),
    )


def _missing(wanted: t.Iterable[Message], there: t.Iterable[Message], key: t.Callable[[Message], Key]) -> list[Message]:
    known = {key(one) for one in there}
    return [one for one in wanted if key(one) not in known]


def _plain_key(message: Message) -> Key:
    return message.head, tuple(sorted(message.attributes))


# -- links --------------------------------------------------------------------------------------------------------


def _link_changes(match: Match, source: Made, link: Link, copy: State) -> t.Iterator[LinkChange]:
    matched = match.link(link.number)
    other = copy.link(matched.number) if matched is not None else None
    if other is None:
        return
    endpoint = match.engine_links.get(link.number)
    change = LinkChange(other.number, other.name)
    # Another host's engine may choose another MTU and MAC address: only what somebody has changed is carried.
    chosen_mtu = link.mtu != source.mtus.get(link.number, link.mtu if endpoint else other.mtu)
    if chosen_mtu and link.mtu != other.mtu:
        change = change._replace(mtu=link.mtu)
    if endpoint is not None and endpoint.mac and link.mac != endpoint.mac and link.mac != other.mac:
        change = change._replace(mac=link.mac)
    if link.txqlen != other.txqlen:
        change = change._replace(txqlen=link.txqlen)
    if link.flags != other.flags:
        change = change._replace(flags=link.flags, mask=link.flags ^ other.flags)
    if link.alias != other.alias:
        change = change._replace(alias=link.alias)
    if link.group != other.group:
        change = change._replace(group=link.group)
    if set(link.altnames) - set(other.altnames):
        change = change._replace(altnames=tuple(sorted(set(link.altnames) - set(other.altnames))))
    if change != LinkChange(other.number, other.name):
        yield change


# -- addresses ----------------------------------------------------------------------------------------------------


def _given(address: Message) -> Key:
    _family, _length, _flags, _scope, index = network_state.ADDRESS_HEAD.unpack(address.head)
    return index, address.get(network_state.IFA_LOCAL) or address.get(network_state.IFA_ADDRESS)


def _address_key(address: Message) -> Key:
    kept = address.without(network_state.IFA_CACHEINFO, network_state.IFA_PROTO)
    # The same as the address itself where there is no other end.
    if kept.get(network_state.IFA_LOCAL) == kept.get(network_state.IFA_ADDRESS):
        kept = kept.without(network_state.IFA_LOCAL)
    return _plain_key(kept)


def _wanted_addresses(match: Match, endpoints: t.Sequence[Endpoint], lost: list[str]) -> tuple[list[Message], set[Key]]:
    """The addresses that were set inside, and the copy's own ones that it is not to have, by device and address."""
    wanted, seen = [], set()
    engine = {address: length for one in endpoints for address, length in one.addresses.values()}
    for one in match.source.addresses:
        _family, length, _flags, _scope, index = network_state.ADDRESS_HEAD.unpack(one.head)
        address = one.get(network_state.IFA_LOCAL) or one.get(network_state.IFA_ADDRESS) or b""
        if index not in match.engine_links or address not in engine:
            wanted.append(one)
        elif engine[address] == length:
            seen.add(address)
        elif match.stands_for(address) == address:
            wanted.append(one)
        else:
            seen.add(address)
            lost.append(f"the length of the prefix of {network_state.address_of(address)}")
    given_up = set()
    for index, endpoint in match.engine_links.items():
        link = match.link(index)
        for family, (address, _length) in endpoint.addresses.items():
            if link is None:
                continue
            now = match.own(link).get(family)
            if address not in seen:
                given_up.add((link.number, now[0] if now else b""))
            elif now is None and not ipaddress.ip_address(address).is_link_local:
                lost.append(f"the address {network_state.address_of(address)} (its network has none to stand for it)")
    return wanted, given_up


def _taken_away(match: Match, copy: State, given_up: set[Key]) -> list[Message]:
    """What the engine gave the copy, and what is gone since without the source having given it up: a sysctl can do that.

    Only of a family that the source has from its engine too: where the copy's network has IPv6 and the source's has none, a
    sysctl of the source's takes it away rightly.
    """
    families: set[tuple[int, int]] = set()
    for index, endpoint in match.engine_links.items():
        link = match.link(index)
        families.update((link.number, family) for family in endpoint.addresses if link is not None)
    gone = {_given(one) for one in match.copy.addresses} - {_given(one) for one in copy.addresses} - given_up

    def is_of_both(address: Message) -> bool:
        family, _length, _flags, _scope, index = network_state.ADDRESS_HEAD.unpack(address.head)
        return (index, family) in families

    return [one for one in match.copy.addresses if _given(one) in gone and is_of_both(one)]


def _address(match: Match, message: Message) -> Message:
    family, length, flags, scope, index = network_state.ADDRESS_HEAD.unpack(message.head)
    found = message._replace(head=network_state.ADDRESS_HEAD.pack(family, length, flags, scope, match.device(index)))
    link, other = match.source.link(index), match.link(index)
    label = message.text(network_state.IFA_LABEL)
    if label and link is not None and other is not None and link.name != other.name and label.startswith(link.name):
        text = other.name + label[len(link.name) :]
        found = found.with_attribute(network_state.IFA_LABEL, text.encode() + b"\0")
    return found


# -- routes -------------------------------------------------------------------------------------------------------


def route_key(route: Message) -> Key:
    """By which two routes are the same. What a newer kernel tells in addition makes no difference."""
    kept = route.without(network_state.RTA_EXPIRES)
    return _plain_key(kept._replace(attributes=tuple(one for one in kept.attributes if one[0] & 0x3FFF <= _RTA_LAST)))


def _by_scope(route: Message) -> int:
    """Those to a network of a device first: others lead over them."""
    return -int(network_state.ROUTE_HEAD.unpack(route.head)[6])


def _is_default(route: Message) -> bool:
    head = network_state.ROUTE_HEAD.unpack(route.head)
    return (
        head[1] == 0
        and head[7] == network_state.UNICAST
        and route.number(network_state.RTA_TABLE) == network_state.MAIN
    )


def _wanted_routes(match: Match, source: Made) -> list[Message]:
    """Without the engine's own default route where it is not known what stands for its gateway: that is the engine's business."""
    return [one for one in source.state.routes if not _is_engine_default(match, one)]


def _is_engine_default(match: Match, route: Message) -> bool:
    gateway = route.get(network_state.RTA_GATEWAY)
    if not _is_default(route) or gateway not in match.gateways or set(_numbers(route)) - set(_RTA_VIA_FREE):
        return False
    try:
        match.address(gateway)
    except NoCounterpartError:
        return True
    return False


def _numbers(message: Message) -> list[int]:
    return [kind & 0x3FFF for kind, _value in message.attributes]


def _routes_to_delete(match: Match, source: Made, copy: State, wanted: t.Sequence[Message]) -> list[Message]:
    """The copy's default routes and ways to its networks whose like the engine made on the source, where it is no more."""
    gateways = {family for endpoint in source.endpoints for family in endpoint.gateways}
    unknown = {
        network_state.ROUTE_HEAD.unpack(one.head)[0] for one in source.state.routes if _is_engine_default(match, one)
    }
    connected = set()
    for index in match.engine_links:
        link = match.link(index)
        its = match.source.link(index)
        if link is not None and its is not None and its.flags & network_state.UP:
            connected.add(link.number)
    found = []
    for one in _missing(copy.routes, wanted, route_key):
        head = network_state.ROUTE_HEAD.unpack(one.head)
        if _is_default(one):
            if head[0] in gateways - unknown:
                found.append(one)
        elif head[5] == network_state.KERNEL and one.number(network_state.RTA_OIF) in connected:
            found.append(one)
    return found


def _route(match: Match, message: Message) -> Message:
    head = list(network_state.ROUTE_HEAD.unpack(message.head))
    found = message
    for number, at in ((network_state.RTA_DST, 1), (network_state.RTA_SRC, 2)):
        value = message.get(number)
        if value is not None:
            address, head[at] = match.prefix(value, head[at])
            found = found.with_attribute(number, address)
    found = found._replace(head=network_state.ROUTE_HEAD.pack(*head))
    for number in (network_state.RTA_GATEWAY, network_state.RTA_PREFSRC):
        value = message.get(number)
        if value is not None:
            found = found.with_attribute(number, match.address(value))
    index = message.number(network_state.RTA_OIF)
    if index is not None:
        found = found.with_attribute(network_state.RTA_OIF, _number(match.device(index)))
    several = message.get(network_state.RTA_MULTIPATH)
    if several is not None:

        def attribute(kind: int, value: bytes) -> bytes:
            return match.address(value) if kind & 0x3FFF == network_state.RTA_GATEWAY else value

        found = found.with_attribute(
            network_state.RTA_MULTIPATH, network_state.several(several, match.device, attribute)
        )
    return found


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little" if _LITTLE else "big")


_LITTLE = network_state.LINK_HEAD.pack(0, 1, 0, 0, 0)[2:4] == b"\x01\x00"


# -- rules, neighbours, next hops ---------------------------------------------------------------------------------


def rule_key(rule: Message) -> Key:
    """By which two rules are the same."""
    kept = rule.without(_RULE_PROTOCOL)
    if kept.get(_RULE_SUPPRESS_PREFIX) == b"\xff" * 4:
        kept = kept.without(_RULE_SUPPRESS_PREFIX)
    return _plain_key(kept)


def _is_of_the_kernel(rule: Message) -> bool:
    return rule.number(network_state.FRA_PRIORITY) in _KERNEL_RULES


def _rule(match: Match, message: Message) -> Message:
    head = list(network_state.RULE_HEAD.unpack(message.head))
    found = message
    for number, at in ((network_state.FRA_DST, 1), (network_state.FRA_SRC, 2)):
        value = message.get(number)
        if value is not None:
            address, head[at] = match.prefix(value, head[at])
            found = found.with_attribute(number, address)
    found = found._replace(head=network_state.RULE_HEAD.pack(*head))
    for number in (network_state.FRA_IIF, network_state.FRA_OIF):
        if message.get(number) is not None:
            found = found.with_attribute(number, match.name(message.text(number)).encode() + b"\0")
    return found


def is_for_gateway(neighbour: Message, links: t.Mapping[int, Endpoint], state: State) -> bool:
    """Whether a permanent neighbour is a gateway that the other host has too, with a MAC address of its own."""
    head = network_state.NEIGHBOUR_HEAD.unpack(neighbour.head)
    link = state.link(head[3])
    endpoint = links.get(head[3])
    return (
        link is not None
        and link.kind == "veth"
        and endpoint is not None
        and not head[5] & network_state.PROXY
        and neighbour.get(network_state.NDA_DST) in endpoint.gateways.values()
    )


def _wanted_neighbours(match: Match) -> list[Message]:
    return [one for one in match.source.neighbours if not is_for_gateway(one, match.engine_links, match.source)]


def _neighbour(match: Match, message: Message) -> Message:
    head = list(network_state.NEIGHBOUR_HEAD.unpack(message.head))
    head[3] = match.device(head[3])
    found = message._replace(head=network_state.NEIGHBOUR_HEAD.pack(*head))
    value = message.get(network_state.NDA_DST)
    return found if value is None else found.with_attribute(network_state.NDA_DST, match.address(value))


def _nexthop(match: Match, message: Message) -> Message:
    found = message
    index = message.number(network_state.NHA_OIF)
    if index is not None:
        found = found.with_attribute(network_state.NHA_OIF, _number(match.device(index)))
    value = message.get(network_state.NHA_GATEWAY)
    return found if value is None else found.with_attribute(network_state.NHA_GATEWAY, match.address(value))


# -- for people ---------------------------------------------------------------------------------------------------


def describe(message: Message, state: State) -> str:
    """An address, route, rule, neighbour or next hop, for a person."""
    if message in state.addresses:
        return describe_address(message)
    if message in state.routes:
        return describe_route(message)
    if message in state.rules:
        return describe_rule(message)
    if message in state.neighbours:
        return describe_neighbour(message)
    return describe_nexthop(message)


def describe_address(message: Message) -> str:
    """An address."""
    value = message.get(network_state.IFA_LOCAL) or message.get(network_state.IFA_ADDRESS)
    return f"the address {network_state.address_of(value)}/{network_state.ADDRESS_HEAD.unpack(message.head)[1]}"


def describe_route(message: Message) -> str:
    """A route."""
    head = network_state.ROUTE_HEAD.unpack(message.head)
    target, gateway = message.get(network_state.RTA_DST), message.get(network_state.RTA_GATEWAY)
    text = f"the route to {network_state.address_of(target)}" + (f"/{head[1]}" if target else "")
    table = message.number(network_state.RTA_TABLE)
    text += f" via {network_state.address_of(gateway)}" if gateway else ""
    return text + (f" in table {table}" if table != network_state.MAIN else "")


def describe_rule(message: Message) -> str:
    """A rule of the routing policy."""
    return f"the routing rule of priority {message.number(network_state.FRA_PRIORITY)}"


def describe_neighbour(message: Message) -> str:
    """A permanent neighbour."""
    return f"the permanent neighbour {network_state.address_of(message.get(network_state.NDA_DST))}"


def describe_nexthop(message: Message) -> str:
    """A next hop object."""
    return f"the next hop object {message.number(network_state.NHA_ID)}"


def differences(left: Plan) -> list[str]:
    """What is left of a plan that was carried out, for a person."""
    found = [*left.lost]
    for change in left.links:
        found.append(f"the settings of the network device {change.name}")
    for messages, text in (
        (left.addresses, describe_address),
        (left.nexthops, describe_nexthop),
        (left.routes, describe_route),
        (left.rules, describe_rule),
        (left.neighbours, describe_neighbour),
    ):
        found += [text(one) for one in messages]
    for messages, text in (
        (left.delete_addresses, describe_address),
        (left.delete_routes, describe_route),
        (left.delete_rules, describe_rule),
    ):
        found += [f"{text(one)}, which the original had no more" for one in messages]
    return found
