# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts: what is there, and that the same set is asked for with the same names."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.create import creation_parameters
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.mounts import Mount, mounts
from tests.unit.docker.spec.samples import BY_HAND, IMAGE, container, load, volume

RANDOM = "9d2b7c0b6f8f5a0a9b1c2d3e4f5061728394a5b6c7d8e9f00112233445566778"


def bind(source: str, destination: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Destination": destination,
        "Mode": "",
        "RW": True,
        "Propagation": "rprivate",
        **more,
    }


def sent(inspect: dict[str, Any]) -> dict[str, Any]:
    host: dict[str, Any] = creation_parameters(inspect, image_id=IMAGE, api_version="1.51")["body"]["HostConfig"]
    return host


def named(mount: dict[str, Any]) -> dict[str, Any]:
    return {"VolumeOptions": {"NoCopy": True}, "Type": "volume", **mount}


def test_all_kinds() -> None:
    inspect = container(
        host={
            "Binds": ["data:/data:ro", "/srv:/srv/:rw,rslave"],
            "Mounts": [{"Type": "tmpfs", "Target": "/scratch"}],
            "Tmpfs": {"/run/": "ro,size=64k"},
        },
        mounts=[
            volume("data", "/data", Mode="ro", RW=False),
            bind("/srv", "/srv", Mode="rw,rslave", Propagation="rslave"),
            {"Type": "tmpfs", "Source": "", "Destination": "/scratch", "Mode": "", "RW": True, "Propagation": ""},
            volume(RANDOM, "/var/www/html"),
        ],
    )
    found = mounts(inspect)
    assert [(mount.kind, mount.name, mount.destination, mount.declared_by) for mount in found] == [
        ("volume", "data", "/data", "Binds"),
        ("tmpfs", "", "/run", "Tmpfs"),
        ("tmpfs", "", "/scratch", "Mounts"),
        ("bind", "", "/srv", "Binds"),
        ("volume", RANDOM, "/var/www/html", ""),
    ]
    assert [mount.read_write for mount in found] == [False, False, True, True, True]
    assert found[0].source == "/var/lib/docker/volumes/data/_data"
    assert found[1].mode == "ro,size=64k"
    assert found[3].propagation == "rslave"
    assert [mount.anonymous for mount in found] == [False, False, False, False, True]


@pytest.mark.parametrize("host", [{}, {"Binds": ["/anon"]}], ids=["image's", "bare bind"])
def test_an_anonymous_volume_is_asked_for_by_name(host: dict[str, Any]) -> None:
    inspect = container({"Volumes": {"/anon": {}}}, host, mounts=[volume(RANDOM, "/anon")])
    result = sent(inspect)
    assert result["Mounts"] == [named({"Source": RANDOM, "Target": "/anon"})]
    assert result.get("Binds", []) == []


def test_binds_stay_as_they_are() -> None:
    binds = ["data:/data", "/srv:/srv:ro,Z", "more:/more/:nocopy"]
    inspect = container(
        host={"Binds": [*binds, "/anon"]},
        mounts=[volume("data", "/data"), bind("/srv", "/srv"), volume("more", "/more"), volume(RANDOM, "/anon")],
    )
    result = sent(inspect)
    assert result["Binds"] == binds
    assert result["Mounts"] == [named({"Source": RANDOM, "Target": "/anon"})]


def test_an_anonymous_mount_keeps_its_options() -> None:
    options = {"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}}
    inspect = container(
        host={"Mounts": [{"Type": "volume", "Target": "/anon/", "VolumeOptions": options}]},
        mounts=[volume(RANDOM, "/anon")],
    )
    assert sent(inspect)["Mounts"] == [
        {"Type": "volume", "Source": RANDOM, "Target": "/anon/", "VolumeOptions": {**options, "NoCopy": True}}
    ]


def test_a_named_mount_is_not_touched() -> None:
    entries = [
        {"Type": "volume", "Source": "data", "Target": "/data"},
        {"Type": "bind", "Source": "/srv", "Target": "/srv", "ReadOnly": True},
        {"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 1016}},
    ]
    tmpfs = {"Type": "tmpfs", "Source": "", "Destination": "/scratch", "Mode": "", "RW": True, "Propagation": ""}
    inspect = container(
        host={"Mounts": entries}, mounts=[volume("data", "/data"), bind("/srv", "/srv", RW=False), tmpfs]
    )
    assert sent(inspect)["Mounts"] == entries


def test_volumes_from_becomes_explicit() -> None:
    inspect = container(
        host={"VolumesFrom": ["data:ro"]},
        mounts=[
            volume("shared", "/shared", RW=False),
            volume("remote", "/remote", Driver="nfs"),
            bind("/srv", "/srv", RW=False, Propagation="rslave"),
            bind("/tmp", "/tmp", Propagation=""),
        ],
    )
    result = sent(inspect)
    assert result["VolumesFrom"] is None
    nfs = {"NoCopy": True, "DriverConfig": {"Name": "nfs"}}
    assert result["Mounts"] == [
        {"Type": "volume", "Source": "remote", "Target": "/remote", "VolumeOptions": nfs},
        named({"Source": "shared", "Target": "/shared", "ReadOnly": True}),
        {
            "Type": "bind",
            "Source": "/srv",
            "Target": "/srv",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave"},
        },
        {"Type": "bind", "Source": "/tmp", "Target": "/tmp"},
    ]


def test_a_second_move_asks_for_the_same() -> None:
    inspect = container({"Volumes": {"/anon": {}}}, mounts=[volume(RANDOM, "/anon")])
    first = sent(inspect)
    inspect["HostConfig"]["Mounts"] = first["Mounts"]
    inspect["Mounts"][0]["Mode"] = "z"
    assert sent(inspect)["Mounts"] == first["Mounts"]


def test_nothing_mounted() -> None:
    assert "Mounts" not in sent(container())


def test_engine_20_10() -> None:
    inspect = load(BY_HAND)["inspect"]
    found: dict[str, Mount] = {mount.destination: mount for mount in mounts(inspect)}
    assert found["/var/www/html"].anonymous
    assert found["/var/www/html/wp-content"].name == "wp-content"
    assert not found["/etc/app"].read_write
    assert [mount["Target"] for mount in sent(inspect)["Mounts"]] == ["/var/www/html"]
