# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The view without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._spec import creation_parameters, redact
from tests.unit.spec.samples import CAPTURED, IMAGE, SECRET, container, load


def view(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    inspect = container(config, host, **more)
    return redact(creation_parameters(inspect, image_id=IMAGE, reference_image_id=IMAGE, api_version="1.51"))


SECRETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "environment": ({"Env": [f"DB_PASSWORD={SECRET}"]}, {}),
    "command": ({"Cmd": ["mysql", f"-p{SECRET}"]}, {}),
    "command in one word": ({"Cmd": [SECRET]}, {}),
    "entry point": ({"Entrypoint": ["/entry", SECRET]}, {}),
    "entry point in one word": ({"Entrypoint": [f"/entry {SECRET}"]}, {}),
    "entry point as text": ({"Entrypoint": f"/entry {SECRET}"}, {}),
    "shell": ({"Shell": ["/bin/sh", SECRET]}, {}),
    "health check": ({"Healthcheck": {"Test": ["CMD-SHELL", f"curl -u x:{SECRET} localhost"]}}, {}),
    "label": ({"Labels": {"traefik.http.middlewares.auth.basicauth.users": SECRET}}, {}),
    "log option": ({}, {"LogConfig": {"Type": "splunk", "Config": {"splunk-token": SECRET}}}),
    "annotation": ({}, {"Annotations": {"org.example": SECRET}}),
    "volume driver": (
        {},
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "share",
                    "Target": "/share",
                    "VolumeOptions": {
                        "Labels": {"a": SECRET},
                        "DriverConfig": {"Name": "cifs", "Options": {"o": f"password={SECRET}"}},
                    },
                }
            ]
        },
    ),
    "seccomp comment": ({}, {"SecurityOpt": [f'seccomp={{"comment":"{SECRET}"}}']}),
    "seccomp in the old spelling": ({}, {"SecurityOpt": [f'seccomp: {{"comment":"{SECRET}"}}']}),
    "field of the future": ({"Mood": {"a": SECRET}}, {"Gravity": [SECRET]}),
}


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret(name: str) -> None:
    config, host = SECRETS[name]
    assert SECRET in json.dumps(creation_parameters(container(config, host), image_id=IMAGE, api_version="1.51"))
    assert SECRET not in json.dumps(view(config, host))


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("Config", "Env"),
        ("Config", "Cmd"),
        ("Config", "Entrypoint"),
        ("Config", "Labels"),
        ("Config", "Healthcheck"),
        ("HostConfig", "LogConfig"),
        ("HostConfig", "SecurityOpt"),
        ("HostConfig", "Mounts"),
    ],
)
def test_a_shape_never_seen_is_not_shown(section: str, name: str) -> None:
    spec = creation_parameters(container(), image_id=IMAGE, api_version="1.51")
    body = spec["body"] if section == "Config" else spec["body"]["HostConfig"]
    for shape in (5, True):
        body[name] = shape
        shown = redact(spec)["body"]
        assert (shown if section == "Config" else shown["HostConfig"])[name] == "(not shown)"


@pytest.mark.parametrize("api_version", ["1.43", "1.51"])
def test_no_secret_in_endpoints(api_version: str) -> None:
    endpoint = {"NetworkID": "a" * 64, "DriverOpts": {"x": SECRET}, "Colour": SECRET}
    inspect = container(host={"NetworkMode": "a"}, networks={"a": endpoint, "b": endpoint})
    spec = creation_parameters(inspect, image_id=IMAGE, api_version=api_version)
    assert SECRET in json.dumps(spec)
    assert SECRET not in json.dumps(redact(spec))


@pytest.mark.parametrize("name", CAPTURED)
def test_no_secret_of_real_containers(name: str) -> None:
    fixture = load(name)
    inspect = fixture["inspect"]
    spec = creation_parameters(inspect, image_id=inspect["Image"], api_version=fixture["api_version"])
    text = json.dumps(redact(spec))
    assert SECRET not in text
    assert "from-image" not in text
    for entry in inspect["Config"]["Env"]:
        assert entry.split("=")[0] in text


def test_what_is_told() -> None:
    told = view(
        {
            "Env": ["B=1", "A=2", "UNSET"],
            "Cmd": ["-x", "-y"],
            "Entrypoint": ["/entry", "a", "b"],
            "Labels": {"z": "1", "a": "2"},
            "Healthcheck": {"Test": ["CMD", "/probe", "-x"], "Interval": 5},
        },
        {
            "LogConfig": {"Type": "gelf", "Config": {"gelf-address": "udp://192.0.2.1"}},
            "SecurityOpt": ["seccomp:unconfined", 'seccomp={"x":1}', "apparmor=none"],
            "Memory": 64,
        },
    )
    body = told["body"]
    assert body["Env"] == ["A", "B", "UNSET"]
    assert body["Cmd"] == "2 argument(s), not shown"
    assert body["Entrypoint"] == "/entry (and 2 argument(s), not shown)"
    assert body["Labels"] == ["a", "z"]
    assert body["Healthcheck"] == {"Test": ["CMD"], "Interval": 5}
    assert body["Image"] == "app:1"
    host = body["HostConfig"]
    assert host["LogConfig"] == {"Type": "gelf", "Config": ["gelf-address"]}
    assert host["SecurityOpt"][0] == "seccomp:unconfined"
    assert host["SecurityOpt"][1].startswith("seccomp=(profile of 7 characters, sha256 ")
    assert host["SecurityOpt"][2] == "apparmor=none"
    assert host["Memory"] == 64
    assert told["name"] == "one"
    assert told["restart_policy"]["Name"] == "no"


def test_mounts_are_told_without_their_options() -> None:
    (mount,) = view(*SECRETS["volume driver"])["body"]["HostConfig"]["Mounts"]
    assert mount == {
        "Type": "volume",
        "Source": "share",
        "Target": "/share",
        "VolumeOptions": {"Labels": ["a"], "DriverConfig": {"Name": "cifs", "Options": ["o"]}},
    }


@pytest.mark.parametrize("api_version", ["1.43", "1.51"])
def test_endpoints_are_told(api_version: str) -> None:
    endpoint = {"NetworkID": "a" * 64, "Aliases": ["x"], "DriverOpts": {"o": SECRET}}
    inspect = container(host={"NetworkMode": "a"}, networks={"a": endpoint, "b": endpoint})
    told = redact(creation_parameters(inspect, image_id=IMAGE, api_version=api_version))
    seen = {"Aliases": ["x"], "DriverOpts": ["o"]}
    at_create = told["body"]["NetworkingConfig"]["EndpointsConfig"]
    if api_version == "1.51":
        assert at_create == {"a": seen, "b": seen}
        assert told["endpoints_to_connect"] == []
    else:
        assert at_create == {"a": seen}
        assert told["endpoints_to_connect"] == [{"network": "b", "settings": seen}]


def test_the_specification_itself_is_not_changed() -> None:
    config, host = SECRETS["volume driver"]
    spec = creation_parameters(container(config, host), image_id=IMAGE, api_version="1.51")
    before = json.dumps(spec)
    redact(spec)
    assert json.dumps(spec) == before
