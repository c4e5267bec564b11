# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is gathered of a destination: its networks, its ports, and what lies where a mount would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import left_data
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
    destination as facts_of_destination,
)
from tests.unit.preflight.samples import network

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010312C6\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000312C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes() -> None:
    assert facts_of_destination.parse_routes(ROUTES) == ["172.17.0.0/16", "198.18.3.0/24"]


@pytest.mark.parametrize(
    ("subnets", "found"),
    [
        (["172.17.5.0/24"], ["172.17.0.0/16"]),
        (["0.0.0.0/1", "128.0.0.0/1"], ["172.17.0.0/16", "198.18.3.0/24"]),
        (["10.0.0.0/8"], []),
        (["fd00::/64"], []),
        ([], []),
    ],
)
def test_overlaps(subnets: list[str], found: list[str]) -> None:
    assert facts_of_destination.overlapping(subnets, ["172.17.0.0/16", "198.18.3.0/24"]) == found


@pytest.mark.parametrize(
    ("driver", "there", "reported"),
    [
        ("bridge", None, {"app": ["198.18.3.0/24"]}),
        # Its subnet is the wire's, on which both hosts are.
        ("macvlan", None, {}),
        ("ipvlan", None, {}),
        ("bridge", {}, {}),
    ],
)
def test_a_network_on_the_hosts_own_wire_overlaps_nothing(
    driver: str, there: dict[str, Any] | None, reported: dict[str, list[str]]
) -> None:
    wanted = [network("app", driver=driver, subnets=["198.18.3.0/24"])]
    assert facts_of_destination.overlaps(wanted, {"app": there}, ["172.17.0.0/16", "198.18.3.0/24"]) == reported


@pytest.mark.parametrize(
    ("parent", "missing"),
    [
        ("eth0", False),
        ("eth1", True),
        ("", False),
        # The engine makes it.
        ("eth0.50", False),
        ("eth0.4094", False),
        ("eth0.4095", True),
        ("eth0.0", True),
        ("eth1.50", True),
        ("eth0.50.1", True),
        ("eth0.x", True),
        ("lan.7", False),
    ],
)
def test_the_device_of_a_network(parent: str, missing: bool) -> None:
    wanted = [network("app", driver="macvlan", parent=parent)]
    devices = ["lo", "eth0", "lan.7"]
    assert facts_of_destination.missing_parents(wanted, {"app": None}, devices) == [parent] * missing
    assert facts_of_destination.missing_parents(wanted, {"app": {}}, devices) == []


def test_the_devices_of_this_machine() -> None:
    assert "lo" in facts_of_destination._devices()


def _port(port: int = 80, host_ip: str = "", protocol: str = "tcp") -> dict[str, Any]:
    return {"port": f"8080/{protocol}", "host_ip": host_ip, "host_port": port}


def _listener(port: int = 80, address: str = "0.0.0.0", protocol: str = "tcp", **more: str) -> dict[str, Any]:
    return {"protocol": protocol, "address": address, "port": port, **more}


@pytest.mark.parametrize(
    ("port", "listener", "free"),
    [
        (_port(), _listener(), False),
        (_port(), _listener(address="::"), False),
        (_port(), _listener(address="192.0.2.1"), False),
        (_port(host_ip="0.0.0.0"), _listener(address="192.0.2.1"), False),
        (_port(host_ip="192.0.2.1"), _listener(), False),
        (_port(host_ip="192.0.2.1"), _listener(address="192.0.2.1"), False),
        (_port(host_ip="192.0.2.2"), _listener(address="192.0.2.1"), True),
        (_port(), _listener(81), True),
        (_port(), _listener(protocol="udp"), True),
        (_port(protocol="udp"), _listener(protocol="udp"), False),
        (_port(0), _listener(0), True),
    ],
)
def test_taken_ports(port: dict[str, Any], listener: dict[str, Any], free: bool) -> None:
    assert (facts_of_destination.taken([port], [listener]) == []) is free


def test_a_container_that_has_the_port_is_named() -> None:
    found = facts_of_destination.taken([_port()], [_listener(), _listener(container="web"), _listener()])
    assert found == ["tcp port 80 (container web)"]


def test_content(tmp_path: Path) -> None:
    assert not facts_of_destination.has_content(str(tmp_path))
    assert not facts_of_destination.has_content(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    assert facts_of_destination.has_content(str(tmp_path))
    assert facts_of_destination.has_content(str(tmp_path / "file"))


def test_what_lies_at_a_bind_mounts_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    paths = {name: str(tmp_path / name) for name in ("full", "link", "none")}
    entries = [{"kind": "bind", "path": path} for path in paths.values()]
    # Nobody is asked who uses what does not travel.
    unasked: Any = None
    found = facts_of_destination.binds(unasked, entries, {paths["link"]: [left_data.note(paths["link"])]}, ())
    full = {
        "exists": True,
        "is_directory": True,
        "is_file": False,
        "has_content": True,
        "has_base": True,
        "leads_to": "",
        "host_directory": "",
        "reaches_shared": False,
        "used_by": [],
    }
    assert found[paths["full"]] == full
    # What an earlier move has left there is the container's own.
    assert found[paths["link"]] == {**full, "has_content": False, "leads_to": paths["full"]}
    assert found[paths["none"]]["exists"] is False


def test_a_bind_mount_whose_path_leads_to_a_directory_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("/etc")
    paths = {str(tmp_path / "data"): "directory", str(tmp_path / "data" / "passwd"): "file"}
    entries = [{"kind": "bind", "path": path, "form": form} for path, form in paths.items()]
    unasked: Any = None
    found = facts_of_destination.binds(unasked, entries, {}, ())
    assert [found[path]["host_directory"] for path in paths] == ["/etc", "/etc"]
