# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""User-defined networks: made anew on the destination as they are on the source, or recognised there. Pure functions."""

from __future__ import annotations

import ipaddress
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError

Inspect = t.Mapping[str, t.Any]

# Made by the engine itself, on every host.
PREDEFINED = frozenset({"bridge", "host", "none", "nat"})

# Fields of `docker network inspect` that POST /networks/create takes under the same name.
_COPIED = ("Name", "Driver", "EnableIPv4", "EnableIPv6", "Internal", "Attachable", "IPAM", "Options", "Labels")


def creation_body(network: Inspect) -> dict[str, t.Any] | None:
    """The body of POST /networks/create for a network like this one; None for those every engine has.

    :raises MigrationError: ``network_unsupported`` for swarm networks, which belong to a cluster and not to a host.
    """
    if network["Name"] in PREDEFINED:
        return None
    if network.get("Scope") == "swarm" or network.get("Ingress"):
        raise MigrationError(
            "network_unsupported",
            f"Network {network['Name']} belongs to a swarm; its containers are moved by the swarm itself.",
            network=network["Name"],
        )
    return {name: network[name] for name in _COPIED if network.get(name) is not None}


def _subnets(network: Inspect) -> list[str]:
    return sorted(entry["Subnet"] for entry in (network.get("IPAM") or {}).get("Config") or [] if entry.get("Subnet"))


def require_fit(source: Inspect, destination: Inspect, addresses: t.Iterable[str]) -> None:
    """Refuse a destination's network of the same name on which the container could not live as before.

    :param addresses: static addresses that the container asks for on it.
    :raises MigrationError: ``network_differs``.
    """
    name = source["Name"]
    if source["Driver"] != destination["Driver"]:
        raise MigrationError(
            "network_differs",
            f"Network {name} has the driver {source['Driver']} on the source and {destination['Driver']} on the destination.",
            network=name,
        )
    subnets = _subnets(destination)
    for address in addresses:
        if not any(ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False) for subnet in subnets):
            raise MigrationError(
                "network_differs",
                f"The container has the static address {address} on network {name}, which the destination's network of that "
                f"name ({', '.join(subnets) or 'no subnet'}) does not hold. Make that network anew there.",
                network=name,
            )
