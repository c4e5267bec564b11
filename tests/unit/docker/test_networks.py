# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Networks that are made anew, and networks that are there already."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import networks as docker_networks
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts.container import network_facts
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Case, Finding
from tests.unit.docker.spec.samples import container

# GET /networks/app of Docker 26.1.5, as it is.
APP: dict[str, Any] = {
    "Name": "app",
    "Id": "0123",
    "Created": "2026-11-23T03:00:00Z",
    "Scope": "local",
    "Driver": "bridge",
    "EnableIPv6": False,
    "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]},
    "Internal": False,
    "Attachable": False,
    "Ingress": False,
    "ConfigFrom": {"Network": ""},
    "ConfigOnly": False,
    "Containers": {"aa": {"Name": "web"}},
    "Options": {"com.docker.network.bridge.name": "app0"},
    "Labels": {"com.docker.compose.network": "app"},
}


def test_a_network_is_made_anew_as_it_is() -> None:
    assert docker_networks.creation_body(APP) == {
        name: APP[name]
        for name in ("Name", "Driver", "EnableIPv6", "Internal", "Attachable", "IPAM", "Options", "Labels")
    }


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_networks_that_every_engine_has_are_not_made(name: str) -> None:
    assert docker_networks.creation_body({**APP, "Name": name}) is None


@pytest.mark.parametrize("kind", [{"Scope": "swarm", "Driver": "overlay"}, {"Ingress": True}])
def test_networks_of_a_swarm_are_refused(kind: dict[str, Any]) -> None:
    with pytest.raises(MigrationError) as caught:
        docker_networks.creation_body({**APP, **kind})
    assert caught.value.code == "network_unsupported"
    assert "app" in caught.value.message


def _found(destination: dict[str, Any], addresses: list[str]) -> list[Finding]:
    """What the rule says of a container on APP with these static addresses, and of that network on its destination."""
    asked = {"IPv6Address" if ":" in address else "IPv4Address": address for address in addresses}
    inspect = container(host={"NetworkMode": "app"}, networks={"app": {"NetworkID": "a" * 64, "IPAMConfig": asked}})
    case = Case(
        container={"inspect": inspect, "networks": [{"name": "app", **network_facts(APP)}]},
        there={"networks": {"app": network_facts(destination)}},
    )
    (rule,) = [rule for rule in preflight_judge.rules() if rule.id == "network_differs"]
    return list(rule.findings(case))


def _with_subnets(*subnets: str, **changes: Any) -> dict[str, Any]:
    return {**APP, "IPAM": {"Config": [{"Subnet": subnet} for subnet in subnets]}, **changes}


@pytest.mark.parametrize(
    ("destination", "addresses"),
    [
        (APP, []),
        (APP, ["172.20.0.9"]),
        # Another subnet does not matter to who takes what he is given.
        (_with_subnets("10.0.0.0/8"), []),
        (_with_subnets("10.0.0.0/8", "fd00::/64"), ["10.1.2.3", "fd00::5"]),
        (_with_subnets("fd00::/64", "172.20.0.0/24"), ["172.20.0.9"]),
        # With host bits, as engines before 25 took and kept it.
        (_with_subnets("172.20.0.1/16"), ["172.20.0.9"]),
    ],
)
def test_a_network_that_is_there_fits(destination: dict[str, Any], addresses: list[str]) -> None:
    assert _found(destination, addresses) == []


@pytest.mark.parametrize(
    ("destination", "addresses", "reported"),
    [
        ({**APP, "Driver": "macvlan"}, [], "driver bridge on the source and macvlan"),
        (
            _with_subnets("10.0.0.0/8"),
            ["172.20.0.9"],
            "172.20.0.9 on network app, which the destination's network of that name (10.0.0.0/8)",
        ),
        (_with_subnets("10.0.0.0/8"), ["10.0.0.1", "172.20.0.9"], "172.20.0.9"),
        (_with_subnets("172.20.0.0/16"), ["fd00::5"], "fd00::5"),
        (_with_subnets(), ["172.20.0.9"], "(no subnet)"),
        ({**APP, "IPAM": {"Config": None}}, ["172.20.0.9"], "(no subnet)"),
        ({**APP, "IPAM": None}, ["172.20.0.9"], "(no subnet)"),
    ],
)
def test_a_network_that_is_there_does_not_fit(destination: dict[str, Any], addresses: list[str], reported: str) -> None:
    (finding,) = _found(destination, addresses)
    assert finding.rule == "network_differs"
    assert reported in finding.message
