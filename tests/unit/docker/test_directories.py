# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the directories of a container lie, and whose clock and whose content they have."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import directories
from ansible_collections.livemigrate.criu.plugins.module_utils._host import filesystems
from tests.unit.helpers.support import CONTAINER


def _inspect(**changes: Any) -> dict[str, Any]:
    return {
        "Id": CONTAINER,
        "Name": "/web",
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/var/lib/docker/overlay2/x/diff"}},
        "HostConfig": {"LogConfig": {"Type": "json-file"}},
        **changes,
    }


# -- where things lie ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("filesystem", "options", "shared"),
    [
        ("ext4", {}, False),
        ("xfs", {"type": "none", "o": "bind", "device": "/srv"}, False),
        ("tmpfs", {"type": "tmpfs"}, False),
        ("nfs4", {}, True),
        ("ceph", {}, True),
        ("fuse.glusterfs", {}, True),
        # Not mounted while no container uses it: the options tell.
        ("ext4", {"type": "nfs", "o": "addr=192.0.2.9", "device": ":/export"}, True),
        ("ext4", {"type": "cifs"}, True),
    ],
)
def test_what_all_hosts_see_does_not_travel(filesystem: str, options: dict[str, str], shared: bool) -> None:
    assert filesystems.is_shared(filesystem, options) is shared


@pytest.mark.parametrize(
    ("filesystem", "local"),
    [
        ("ext4", True),
        ("overlay", True),
        *((name, False) for name in ("tmpfs", "ramfs", "nfs4", "fuse.sshfs", "virtiofs", "unknown")),
    ],
)
def test_whose_clock_a_change_time_comes_from(filesystem: str, local: bool) -> None:
    assert filesystems.has_local_times(filesystem) is local
