# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What becomes of a container's addresses: which it keeps, and at which it is found as before. Pure functions."""

from __future__ import annotations

import ipaddress
import typing as t

from .sockets import Address, Socket


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

        :param addresses: see ``_preflight/facts/network.py``.
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
