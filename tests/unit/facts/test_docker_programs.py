# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What engine and modules need of a host beside themselves: docker-py, docker-init, and mounts that CRIU can restore."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils import _docker_py, _host_files
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError


def test_packages_of_the_venv_count_only_for_its_own_python(tmp_path: Path) -> None:
    major, minor = sys.version_info[:2]
    site = tmp_path / "lib" / f"python{major}.{minor}" / "site-packages"
    (site / "docker").mkdir(parents=True)
    (site / "docker" / "__init__.py").touch()
    assert _docker_py.directory(venv=str(tmp_path)) == str(site)
    assert _docker_py.directory((major, minor + 1), venv=str(tmp_path)) is None


def _program(path: Path, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(mode)
    return str(path)


def test_the_engines_own_directories_come_before_the_search_path(tmp_path: Path) -> None:
    """As in Docker's own packages, and as in Debian's."""
    in_path = _program(tmp_path / "bin" / "docker-init")
    places, path = [str(tmp_path / "one"), str(tmp_path / "two")], str(tmp_path / "bin")
    assert _host_files.find_init("docker-init", places, path) == in_path
    assert _host_files.find_init(None, places, path) == in_path
    in_place = _program(tmp_path / "two" / "docker-init")
    assert _host_files.find_init("docker-init", places, path) == in_place
    assert _host_files.find_init("tini", places, path) is None


def test_an_init_that_daemon_json_names_is_that_one(tmp_path: Path) -> None:
    path = str(tmp_path / "bin")
    _program(tmp_path / "bin" / "docker-init")
    own = tmp_path / "my-init"
    assert _host_files.find_init(str(own), [], path) is None
    assert _host_files.find_init(_program(own), [], path) == str(own)


def test_an_init_that_cannot_be_run_is_none(tmp_path: Path) -> None:
    """A link that leads nowhere is what is left when only the package it leads into is missing."""
    _program(tmp_path / "one" / "docker-init", 0o644)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker-init").symlink_to("tini-static")
    assert _host_files.find_init("docker-init", [str(tmp_path / "one")], str(tmp_path / "bin")) is None


@pytest.mark.parametrize("wanted", [False, None])
def test_a_container_without_init_needs_none(wanted: bool | None) -> None:
    assert _host_files.require_init({"HostConfig": {"Init": wanted}}, {"InitBinary": "/nowhere/init"}) is None
    assert _host_files.require_init({"HostConfig": {}}, {}) is None


def test_a_container_with_init_is_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        _host_files.require_init({"HostConfig": {"Init": True}}, {"InitBinary": "/nowhere/init"})
    assert caught.value.code == "init_missing"
    assert "/nowhere/init" in caught.value.message
    there = _program(tmp_path / "init")
    assert _host_files.require_init({"HostConfig": {"Init": True}}, {"InitBinary": there}) == there


def test_a_mount_of_a_link_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A link to a file, one to a directory and one to nothing; a link further up in the path does no harm."""
    file, directory = _program(tmp_path / "file"), tmp_path / "directory"
    (directory / "sub").mkdir(parents=True)
    for name, target in (("to-file", file), ("to-directory", directory), ("to-nothing", tmp_path / "nothing")):
        (tmp_path / name).symlink_to(target)
    _host_files.require_no_links(
        {"/a": file, "/b": str(directory), "/c": f"{tmp_path}/to-directory/sub", "/d": "/none"}
    )
    for name, target in (("to-file", file), ("to-directory/", str(directory)), ("to-nothing", f"{tmp_path}/nothing")):
        path = f"{tmp_path}/{name}"
        with pytest.raises(MigrationError) as caught:
            _host_files.require_no_links({"/a": file, "/x": path})
        assert caught.value.code == "mount_is_link"
        assert f"Mount {target} instead" in caught.value.message
        assert caught.value.details == {"links": {"/x": path}}


def test_an_init_that_is_a_link_is_cured_in_daemon_json(tmp_path: Path) -> None:
    """As on Debian, where docker-init is a link to tini-static."""
    real = _program(tmp_path / "tini-static")
    (tmp_path / "docker-init").symlink_to("tini-static")
    init = _host_files.require_init({"HostConfig": {"Init": True}}, {"InitBinary": str(tmp_path / "docker-init")})
    assert init is not None
    with pytest.raises(MigrationError, match=f'"init-path": "{real}" in daemon.json'):
        _host_files.require_no_links({_host_files.INIT_PLACE: init})
