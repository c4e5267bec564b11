# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replay of what real engines answered.

Each fixture holds a container of a real engine, the creation body that was made from it, and the container that a second real
engine made of that body. So these tests fail when the body changes (then the engines must be asked again), and when the
comparison no longer accepts what they made of it.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec import create as spec_create
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.create import creation_parameters
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.mounts import mounts
from tests.unit.docker.spec.samples import BY_HAND, CAPTURED, load
from tests.workloads.inspect_comparison import compare, unexpected


def create(fixture: dict[str, Any]) -> Any:
    inspect = fixture["inspect"]
    return creation_parameters(
        inspect,
        image_id=inspect["Image"],
        reference_image_id=inspect["Image"],
        api_version=fixture["api_version"],
    )


def test_there_are_fixtures_of_both_engines() -> None:
    assert {load(name)["made_by"].split(",")[0] for name in CAPTURED} >= {"docker 26.1.5", "docker 28.5.2"}
    assert len(CAPTURED) >= 12


@pytest.mark.parametrize("name", CAPTURED)
def test_the_body_is_the_one_that_was_tried(name: str) -> None:
    fixture = load(name)
    spec = create(fixture)
    assert spec["body"] == fixture["body"]
    assert spec["endpoints_to_connect"] == fixture["endpoints_to_connect"]
    assert spec["unknown_fields"] == []
    assert spec["unsupported_fields"] == []


@pytest.mark.parametrize("name", CAPTURED)
def test_what_the_engine_made_of_it_is_the_same_container(name: str) -> None:
    fixture = load(name)
    found = compare(fixture["inspect"], fixture["copy"], api_version=fixture["api_version"])
    assert unexpected(found) == []
    assert {"Id", "Created"} <= {difference.path for difference in found}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_second_move_changes_nothing_more(name: str) -> None:
    fixture = load(name)
    once = {change["field"] for change in create(fixture)["changes"]}
    twice = {change["field"] for change in create({**fixture, "inspect": fixture["copy"]})["changes"]}
    # The restart policy is noted apart every time, and inspect goes on showing a requested MAC address in both places.
    assert twice <= once & {"HostConfig.RestartPolicy", "Config.MacAddress", "Config.Entrypoint"}


@pytest.mark.parametrize("name", CAPTURED)
def test_volumes_keep_their_names(name: str) -> None:
    fixture = load(name)
    before = {mount.destination: mount.name for mount in mounts(fixture["inspect"])}
    after = {mount.destination: mount.name for mount in mounts(fixture["copy"])}
    assert before == after
    assert any(before.values())


def _without(path: str, fixture: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(spec_create.TRANSFORMS, path, lambda value, context: value)
    return create(fixture)["body"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("26.1.5-article", "HostConfig.RestartPolicy"),
        ("26.1.5-plain", "HostConfig.Mounts"),
        ("26.1.5-volumes-from", "HostConfig.VolumesFrom"),
        ("26.1.5-left-its-network", "HostConfig.NetworkMode"),
        ("28.5.2-network-by-id", "HostConfig.NetworkMode"),
        ("26.1.5-interface-sysctl", "HostConfig.Sysctls"),
        ("28.5.2-publish-all", "HostConfig.PortBindings"),
        ("28.5.2-publish-all", "Config.Entrypoint"),
    ],
)
def test_each_transform_matters(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = load(name)
    assert _without(path, fixture, monkeypatch) != fixture["body"]


@pytest.mark.parametrize("name", [BY_HAND, *CAPTURED])
def test_the_inspect_data_is_not_changed(name: str) -> None:
    fixture = load(name)
    inspect = fixture["inspect"]
    before = copy.deepcopy(inspect)
    create({"api_version": "1.45", **fixture})
    compare(inspect, fixture.get("copy", inspect))
    assert inspect == before
