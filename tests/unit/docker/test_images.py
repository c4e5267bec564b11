# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image is recognised whichever store has it, and is not mistaken for another one."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import images as docker_images
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine

CONFIG_DIGEST = "sha256:" + "5" * 64
MANIFEST = "sha256:" + "1" * 64
OTHER_MANIFEST = "sha256:" + "a" * 64
SECRET = "hunter2"
OWN_STORE = {"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]]}
CONTAINERD = {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}

# As Docker 28.5.2 shows the counter's image in containerd's store, and 26.1.5 in its own.
IN_CONTAINERD: dict[str, Any] = {
    "Id": MANIFEST,
    "RepoTags": ["app:1"],
    "RepoDigests": [f"app@{MANIFEST}"],
    "Architecture": "amd64",
    "Os": "linux",
    "Size": 2192680,
    "RootFS": {"Type": "layers", "Layers": ["sha256:" + "e" * 64, "sha256:" + "d" * 64]},
    "Config": {
        "Cmd": ["/usr/local/bin/counter"],
        "Env": ["PATH=/usr/bin", f"PASSWORD={SECRET}"],
        "ExposedPorts": {"8080/tcp": {}},
        "Labels": {"some": "", "other": "label"},
        "OnBuild": None,
        "User": "",
        "Volumes": None,
        "WorkingDir": "/",
    },
}
IN_OWN_STORE: dict[str, Any] = {
    **IN_CONTAINERD,
    "Id": CONFIG_DIGEST,
    "RepoDigests": [],
    "Size": 2028772,
    "Config": {
        **{key: value for key, value in IN_CONTAINERD["Config"].items() if key not in ("OnBuild", "User")},
        "Hostname": "",
        "AttachStdin": False,
        "Image": "",
        "Entrypoint": None,
        "Volumes": {},
    },
}


class Host:
    """An engine as far as images go."""

    def __init__(self, info: dict[str, Any], *images: dict[str, Any]) -> None:
        self._info = info
        self.images = [copy.deepcopy(image) for image in images]
        self.looked_up: list[str] = []

    def info(self) -> dict[str, Any]:
        return self._info

    def find_image(self, reference: str) -> dict[str, Any] | None:
        self.looked_up.append(reference)
        for image in self.images:
            if reference in (image["Id"], *image["RepoTags"], *image["RepoDigests"]):
                return image
        return None

    def image_ids(self) -> list[str]:
        return [image["Id"] for image in self.images]

    @property
    def engine(self) -> Engine:
        return cast("Engine", self)


def described(info: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    inspect = {"Image": image["Id"], "Config": {"Image": "app:1"}}
    return docker_images.describe(Host(info, image).engine, inspect)


def test_the_kinds_of_store() -> None:
    assert docker_images.store(OWN_STORE) == "graphdriver"
    assert docker_images.store(CONTAINERD) == "containerd"
    assert docker_images.store({}) == "graphdriver"


def test_one_image_is_one_in_both_stores() -> None:
    assert docker_images.identity(IN_CONTAINERD) == docker_images.identity(IN_OWN_STORE)


_CHANGES: dict[str, Any] = {
    "User": "nobody",
    "Env": ["PATH=/bin"],
    "Cmd": None,
    "Entrypoint": ["/entry"],
    "ExposedPorts": {},
    "Labels": {"some": ""},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"]},
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "Shell": ["/bin/sh"],
    "OnBuild": ["RUN true"],
}
CHANGED_CONFIG = [("Config", {**IN_CONTAINERD["Config"], name: changed}) for name, changed in _CHANGES.items()]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("Architecture", "arm64"),
        ("Os", "windows"),
        ("RootFS", {"Layers": ["sha256:" + "d" * 64, "sha256:" + "e" * 64]}),
        ("RootFS", {"Layers": ["sha256:" + "e" * 64]}),
        *CHANGED_CONFIG,
    ],
)
def test_another_content_is_another_image(part: str, value: Any) -> None:
    assert docker_images.identity({**IN_CONTAINERD, part: value}) != docker_images.identity(IN_CONTAINERD)


def test_the_description_of_a_containers_image() -> None:
    reported = described(CONTAINERD, IN_CONTAINERD)
    assert reported == {
        "id": MANIFEST,
        "identity": docker_images.identity(IN_CONTAINERD),
        "store": "containerd",
        "reference": "app:1",
        "tags": ["app:1"],
        "digests": [f"app@{MANIFEST}"],
        "size": 2192680,
    }
    assert SECRET not in str(reported)
    gone = docker_images.describe(Host(OWN_STORE).engine, {"Image": CONFIG_DIGEST, "Config": {"Image": "app:1"}})
    assert (gone["id"], gone["identity"], gone["tags"]) == (CONFIG_DIGEST, None, [])


def test_found_by_name_in_the_other_store() -> None:
    host = Host(OWN_STORE, IN_OWN_STORE)
    found = docker_images.find(host.engine, described(CONTAINERD, IN_CONTAINERD))
    assert found is not None
    assert found["Id"] == CONFIG_DIGEST
    there = Host(CONTAINERD, IN_CONTAINERD)
    back = docker_images.find(there.engine, described(OWN_STORE, IN_OWN_STORE))
    assert back is not None
    assert back["Id"] == MANIFEST


def test_found_whatever_it_is_called() -> None:
    other = {**IN_OWN_STORE, "Id": "sha256:" + "6" * 64, "Architecture": "arm64"}
    nameless = {**IN_OWN_STORE, "RepoTags": []}
    host = Host(OWN_STORE, other, nameless)
    found = docker_images.find(host.engine, described(CONTAINERD, IN_CONTAINERD))
    assert found is not None
    assert found["Id"] == CONFIG_DIGEST
    assert len(host.looked_up) == len(set(host.looked_up)), "nothing is looked up twice"


def test_a_name_alone_is_not_enough() -> None:
    other = {**IN_OWN_STORE, "RootFS": {"Layers": []}}
    assert docker_images.find(Host(OWN_STORE, other).engine, described(CONTAINERD, IN_CONTAINERD)) is None


def test_between_stores_of_one_kind_the_id_counts() -> None:
    """There save and load keep it, so the very image can be had, and the copy's inspect data is the source's."""
    wanted = described(CONTAINERD, IN_CONTAINERD)
    same = docker_images.find(Host(CONTAINERD, {**IN_CONTAINERD, "RepoTags": []}).engine, wanted)
    assert same is not None
    assert same["Id"] == MANIFEST
    assert (
        docker_images.find(Host(CONTAINERD, {**IN_CONTAINERD, "Id": OTHER_MANIFEST, "RepoDigests": []}).engine, wanted)
        is None
    )


def test_an_image_the_source_no_longer_has_is_found_by_id_only() -> None:
    wanted = {**described(CONTAINERD, IN_CONTAINERD), "identity": None}
    assert docker_images.find(Host(OWN_STORE, IN_OWN_STORE).engine, wanted) is None


FOREIGN = {**IN_CONTAINERD, "Id": OTHER_MANIFEST, "RepoTags": ["app:1", "app:2"], "RepoDigests": []}


def test_only_who_loses_the_last_name_gets_another_one() -> None:
    host = Host(CONTAINERD, FOREIGN)
    session = "20261123T235534Z-633823"
    kept = {OTHER_MANIFEST: f"livemigrate-kept:{session}-1"}
    assert docker_images.last_names(host.engine, {"app:1": OTHER_MANIFEST, "app:2": OTHER_MANIFEST}, session) == kept
    assert docker_images.last_names(host.engine, {"app:1": OTHER_MANIFEST, "new:1": None}, session) == {}
    assert docker_images.last_names(host.engine, {"new:1": None}, session) == {}
    own = Host(OWN_STORE, FOREIGN)
    assert docker_images.last_names(own.engine, {"app:1": OTHER_MANIFEST, "app:2": OTHER_MANIFEST}, session) == {}
