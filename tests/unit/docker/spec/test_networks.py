# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Networks, addresses and published ports."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec import networks as spec_networks
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.create import (
    creation_parameters,
    endpoint_plan,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.networks import (
    PublishedPort,
    networks,
    published_ports,
)
from tests.unit.docker.spec.samples import BY_HAND, ID, IMAGE, container, load

FRONT = "f" * 64
ASKED_MAC = "02:42:de:ad:be:ef"
ANY = [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32768"}]


def endpoint(**more: Any) -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Aliases": None,
        "NetworkID": FRONT,
        "IPAddress": "172.30.0.2",
        "GlobalIPv6Address": "2001:db8::2",
        "MacAddress": "02:42:ac:1e:00:02",
        **more,
    }


def on(mode: str, **endpoints: dict[str, Any]) -> dict[str, Any]:
    return container(host={"NetworkMode": mode}, networks=endpoints)


# ------------------------------------------------------------------------------------------------- which networks


@pytest.mark.parametrize(
    ("mode", "attached", "primary"),
    [
        ("front", ("back", "front"), "front"),
        (FRONT, ("back", "front"), "front"),
        (FRONT[:12], ("back", "front"), "front"),
        ("default", ("bridge",), "bridge"),
        ("gone", ("front", "back"), "back"),
        ("default", ("front", "back"), "back"),
    ],
    ids=["name", "id", "short id", "default", "left", "left the default"],
)
def test_primary_network(mode: str, attached: tuple[str, ...], primary: str) -> None:
    ids = {"front": FRONT, "back": "b" * 64, "bridge": "0" * 64}
    inspect = on(mode, **{name: endpoint(NetworkID=ids[name]) for name in attached})
    assert [network.primary for network in networks(inspect)] == [True] + [False] * (len(attached) - 1)
    assert networks(inspect)[0].name == primary
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")
    assert spec["body"]["HostConfig"]["NetworkMode"] == primary


def test_priority_decides_where_the_first_network_is_gone() -> None:
    inspect = on("gone", a=endpoint(), b=endpoint(GwPriority=10))
    assert networks(inspect)[0].name == "b"


@pytest.mark.parametrize("mode", ["host", "none"])
def test_no_endpoints_to_ask_for(mode: str) -> None:
    inspect = on(mode, **{mode: endpoint(IPAddress="", MacAddress="")})
    assert networks(inspect) == []
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")
    assert spec["body"]["HostConfig"]["NetworkMode"] == mode
    assert spec["body"]["NetworkingConfig"] == {"EndpointsConfig": {}}


# ------------------------------------------------------------------------------------------------- one endpoint


def test_merely_assigned_addresses_are_not_asked_for() -> None:
    (network,) = networks(on("front", front=endpoint()))
    assert (network.ipv4_requested, network.ipv6_requested) == ("", "")
    assert (network.ipv4_assigned, network.ipv6_assigned) == ("172.30.0.2", "2001:db8::2")
    assert endpoint_plan(on("front", front=endpoint()), "1.51").endpoints_at_create == {"front": {}}


def test_static_addresses_are_asked_for() -> None:
    ipam = {"IPv4Address": "172.30.0.50", "IPv6Address": "2001:db8::50", "LinkLocalIPs": ["169.254.1.2"]}
    inspect = on("front", front=endpoint(IPAMConfig=ipam))
    assert networks(inspect)[0].ipv4_requested == "172.30.0.50"
    assert networks(inspect)[0].ipv6_requested == "2001:db8::50"
    assert endpoint_plan(inspect, "1.51").endpoints_at_create["front"] == {"IPAMConfig": ipam}


def test_addresses_in_use_are_kept_where_the_caller_says_so() -> None:
    inspect = on("front", front=endpoint(), back=endpoint(IPAddress="172.31.0.2"))
    plan = endpoint_plan(inspect, "1.51", keep_addresses=["front"])
    assert plan.endpoints_at_create == {
        "front": {
            "IPAMConfig": {"IPv4Address": "172.30.0.2", "IPv6Address": "2001:db8::2"},
            "MacAddress": "02:42:ac:1e:00:02",
        },
        "back": {},
    }


def test_aliases_without_the_short_id() -> None:
    inspect = on("front", front=endpoint(Aliases=["web", ID[:12], "www", "web"]))
    assert networks(inspect)[0].aliases == ("web", "www")


@pytest.mark.parametrize(
    ("mac", "ipv4", "config", "origin"),
    [
        ("02:42:ac:1e:00:02", "172.30.0.2", "", "generated"),
        ("02:42:AC:1E:00:02", "172.30.0.2", "", "generated"),
        ("02:42:ac:1e:ff:01", "172.30.0.2", "02:42:AC:1e:ff:01", "requested"),
        ("02:42:ac:1e:00:02", "172.30.0.2", "02:42:ac:1e:00:02", "requested"),
        ("9a:1f:00:00:00:01", "172.30.0.2", "", "unknown"),
        ("00:16:3e:00:00:01", "172.30.0.2", "", "requested"),
        ("", "", "", "generated"),
        ("what", "172.30.0.2", "", "unknown"),
        ("02:42:ac:1e:00:02", "not an address", "", "unknown"),
    ],
)
def test_origin_of_a_mac_address(mac: str, ipv4: str, config: str, origin: str) -> None:
    inspect = on("front", front=endpoint(MacAddress=mac, IPAddress=ipv4))
    inspect["Config"]["MacAddress"] = config
    assert networks(inspect)[0].mac_origin == origin
    settings = endpoint_plan(inspect, "1.44").endpoints_at_create["front"]
    assert ("MacAddress" in settings) == (origin == "requested")


def test_the_container_wide_mac_address_is_that_of_its_own_network() -> None:
    inspect = on("front", front=endpoint(MacAddress=ASKED_MAC), back=endpoint(MacAddress=ASKED_MAC))
    inspect["Config"]["MacAddress"] = ASKED_MAC
    plan = endpoint_plan(inspect, "1.44")
    assert plan.endpoints_at_create["front"]["MacAddress"] == ASKED_MAC
    assert "MacAddress" not in plan.endpoints_at_create["back"]


def test_a_second_requested_mac_address_needs_1_44() -> None:
    inspect = on("front", front=endpoint(), back=endpoint(MacAddress="00:16:3e:00:00:01"))
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.43")
    assert [note["field"] for note in spec["unsupported_fields"]] == ["NetworkSettings.Networks.back.MacAddress"]


# ------------------------------------------------------------------------------------------------- several networks


def three() -> dict[str, Any]:
    return on("front", zone=endpoint(Aliases=["z"]), back=endpoint(Aliases=["b"]), front=endpoint(Aliases=["f"]))


def test_all_endpoints_at_create_from_1_44_on() -> None:
    plan = endpoint_plan(three(), "1.44")
    assert list(plan.endpoints_at_create) == ["front", "back", "zone"]
    assert plan.endpoints_to_connect == []


def test_the_others_are_connected_below_1_44() -> None:
    plan = endpoint_plan(three(), "1.43")
    assert plan.endpoints_at_create == {"front": {"Aliases": ["f"]}}
    assert plan.endpoints_to_connect == [
        {"network": "back", "settings": {"Aliases": ["b"]}},
        {"network": "zone", "settings": {"Aliases": ["z"]}},
    ]
    spec = creation_parameters(three(), image_id=IMAGE, api_version="1.43")
    assert spec["endpoints_to_connect"] == plan.endpoints_to_connect
    assert spec["body"]["NetworkingConfig"]["EndpointsConfig"] == plan.endpoints_at_create


def test_api_versions_are_numbers() -> None:
    assert endpoint_plan(three(), "1.9").endpoints_to_connect, "1.9 is older than 1.44"


# ------------------------------------------------------------------------------------------------- sysctls of eth0

SYSCTLS = {"net.core.somaxconn": "512", "net.ipv4.conf.eth0.log_martians": "1", "net.ipv6.conf.eth0.forwarding": "0"}
DRIVER_OPTION = "com.docker.network.endpoint.sysctls"


def test_interface_sysctls_go_to_the_endpoint() -> None:
    inspect = on("front", front=endpoint(DriverOpts={DRIVER_OPTION: "net.ipv4.conf.IFNAME.x=2", "other": "y"}))
    inspect["HostConfig"]["Sysctls"] = SYSCTLS
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.46")
    assert spec["body"]["HostConfig"]["Sysctls"] == {"net.core.somaxconn": "512"}
    options = spec["body"]["NetworkingConfig"]["EndpointsConfig"]["front"]["DriverOpts"]
    assert options == {
        DRIVER_OPTION: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.forwarding=0,net.ipv4.conf.IFNAME.x=2",
        "other": "y",
    }


def test_interface_sysctls_stay_below_1_46() -> None:
    inspect = on("front", front=endpoint())
    inspect["HostConfig"]["Sysctls"] = SYSCTLS
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.45")
    assert spec["body"]["HostConfig"]["Sysctls"] == SYSCTLS
    assert spec["body"]["NetworkingConfig"]["EndpointsConfig"] == {"front": {}}


def test_endpoint_sysctls_need_1_46() -> None:
    inspect = on("front", front=endpoint(DriverOpts={DRIVER_OPTION: "net.ipv4.conf.IFNAME.x=2"}))
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.45")
    assert [note["field"] for note in spec["unsupported_fields"]] == ["NetworkSettings.Networks.front.DriverOpts"]


# ------------------------------------------------------------------------------------------------- ports


def binding(port: str, ip: str = "") -> dict[str, str]:
    return {"HostIp": ip, "HostPort": port}


@pytest.mark.parametrize(
    ("asked", "bound", "sent"),
    [
        ([binding("81")], [binding("81", "0.0.0.0"), binding("81", "::")], [binding("81")]),
        ([binding("")], ANY, [binding("32768")]),
        ([binding("0")], ANY, [binding("32768")]),
        ([], ANY, [binding("32768")]),
        (None, ANY, [binding("32768")]),
        ([binding("32760-32770")], ANY, [binding("32768")]),
        ([binding("", "127.0.0.1")], [binding("32769", "127.0.0.1")], [binding("32769", "127.0.0.1")]),
        ([binding("")], [binding("32770", "127.0.0.1")], [binding("32770")]),
        ([binding("")], [binding("32770", "::")], [binding("32770")]),
        (
            [binding("")],
            [binding("49154", "0.0.0.0"), binding("49153", "::")],
            [binding("49154", "0.0.0.0"), binding("49153", "::")],
        ),
        ([binding("")], [binding("49154", "0.0.0.0")], [binding("49154")]),
        (
            [binding(""), binding("81")],
            [*ANY, binding("81", "0.0.0.0"), binding("81", "::")],
            [binding("81"), binding("32768")],
        ),
        (
            [binding(""), binding("")],
            [*ANY, binding("32769", "0.0.0.0"), binding("32769", "::")],
            [binding("32768"), binding("32769")],
        ),
        (
            [binding("32760-32770"), binding("8000-8010")],
            [binding("8005", "0.0.0.0"), binding("32768", "0.0.0.0")],
            [binding("32768"), binding("8005")],
        ),
        (
            [binding("9000", "192.0.2.1"), binding("", "127.0.0.1")],
            [binding("9000", "192.0.2.1"), binding("32771", "127.0.0.1")],
            [binding("9000", "192.0.2.1"), binding("32771", "127.0.0.1")],
        ),
    ],
    ids=[
        "fixed",
        "ephemeral",
        "zero",
        "empty list",
        "null list",
        "range",
        "ephemeral on an address",
        "address from the daemon",
        "IPv6 only",
        "numbers differ by family",
        "IPv4 only",
        "ephemeral beside fixed",
        "two ephemeral",
        "two ranges",
        "fixed and ephemeral on addresses",
    ],
)
def test_ports_are_pinned(asked: Any, bound: Any, sent: Any) -> None:
    inspect = container(host={"PortBindings": {"80/tcp": asked}}, ports={"80/tcp": bound})
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")
    assert spec["body"]["HostConfig"]["PortBindings"] == {"80/tcp": sent}
    changed = "HostConfig.PortBindings" in [change["field"] for change in spec["changes"]]
    assert changed == (asked != sent)


def test_published_ports_tell_what_was_pinned() -> None:
    inspect = container(
        host={"PortBindings": {"80/tcp": [binding("81")], "53/udp": [binding("")], "9/tcp": [binding("")]}},
        ports={"80/tcp": [binding("81", "0.0.0.0")], "53/udp": ANY, "9/tcp": None},
    )
    assert published_ports(inspect) == [
        PublishedPort("80/tcp", "", 81, False),
        PublishedPort("53/udp", "", 32768, True),
        PublishedPort("9/tcp", "", 0, False),
    ]


def test_a_port_of_unknown_number_is_asked_for_as_before() -> None:
    inspect = container(host={"PortBindings": {"80/tcp": [binding("81"), binding("")], "53/udp": []}})
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")
    assert spec["body"]["HostConfig"]["PortBindings"] == {
        "80/tcp": [binding("81"), binding("")],
        "53/udp": [binding("")],
    }


def test_publish_all_becomes_explicit() -> None:
    inspect = container(
        {"ExposedPorts": {"8080/tcp": {}, "9090/udp": {}, "80/tcp": {}}},
        {"PublishAllPorts": True, "PortBindings": {"80/tcp": [binding("81")]}},
        ports={"8080/tcp": ANY, "9090/udp": [binding("32769", "0.0.0.0")], "80/tcp": [binding("81", "0.0.0.0")]},
    )
    host = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")["body"]["HostConfig"]
    assert host["PortBindings"] == {
        "80/tcp": [binding("81")],
        "8080/tcp": [binding("32768")],
        "9090/udp": [binding("32769")],
    }
    assert host["PublishAllPorts"] is True


def test_publish_all_of_a_stopped_container() -> None:
    inspect = container({"ExposedPorts": {"8080/tcp": {}}}, {"PublishAllPorts": True, "PortBindings": {}})
    host = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")["body"]["HostConfig"]
    assert host["PortBindings"] == {}


def test_engine_20_10() -> None:
    inspect = load(BY_HAND)["inspect"]
    assert [(network.name, network.aliases, network.mac_origin) for network in networks(inspect)] == [
        ("shop_default", ("web",), "generated"),
        ("shop_metrics", ("exporter",), "generated"),
    ]
    spec = creation_parameters(inspect, image_id=IMAGE, api_version="1.41")
    assert spec["unknown_fields"] == []
    assert spec["unsupported_fields"] == []
    assert spec["name"] == "mwp"
    host = spec["body"]["HostConfig"]
    assert "ContainerIDFile" not in host
    assert host["PortBindings"]["443/tcp"] == [binding("49154", "0.0.0.0"), binding("49153", "::")]
    assert spec["body"]["NetworkingConfig"]["EndpointsConfig"] == {"shop_default": {"Aliases": ["web"]}}
    assert spec["endpoints_to_connect"] == [
        {
            "network": "shop_metrics",
            "settings": {"IPAMConfig": {"IPv4Address": "172.21.0.50"}, "Aliases": ["exporter"]},
        }
    ]


# ------------------------------------------------------------------------------------------------- addresses that stay


def _inspect(*, requested: str, assigned: str) -> dict[str, Any]:
    endpoint = {
        "NetworkID": "n1",
        "IPAMConfig": {"IPv4Address": requested} if requested else None,
        "IPAddress": assigned,
        "GlobalIPv6Address": "",
        "MacAddress": "",
        "Aliases": None,
        "Links": None,
        "DriverOpts": None,
    }
    return {
        "Id": "c" * 64,
        "HostConfig": {"NetworkMode": "lan"},
        "Config": {},
        "NetworkSettings": {"Networks": {"lan": endpoint}},
    }


@pytest.mark.parametrize(
    ("requested", "driver", "there", "reachable"),
    [
        ("198.51.100.7", "macvlan", True, True),
        ("198.51.100.7", "bridge", True, False),
        ("198.51.100.8", "macvlan", False, False),
        ("", "macvlan", False, False),
    ],
)
def test_which_addresses_stay(requested: str, driver: str, there: bool, reachable: bool) -> None:
    source = _inspect(requested=requested, assigned="198.51.100.7")
    copy = _inspect(requested=requested, assigned="")
    after = spec_networks.addresses_after(source, copy, {"lan": driver})
    assert (bool(after.there), bool(after.reachable)) == (there, reachable)
