# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""User-defined networks: made anew on the destination as they are on the source, or recognised there. Pure functions."""

from __future__ import annotations

import typing as t

from .._base.errors import MigrationError

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
