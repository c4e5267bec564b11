# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directories above a bind mount, from the source where they are read to the destination where they are made."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import made_places, parents
from tests.unit.subjects.container import test_made_places as places
from tests.unit.subjects.container.test_made_places import Host

pytestmark = pytest.mark.usefixtures("host_roots", "needs_root")

described, incoming, host, srv = places.described, places.incoming, places.host, places.srv


def _attributes(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_directories_above_a_mount_are_as_closed_as_on_the_source(
    incoming: Callable[..., Session], srv: Path, disk: Path
) -> None:
    source = disk / "source"
    wanted = {"secrets": (0, 0, 0o700), "secrets/of": (33, 34, 0o2750), "secrets/of/app": (0, 0, 0o755)}
    for name, (uid, gid, mode) in wanted.items():
        (source / name).mkdir(parents=True)
        os.chown(source / name, uid, gid)
        (source / name).chmod(mode)
    # The two hosts of this test have different roots.
    above = {
        str(srv) + path[len(str(source)) :]: found
        for path, found in parents.of([str(source / "secrets/of/app"), str(source / "secrets/of/conf")]).items()
        if path.startswith(str(source) + "/")
    }
    before = os.umask(0)
    try:
        incoming(places._bind(srv / "secrets/of/app"), places._bind(srv / "secrets/of/conf", "file"), above=above)
    finally:
        os.umask(before)
    assert _attributes(srv / "secrets") == wanted["secrets"]
    assert _attributes(srv / "secrets/of") == wanted["secrets/of"]
    assert _attributes(srv / "secrets/of/app") == (0, 0, 0o700), "rsync gives it its own"


def test_those_that_are_there_stay_as_they_are(incoming: Callable[..., Session], srv: Path) -> None:
    (srv / "there").mkdir(mode=0o711)
    incoming(places._bind(srv / "there/app"), above={str(srv / "there"): {"uid": 5, "gid": 5, "mode": 0o777}})
    assert _attributes(srv / "there") == (0, 0, 0o711)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "0755",
        {},
        {"uid": 0, "gid": 0},
        {"uid": -1, "gid": 0, "mode": 0o755},
        {"uid": 2**32 - 1, "gid": 0, "mode": 0o755},
        {"uid": True, "gid": 0, "mode": 0o755},
        {"uid": 0, "gid": 0, "mode": 0o40755},
        {"uid": 0, "gid": 0, "mode": "0755"},
    ],
)
def test_what_the_other_host_says_is_checked(said: Any, incoming: Callable[..., Session], srv: Path) -> None:
    incoming(places._bind(srv / "deep/app"), above={str(srv / "deep"): said})
    assert _attributes(srv / "deep") == (0, 0, 0o700)


@pytest.mark.parametrize("swapped", ["deep", "deep/er"])
def test_nobody_leads_us_to_another_directory(swapped: str, host: Host, srv: Path) -> None:
    """Whose directory it lies in may put a link there."""
    noted = made_places.missing_directories([places._bind(srv / "deep/er/app")])
    made = made_places.make_directories(noted)
    elsewhere = host.root / "elsewhere"
    (elsewhere / "er").mkdir(parents=True)
    (srv / swapped).rename(host.root / "away")
    (srv / swapped).symlink_to(elsewhere / "er" if swapped == "deep/er" else elsewhere)
    said = {"uid": 5, "gid": 5, "mode": 0o777}
    with pytest.raises(OSError, match=r"Not a directory|symbolic|not the one"):
        parents.give(noted, made, {str(srv / name): said for name in ("deep", "deep/er")})
    assert [_attributes(path)[0] for path in (elsewhere, elsewhere / "er")] == [0, 0]


def test_with_an_access_list_the_group_gets_nothing_that_others_were_given(disk: Path) -> None:
    """user::rwx user:33:rwx group::--- mask::rwx other::---: stat(2) shows the mask in place of the group."""
    closed = disk / "closed"
    closed.mkdir(mode=0o700)
    entries = ((1, 7, 0xFFFFFFFF), (2, 7, 33), (4, 0, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    text = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(closed, "system.posix_acl_access", text)
    except OSError as exc:
        pytest.skip(f"no access lists here: {exc}")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o770
    assert parents.of([str(closed / "app")])[str(closed)]["mode"] == 0o700
