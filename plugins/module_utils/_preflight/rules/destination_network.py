# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What of the destination's networks, addresses and ports stands in the way of one container: pure rules."""

from __future__ import annotations

import ipaddress
import typing as t

from ..._docker.spec.networks import ANY_ADDRESS, networks
from ..._network import sockets as network_sockets
from ..finding import ERROR, INFO, WARNING, Case, Told, rule

_Found = t.Iterator[Told]


@rule(ERROR, "a network of a swarm", "by reading", "container", "there")
def network_unsupported(case: Case) -> _Found:
    for network in (case.container or {})["networks"]:
        if network["scope"] == "swarm" or network["ingress"]:
            yield (
                f"Network {network['name']} belongs to a swarm; its containers are moved by the swarm itself.",
                "Put the container on a network of its host.",
            )


def _asked(case: Case) -> t.Iterator[tuple[str, list[str]]]:
    """Networks of the container, each with the static addresses that it asks for."""
    for network in networks(case.inspect):
        yield network.name, [one for one in (network.ipv4_requested, network.ipv6_requested) if one]


@rule(ERROR, "a network of the same name and another kind", "run", "container", "there")
def network_differs(case: Case) -> _Found:
    container, there = case.both_sides()
    here = {network["name"]: network for network in container["networks"]}
    for name, addresses in _asked(case):
        found = there["networks"].get(name)
        if found is None or name not in here:
            continue
        if found["driver"] != here[name]["driver"]:
            yield (
                f"Network {name} has the driver {here[name]['driver']} on the source and {found['driver']} on the destination.",
                "Make that network anew there.",
            )
            continue
        for address in addresses:
            if not any(_inside(address, subnet) for subnet in found["subnets"]):
                yield (
                    (
                        f"The container has the static address {address} on network {name}, which the destination's "
                        "network of that "
                        f"name ({', '.join(found['subnets']) or 'no subnet'}) does not hold."
                    ),
                    "Make that network anew there.",
                )


def _inside(address: str, subnet: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)


@rule(ERROR, "a static address that another container has there", "run", "container", "there", volatile=True)
def address_in_use(case: Case) -> _Found:
    _container, there = case.both_sides()
    for name, addresses in _asked(case):
        for address in set(addresses) & set((there["networks"].get(name) or {}).get("addresses_in_use", [])):
            yield (
                f"The container's static address {address} on network {name} is in use by another container of the destination.",
                "Stop that container, or give it another address.",
            )


@rule(ERROR, "a network whose addresses the destination uses otherwise", "run", "container", "there")
def network_overlaps(case: Case) -> _Found:
    _container, there = case.both_sides()
    for name, others in there["overlaps"].items():
        if others:
            yield (
                f"Network {name} has to be made on the destination, where its addresses are in use already: {', '.join(others)}.",
                "Take that network or route away there, or put the container on a network that both hosts have.",
            )


@rule(ERROR, "a network whose device the destination lacks", "run", "container", "there")
def network_parent_missing(case: Case) -> _Found:
    _container, there = case.both_sides()
    for parent in there["missing_parents"]:
        yield (
            f"A network of the container hangs on the device {parent}, which the destination does not have.",
            "Make the network there beforehand, on the device that leads to the same wire.",
        )


@rule(INFO, "a network that is made on the destination", "run", "container", "there")
def network_missing(case: Case) -> _Found:
    container, there = case.both_sides()
    missing = [one["name"] for one in container["networks"] if there["networks"].get(one["name"]) is None]
    if missing:
        yield (
            f"The destination lacks the network(s) {', '.join(missing)}.",
            "Nothing: they are made there as they are on the source.",
        )


# Networks on which containers find each other by no name.
_NAMELESS = ("bridge", "host", "none")


@rule(WARNING, "containers on the same network, which stay behind", "run", "container", "there")
def neighbours_stay(case: Case) -> _Found:
    container, there = case.both_sides()
    for network in container["networks"]:
        here = set(network.get("neighbours") or []) - set(
            (there["networks"].get(network["name"]) or {}).get("members") or []
        )
        if here and network["name"] not in _NAMELESS:
            yield (
                (
                    f"Other containers on the network {network['name']} stay behind: {', '.join(sorted(here))}. After the move "
                    f"they and {container['name']} do not find each other by name any more."
                ),
                (
                    "Move them to the same host as well, or have them find each other by other means (published ports, names in "
                    "DNS)."
                ),
            )


@rule(ERROR, "a published port that is taken", "run", "container", "there", volatile=True)
def port_taken(case: Case) -> _Found:
    _container, there = case.both_sides()
    if there["ports_taken"]:
        yield (
            f"Ports that the container publishes are taken on the destination: {', '.join(there['ports_taken'])}.",
            "Free them there (ss -lntup tells by whom), or re-create the container with others.",
        )


@rule(ERROR, "a published address that the destination does not have", "run", "container", "there")
def host_address_missing(case: Case) -> _Found:
    container, there = case.both_sides()
    wanted = {port["host_ip"] for port in container["ports"] if port["host_ip"] not in ANY_ADDRESS}
    missing = sorted(
        one for one in wanted if one not in there["addresses"] and not ipaddress.ip_address(one).is_loopback
    )
    if missing:
        yield (
            (
                f"Ports are published on {', '.join(missing)}, which the destination does not have: it could not start "
                "the container."
            ),
            "Give the destination that address, or re-create the container without it.",
        )


_NAMED = 3


@rule(
    ERROR,
    "sockets or addresses of IPv6, and a destination whose kernel has no IPv6",
    "socket(2), by reading",
    "destination",
    "container",
)
def ipv6_missing(case: Case) -> _Found:
    container = case.container or {}
    # Facts of another version do not tell.
    if (case.destination or {})["kernel"].get("ipv6", True):
        return
    addresses = [
        one for network in networks(case.inspect) for one in (network.ipv6_assigned, network.ipv6_requested) if one
    ]
    facts = container.get("sockets")
    sockets = network_sockets.of_plain(facts).six if facts is not None else ()
    if sockets:
        named = ", ".join(str(one) for one in sockets[:_NAMED])
        more = f" and {len(sockets) - _NAMED} more" if len(sockets) > _NAMED else ""
        yield (
            (
                f"Programs have sockets of IPv6 open ({named}{more}), and the destination's kernel has no IPv6: they cannot be "
                "made there. One that listens on [::] is such a socket even where all its clients come by IPv4."
            ),
            (
                "Boot the destination with IPv6 (without ipv6.disable=1), or have the program listen on IPv4 alone (0.0.0.0, for "
                "Java -Djava.net.preferIPv4Stack=true)."
            ),
        )
    if addresses:
        yield (
            f"The container has the IPv6 address {addresses[0]}, and the destination's kernel has no IPv6.",
            "Boot the destination with IPv6 (without ipv6.disable=1), or put the container on a network without it.",
        )
