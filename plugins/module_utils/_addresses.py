# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What becomes of a container's addresses: which it keeps, and at which it is found as before. Pure functions."""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._sockets import Address, Socket
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_networks import networks

# Networks of one host: what leaves them carries the host's address, so that a connection knows the host, not the container.
_HIDDEN = ("bridge", "host", "null", "nat")


class Addresses(t.NamedTuple):
    """What becomes of a container's addresses."""

    there: frozenset[Address]
    """Those that it will have on the destination too."""
    reachable: frozenset[Address]
    """Those of them at which others, who are not on its host, find it there as before."""

    def keep(self, connection: Socket) -> bool:
        """Whether a connection goes on: on an address at which it is found, or between two ends within the container."""
        return connection.address in self.reachable or connection.peer in self.there or connection.peer.is_loopback

    def and_made_inside(self, addresses: t.Iterable[str]) -> Addresses:
        """With the addresses that programs have set inside: they are carried over, so that sockets may be bound to them.

        :param addresses: see ``_network_facts.py``.
        """
        return self._replace(there=self.there | {ipaddress.ip_address(one) for one in addresses})

    def as_data(self) -> dict[str, list[str]]:
        """As plain data."""
        return {"there": sorted(map(str, self.there)), "reachable": sorted(map(str, self.reachable))}

    @classmethod
    def parse(cls, data: t.Mapping[str, t.Sequence[str]]) -> Addresses:
        """Back from plain data.

        :raises ValueError: for what is no address.
        """
        there, reachable = (frozenset(map(ipaddress.ip_address, data.get(key, ()))) for key in ("there", "reachable"))
        return cls(there, reachable)


NO_ADDRESSES = Addresses(frozenset(), frozenset())


def after(source: t.Mapping[str, t.Any], destination: t.Mapping[str, t.Any], drivers: t.Mapping[str, str]) -> Addresses:
    """Compare the addresses that a container has with those that its copy, created and not started, has asked for.

    :param drivers: the driver of each network of the copy, by name, on the destination.
    """
    asked = {network.name: network for network in networks(destination)}
    there: set[Address] = set()
    reachable: set[Address] = set()
    for network in networks(source):
        copy = asked.get(network.name)
        if copy is None:
            continue
        pairs = ((network.ipv4_assigned, copy.ipv4_requested), (network.ipv6_assigned, copy.ipv6_requested))
        same = {ipaddress.ip_address(now) for now, wanted in pairs if now and wanted and _same(now, wanted)}
        there |= same
        if drivers.get(network.name, "bridge") not in _HIDDEN:
            reachable |= same
    return Addresses(frozenset(there), frozenset(reachable))


def _same(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)
