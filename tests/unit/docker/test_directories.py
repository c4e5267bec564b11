# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the directories of a container lie."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import directories
from tests.unit.helpers.support import CONTAINER


def _inspect(**changes: Any) -> dict[str, Any]:
    return {
        "Id": CONTAINER,
        "Name": "/web",
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/var/lib/docker/overlay2/x/diff"}},
        "HostConfig": {"LogConfig": {"Type": "json-file"}},
        **changes,
    }


def test_the_writable_layer_of_overlay2() -> None:
    assert directories.upper_directory(_inspect()) == "/var/lib/docker/overlay2/x/diff"


@pytest.mark.parametrize(
    ("driver", "reported"),
    [
        ({"Name": "btrfs", "Data": None}, "btrfs"),
        ({"Name": "vfs", "Data": {"UpperDir": "/x"}}, "vfs"),
        ({"Name": "overlay2", "Data": {}}, "overlay2"),
        ({"Name": "", "Data": None}, "containerd"),
        (None, "containerd"),
    ],
)
def test_other_storage_is_refused(driver: Any, reported: str) -> None:
    with pytest.raises(MigrationError) as caught:
        directories.upper_directory(_inspect(GraphDriver=driver))
    assert caught.value.code == "storage_unsupported"
    assert reported in caught.value.message


def test_places_are_made_of_checked_names_only() -> None:
    assert directories.container_directory("/data", CONTAINER) == f"/data/containers/{CONTAINER}"
    assert directories.checkpoint_directory("/data", CONTAINER, "c1") == f"/data/containers/{CONTAINER}/checkpoints/c1"
    for container, checkpoint in (
        ("../../etc", "c1"),
        (CONTAINER[:12], "c1"),
        (CONTAINER, "../.."),
        (CONTAINER, "a/b"),
        (CONTAINER, ""),
    ):
        with pytest.raises(MigrationError):
            directories.checkpoint_directory("/data", container, checkpoint)
