# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a host that a container needs: docker-init, and mounts that CRIU can restore."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import host_files
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
    destination as facts_of_destination,
)


def _program(path: Path, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(mode)
    return str(path)


def test_the_engines_own_directories_come_before_the_search_path(tmp_path: Path) -> None:
    """As in Docker's own packages, and as in Debian's."""
    in_path = _program(tmp_path / "bin" / "docker-init")
    places, path = [str(tmp_path / "one"), str(tmp_path / "two")], str(tmp_path / "bin")
    assert host_files.find_init("docker-init", places, path) == in_path
    assert host_files.find_init(None, places, path) == in_path
    in_place = _program(tmp_path / "two" / "docker-init")
    assert host_files.find_init("docker-init", places, path) == in_place
    assert host_files.find_init("tini", places, path) is None


def test_an_init_that_daemon_json_names_is_that_one(tmp_path: Path) -> None:
    path = str(tmp_path / "bin")
    _program(tmp_path / "bin" / "docker-init")
    own = tmp_path / "my-init"
    assert host_files.find_init(str(own), [], path) is None
    assert host_files.find_init(_program(own), [], path) == str(own)


def test_an_init_that_cannot_be_run_is_none(tmp_path: Path) -> None:
    """A link that leads nowhere is what is left when only the package it leads into is missing."""
    _program(tmp_path / "one" / "docker-init", 0o644)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker-init").symlink_to("tini-static")
    assert host_files.find_init("docker-init", [str(tmp_path / "one")], str(tmp_path / "bin")) is None


def test_a_mount_of_a_link_is_seen(tmp_path: Path) -> None:
    """A link to a file, one to a directory and one to nothing; a link further up in the path does no harm."""
    file, directory = _program(tmp_path / "file"), tmp_path / "directory"
    (directory / "sub").mkdir(parents=True)
    for name, target in (("to-file", file), ("to-directory", directory), ("to-nothing", tmp_path / "nothing")):
        (tmp_path / name).symlink_to(target)
    assert not host_files.links(
        {"/a": str(file), "/b": str(directory), "/c": f"{tmp_path}/to-directory/sub", "/d": "/none"}, {}
    )
    for name, target in (("to-file", file), ("to-directory/", directory), ("to-nothing", tmp_path / "nothing")):
        path = f"{tmp_path}/{name}"
        assert host_files.links({"/a": str(file), "/x": path}, {}) == {"/x": str(target)}
        # By the place where the kernel has it.
        assert host_files.links({"/x": path}, {"/x": "/usr/x", "/y": "/z"}) == {"/usr/x": str(target)}
        unasked: Any = None
        reported = facts_of_destination.binds(unasked, [{"kind": "bind", "path": path}], {}, ())[path.rstrip("/")]
        assert reported["exists"]
        assert reported["leads_to"] == str(target)


@pytest.mark.parametrize("name", ["with blank", "with#sign", 'with"quote', "line\nbreak", "bracket]"])
def test_what_cannot_be_given_to_criu_is_refused(tmp_path: Path, name: str) -> None:
    """A link of an image could say anything, and each line of the options is an order."""
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(MigrationError) as caught:
        host_files.links({"/x": f"{tmp_path}/link"}, {"/x": f"/usr/{name}"})
    assert caught.value.code == "mount_is_link"


def _by_the_kernel(root: Path, place: str) -> str:
    """Where a path leads to within a root directory: openat2(2) with RESOLVE_IN_ROOT."""
    libc = ctypes.CDLL(None, use_errno=True)
    how = struct.pack("QQQ", os.O_PATH, 0, 0x10)
    directory = os.open(root, os.O_PATH)
    opened = libc.syscall(437, directory, place.encode(), how, len(how))
    assert opened >= 0, os.strerror(ctypes.get_errno())
    try:
        return "/" + os.path.relpath(os.readlink(f"/proc/self/fd/{opened}"), root)
    finally:
        os.close(opened)
        os.close(directory)


def test_places_in_a_container_are_where_its_kernel_has_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for directory in ("usr/sbin", "data/deep", "var", "real/etc"):
        (root / directory).mkdir(parents=True)
    for link, target in (
        ("sbin", "usr/sbin"),
        ("etc", "real/etc"),
        ("absolute", "/data/deep"),
        ("var/relative", "../data"),
        ("up", "../../../../data"),
        ("nested", "var/relative/deep"),
    ):
        (root / link).symlink_to(target)
    places = [
        "/sbin",
        "/etc",
        "/absolute",
        "/var/relative/deep",
        "/up/deep",
        "/nested",
        "/absolute/../deep",
        "/usr//sbin/.",
    ]
    for place in places:
        assert host_files.inside(str(root), place) == _by_the_kernel(root, place), place
    assert host_files.inside(str(root), "/sbin/docker-init") == "/usr/sbin/docker-init"
    assert host_files.inside(str(root), "/none/at/all") == "/none/at/all"
    (root / "loop").symlink_to("loop")
    assert host_files.inside(str(root), "/loop/x")
    assert host_files.real_places(str(root), ["/sbin/docker-init", "/usr/x"]) == {
        "/sbin/docker-init": "/usr/sbin/docker-init"
    }
