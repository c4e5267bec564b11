# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a move would break of what a container has open on the network: pure rules over what ``_network/sockets.py`` saw.

A connection goes on where the container keeps its address and that address is its own in the eyes of the other end. Every
other one is closed. For one that a client opened that is said, not refused: whoever moves a service from one host's
address to another's means its clients to come there, they are told by a reset, and under constant load there is no moment
without any. A connection that the container itself has opened, and keeps, is refused: its program may never open it again.
"""

from __future__ import annotations

import typing as t

from ..._docker.spec import networks as spec_networks
from ..._network import sockets as network_sockets
from ..._network.addresses import Addresses
from ..._network.sockets import Socket, Sockets
from .. import finding
from ..finding import ERROR, INFO, WARNING, Case, Told, rule

_Found = t.Iterator[Told]

_NAMED = 3


class View(t.NamedTuple):
    """What rules about the network judge."""

    sockets: Sockets
    #: those connections that are there in two looks
    connections: tuple[Socket, ...]
    after: Addresses
    close_connections: bool


def view(container: finding.Facts, there: finding.Facts | None, *, close_connections: bool) -> View | None:
    """The view, from the facts of criu_check about a container and about the destination; None where the sockets could not be
    read.

    The copy asks for the same addresses as the container did. On a network that the destination does not have it is made
    as it is on the source.
    """
    if container.get("sockets") is None:
        return None
    drivers = {network["name"]: network["driver"] for network in container["networks"]}
    for name, network in ((there or {}).get("networks") or {}).items():
        if network is not None:
            drivers[name] = network["driver"]
    return View(
        network_sockets.of_plain(container["sockets"]),
        tuple(network_sockets.socket_of(fields) for fields in container["lasting"]),
        spec_networks.addresses_after(container["inspect"], container["inspect"], drivers).and_made_inside(
            (container.get("network_made") or {}).get("addresses", ())
        ),
        close_connections,
    )


def _some(sockets: t.Sequence[Socket]) -> str:
    named = ", ".join(str(socket) for socket in sockets[:_NAMED])
    return named + (f" and {len(sockets) - _NAMED} more" if len(sockets) > _NAMED else "")


@rule(ERROR, "sockets that are bound to an address which changes", "criu#735, run", "network", volatile=True)
def socket_bound_to_address(case: Case) -> _Found:
    bound = [socket for socket in case.network.sockets.bound if socket.bound_to not in case.network.after.there]
    if bound:
        yield (
            f"Programs are tied to an address that the container will not have on the destination: {_some(bound)}.",
            (
                "Have them listen on any address (0.0.0.0, ::), or give the container a static address (--ip) on a network "
                "that is there on both hosts."
            ),
        )


@rule(
    ERROR,
    "lasting connections that the container has opened and that cannot be kept",
    "docs/decisions/0047",
    "network",
    variable="migrate_close_connections",
    volatile=True,
)
def connections_break(case: Case) -> _Found:
    seen: View = case.network
    outgoing = [
        socket
        for socket in seen.connections
        if socket.address not in seen.after.reachable and not seen.sockets.is_incoming(socket)
    ]
    if outgoing and not seen.close_connections:
        yield (
            f"The container has opened connections that its new address would break: {_some(outgoing)}.",
            (
                "Give it a static address on a network that spans both hosts (macvlan, ipvlan), or set "
                "migrate_close_connections: true if its programs connect again by themselves."
            ),
        )


@rule(ERROR, "multicast groups that programs have joined", "run", "network", volatile=True)
def multicast_joined(case: Case) -> _Found:
    groups = case.network.sockets.groups
    if groups:
        yield (
            (
                "Programs have joined multicast groups, which a checkpoint does not hold: "
                f"{', '.join(sorted(str(group) for group in groups))}."
            ),
            "Stop the program that did, or move the container by ordinary means.",
        )


@rule(WARNING, "multicast groups in a shared network that programs may have joined", "by reading", "network")
def multicast_unknown(case: Case) -> _Found:
    groups = case.network.sockets.unknown_groups
    if groups:
        yield (
            (
                "In the network that the container shares with others somebody has joined multicast groups: "
                f"{', '.join(sorted(str(group) for group in groups))}. It is not known whether that was a program of the "
                "container, some of which hold UDP or raw sockets. A checkpoint holds no such membership."
            ),
            (
                "If one has joined them (programs for mDNS and DLNA do), move the container by ordinary means: the copy would "
                "not receive what is sent to these groups."
            ),
        )


@rule(ERROR, "unix streams to programs outside of the container", "criu#284, run", "network", volatile=True)
def unix_stream_outside(case: Case) -> _Found:
    outside = case.network.sockets.outside
    if outside:
        yield (
            f"Programs are connected to sockets of the host: {', '.join(outside)}.",
            "End these connections; their other end does not move.",
        )


@rule(WARNING, "connections that will be reset", "docs/decisions/0047", "network")
def connections_close(case: Case) -> _Found:
    seen: View = case.network
    closing = [
        socket
        for socket in seen.sockets.connections
        if socket.address not in seen.after.reachable and (seen.close_connections or seen.sockets.is_incoming(socket))
    ]
    if closing:
        yield (
            f"{len(closing)} connection(s) to the container will be reset, because its address changes: {_some(closing)}.",
            "Clients connect again at the new address. A static address on a network that spans both hosts keeps them.",
        )


@rule(INFO, "connections that go on", "docs/decisions/0043", "network")
def connections_kept(case: Case) -> _Found:
    kept = [one for one in case.network.connections if one.address in case.network.after.reachable]
    if kept:
        yield f"{len(kept)} connection(s) keep their address: {_some(kept)}.", "Nothing: they can go on after the move."


RULES = tuple(each for each in finding.RULES.values() if each.judge.__module__ == __name__)


def judge(view: View, severity: str, ignore: t.Container[str] = ()) -> list[finding.Finding]:
    """What the rules of one severity say of a network alone.

    :param ignore: ids of rules that are not asked.
    """
    return finding.findings(Case(network=view), ignore, [each for each in RULES if each.severity == severity])


# Not in RULES: the step before the freeze asks this by itself, see _network/fence.py.
@rule(ERROR, "a network namespace that others share", "docs/decisions/0036", "container", volatile=True)
def network_strangers(case: Case) -> _Found:
    strangers = (case.container or {}).get("strangers") or []
    if strangers:
        yield (
            (
                f"Processes that are not the container's are in its network namespace ({', '.join(map(str, strangers[:5]))}); it "
                "cannot be closed for the moment of the move without closing it for them."
            ),
            "End them, or stop the containers that use its network (--network container:).",
        )
