# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a move would break of what a container has open on the network: pure rules over what ``_sockets.py`` saw.

A connection goes on where the container keeps its address and that address is its own in the eyes of the other end. Every
other one is closed. For one that a client opened that is said, not refused: whoever moves a service from one host's
address to another's means its clients to come there, they are told by a reset, and under constant load there is no moment
without any. A connection that the container itself has opened, and keeps, is refused: its program may never open it again.
"""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._sockets import Address, Socket, Sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_checks import Finding
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_networks import networks

# Networks of one host: what leaves them carries the host's address, so that a connection knows the host, not the container.
_HIDDEN = ("bridge", "host", "null", "nat")
_NAMED = 3


class Addresses(t.NamedTuple):
    """What becomes of a container's addresses."""

    there: frozenset[Address]
    """Those that it will have on the destination too."""
    reachable: frozenset[Address]
    """Those of them at which others, who are not on its host, find it there as before."""

    def keep(self, connection: Socket) -> bool:
        """Whether a connection goes on: on an address at which it is found, or between two ends within the container."""
        return connection.address in self.reachable or connection.peer in self.there or connection.peer.is_loopback

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


def addresses_after(
    source: t.Mapping[str, t.Any], destination: t.Mapping[str, t.Any], drivers: t.Mapping[str, str]
) -> Addresses:
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


def _some(sockets: t.Sequence[Socket]) -> str:
    named = ", ".join(str(socket) for socket in sockets[:_NAMED])
    return named + (f" and {len(sockets) - _NAMED} more" if len(sockets) > _NAMED else "")


def refusals(
    sockets: Sockets, connections: t.Sequence[Socket], after: Addresses, *, close_connections: bool
) -> list[Finding]:
    """What forbids a move.

    :param connections: those to judge: what :func:`lasting` returns, so that a request under way does not count.
    :param close_connections: whether the user takes it that connections which cannot be kept are closed.
    """
    found = []
    bound = [socket for socket in sockets.bound if socket.bound_to not in after.there]
    if bound:
        found.append(
            Finding(
                "socket_bound_to_address",
                f"Programs are tied to an address that the container will not have on the destination: {_some(bound)}.",
                "Have them listen on any address (0.0.0.0, ::), or give the container a static address (--ip) on a network "
                "that is there on both hosts.",
            )
        )
    outgoing = [
        socket for socket in connections if socket.address not in after.reachable and not sockets.is_incoming(socket)
    ]
    if outgoing and not close_connections:
        found.append(
            Finding(
                "connections_break",
                f"The container has opened connections that its new address would break: {_some(outgoing)}.",
                "Give it a static address on a network that spans both hosts (macvlan, ipvlan), or set "
                "migrate_close_connections: true if its programs connect again by themselves.",
            )
        )
    if sockets.groups:
        found.append(
            Finding(
                "multicast_joined",
                "Programs have joined multicast groups, which a checkpoint does not hold: "
                f"{', '.join(sorted(str(group) for group in sockets.groups))}.",
                "Stop the program that did, or move the container by ordinary means.",
            )
        )
    if sockets.outside:
        found.append(
            Finding(
                "unix_stream_outside",
                f"Programs are connected to sockets of the host: {', '.join(sockets.outside)}.",
                "End these connections; their other end does not move.",
            )
        )
    return found


def warnings(sockets: Sockets, after: Addresses, *, close_connections: bool) -> list[Finding]:
    """What a person should know before a move: connections that will be closed, those of clients first of all."""
    closing = [
        socket
        for socket in sockets.connections
        if socket.address not in after.reachable and (close_connections or sockets.is_incoming(socket))
    ]
    if not closing:
        return []
    return [
        Finding(
            "connections_close",
            f"{len(closing)} connection(s) to the container will be reset, because its address changes: {_some(closing)}.",
            "Clients connect again at the new address. A static address on a network that spans both hosts keeps them.",
        )
    ]
