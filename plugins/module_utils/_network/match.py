# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What of the source's network is what of the copy's: pure functions.

The engine gives a copy a network of its own, and on the destination that may be another one: other addresses, another gateway.
So a route that names the gateway has to name the copy's, and a rule for the address of the container has to be one for the
address that it has now. :class:`Match` knows which devices, addresses and networks stand for each other.
"""

from __future__ import annotations

import ipaddress
import typing as t

from . import state as network_state
from .state import INET, INET6, Link, State

Network = tuple[bytes, int]

_LENGTH = {INET: 4, INET6: 16}


class Endpoint(t.NamedTuple):
    """What the engine has given the container on one of its networks."""

    network: str
    mac: str
    addresses: dict[int, Network]
    """By address family: the address and the length of its prefix."""
    gateways: dict[int, bytes]
    """By address family."""

    @classmethod
    def parse(cls, name: str, settings: t.Mapping[str, t.Any]) -> Endpoint:
        """Out of an entry of ``NetworkSettings.Networks``, as inspect and the engine's own file of a container have it."""
        addresses: dict[int, Network] = {}
        gateways: dict[int, bytes] = {}
        for family, address, length, gateway in (
            (INET, "IPAddress", "IPPrefixLen", "Gateway"),
            (INET6, "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"),
        ):
            if settings.get(address):
                addresses[family] = (ipaddress.ip_address(settings[address]).packed, int(settings.get(length) or 0))
            if settings.get(gateway):
                gateways[family] = ipaddress.ip_address(settings[gateway]).packed
        return cls(name, str(settings.get("MacAddress") or "").lower(), addresses, gateways)


def endpoints(inspect: t.Mapping[str, t.Any]) -> list[Endpoint]:
    """All of a container.

    :param inspect: inspect data, or the engine's own file of a container.
    """
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    found = [Endpoint.parse(name, settings or {}) for name, settings in sorted(networks.items())]
    return [one for one in found if one.mac or one.addresses]


class NoCounterpartError(Exception):
    """Something on the source has nothing on the copy that stands for it; the text names it."""


def of_endpoints(state: State, made: t.Sequence[Endpoint]) -> dict[int, Endpoint]:
    """Which devices are the engine's, by number: what has an endpoint's MAC address, or its address; the rest by elimination."""
    found: dict[int, Endpoint] = {}
    left = [link for link in state.links if not link.is_loopback]
    waiting = list(made)

    def take(fits: t.Callable[[Link, Endpoint], bool]) -> None:
        for endpoint in list(waiting):
            link = next((one for one in left if fits(one, endpoint)), None)
            if link is not None:
                found[link.number] = endpoint
                left.remove(link)
                waiting.remove(endpoint)

    owned = {
        (
            network_state.ADDRESS_HEAD.unpack(one.head)[4],
            one.get(network_state.IFA_LOCAL) or one.get(network_state.IFA_ADDRESS),
        )
        for one in state.addresses
    }
    # What a container made has no other end outside of it. (A MAC address may be copied to a macvlan of its own.)
    take(lambda link, endpoint: bool(link.peer) and link.mac == endpoint.mac)
    take(
        lambda link, endpoint: any((link.number, address) in owned for address, _length in endpoint.addresses.values())
    )
    left = [link for link in left if link.peer]
    if len(left) == len(waiting):
        take(lambda link, endpoint: True)
    return found


class Match:
    """What stands for what.

    :param source: the source's network.
    :param made: what the engine made there.
    :param copy: the copy's, as the engine made it.
    """

    def __init__(self, source: State, made: t.Sequence[Endpoint], copy: State) -> None:
        self.source = source
        self.copy = copy
        self.engine_links = of_endpoints(source, made)
        self._links: dict[int, Link] = {}
        self._addresses: dict[bytes, bytes | None] = {}
        self._networks: dict[Network, Network] = {}
        self._match_links()
        for index, endpoint in self.engine_links.items():
            if index in self._links:
                self._match_addresses(endpoint, self._links[index])
        self.gateways = {gateway for endpoint in made for gateway in endpoint.gateways.values()}

    def _match_links(self) -> None:
        left = [link for link in self.copy.links if not link.is_loopback]

        def take(fits: t.Callable[[Link, Link, Endpoint], bool]) -> None:
            for index, endpoint in self.engine_links.items():
                link = self.source.link(index)
                if link is None or index in self._links:
                    continue
                other = next((one for one in left if fits(link, one, endpoint)), None)
                if other is not None:
                    self._links[index] = other
                    left.remove(other)

        for link in self.source.links:
            loopback = next((one for one in self.copy.links if one.is_loopback), None)
            if link.is_loopback and loopback is not None:
                self._links[link.number] = loopback
        # The engine may give them other names than at its last start. An address or a network stays a better sign.
        take(lambda _link, other, endpoint: bool(endpoint.addresses) and self.own(other) == endpoint.addresses)
        take(lambda _link, other, endpoint: bool(endpoint.mac) and other.mac == endpoint.mac)
        take(lambda _link, other, endpoint: _nets(self.own(other)) == _nets(endpoint.addresses))
        take(lambda link, other, _endpoint: other.name == link.name)
        take(lambda _link, _other, _endpoint: True)

    def _match_addresses(self, endpoint: Endpoint, other: Link) -> None:
        now = self.own(other)
        for family, (address, length) in endpoint.addresses.items():
            self._addresses[address] = now[family][0] if family in now else None
            if family in now:
                net, its_net = _net(address, length), _net(*now[family])
                self._networks[(net, length)] = (its_net, now[family][1])
                self._addresses[_broadcast(net, length)] = _broadcast(its_net, now[family][1])
        for family, gateway in endpoint.gateways.items():
            self._addresses[gateway] = self._gateway(family, gateway, other, now.get(family))

    def _gateway(self, family: int, gateway: bytes, other: Link, now: Network | None) -> bytes | None:
        for route in self.copy.routes:
            head = network_state.ROUTE_HEAD.unpack(route.head)
            found = route.get(network_state.RTA_GATEWAY)
            if head[0] == family and head[1] == 0 and route.number(network_state.RTA_OIF) == other.number and found:
                return found
        # Only one of several networks has the way out.
        if now is not None and _net(gateway, now[1]) == _net(*now):
            return gateway
        return None

    def own(self, link: Link) -> dict[int, Network]:
        """The addresses that the engine has given the copy on a device, by family."""
        found: dict[int, Network] = {}
        for one in self.copy.addresses:
            family, length, _flags, _scope, index = network_state.ADDRESS_HEAD.unpack(one.head)
            address = one.get(network_state.IFA_LOCAL) or one.get(network_state.IFA_ADDRESS)
            if index == link.number and address and not ipaddress.ip_address(address).is_link_local:
                found.setdefault(family, (address, length))
        return found

    # -- what stands for one thing --------------------------------------------------------------------------------

    def link(self, index: int) -> Link | None:
        """The copy's device that stands for one of the source."""
        return self._links.get(index)

    def device(self, index: int) -> int:
        """The number of the copy's device.

        :raises NoCounterpartError: there is none.
        """
        if index == 0:
            return 0
        found = self._links.get(index)
        if found is None:
            link = self.source.link(index)
            raise NoCounterpartError(f"the device {link.name if link else index}")
        return found.number

    def name(self, name: str) -> str:
        """The name of the copy's device, for one of the source; the same for one that is not there."""
        link = next((one for one in self.source.links if one.name == name), None)
        return self._links[link.number].name if link is not None and link.number in self._links else name

    def address(self, address: bytes) -> bytes:
        """The copy's address for one of the engine's on the source; every other one stays.

        :raises NoCounterpartError: the copy has none.
        """
        found = self.stands_for(address)
        if found is None:
            raise NoCounterpartError(f"the address {network_state.address_of(address)}")
        return found

    def stands_for(self, address: bytes) -> bytes | None:
        """The same; None where the copy has none."""
        return self._addresses.get(address, address)

    def prefix(self, address: bytes, length: int) -> Network:
        """The same for a destination: an address of the engine's, or the network of the container."""
        if length == len(address) * 8:
            return self.address(address), length
        return self._networks.get((address, length), (address, length))


def _net(address: bytes, length: int) -> bytes:
    width = len(address) * 8
    mask = ((1 << length) - 1) << (width - length)
    return (int.from_bytes(address, "big") & mask).to_bytes(len(address), "big")


def _broadcast(net: bytes, length: int) -> bytes:
    return (int.from_bytes(net, "big") | ((1 << (len(net) * 8 - length)) - 1)).to_bytes(len(net), "big")


def _nets(addresses: t.Mapping[int, Network]) -> dict[int, Network]:
    return {family: (_net(address, length), length) for family, (address, length) in addresses.items()}
