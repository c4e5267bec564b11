# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a file system says of its content: whether other hosts see it too, and whose clock it goes by."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import filesystems


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
