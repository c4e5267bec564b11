# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine needs beside itself: docker-py for the modules, docker-init for containers made with --init."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils import _docker_init, _docker_py
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
    assert _docker_init.find("docker-init", places, path) == in_path
    assert _docker_init.find(None, places, path) == in_path
    in_place = _program(tmp_path / "two" / "docker-init")
    assert _docker_init.find("docker-init", places, path) == in_place
    assert _docker_init.find("tini", places, path) is None


def test_an_init_that_daemon_json_names_is_that_one(tmp_path: Path) -> None:
    path = str(tmp_path / "bin")
    _program(tmp_path / "bin" / "docker-init")
    own = tmp_path / "my-init"
    assert _docker_init.find(str(own), [], path) is None
    assert _docker_init.find(_program(own), [], path) == str(own)


def test_an_init_that_cannot_be_run_is_none(tmp_path: Path) -> None:
    """A link that leads nowhere is what is left when only the package it leads into is missing."""
    _program(tmp_path / "one" / "docker-init", 0o644)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker-init").symlink_to("tini-static")
    assert _docker_init.find("docker-init", [str(tmp_path / "one")], str(tmp_path / "bin")) is None


@pytest.mark.parametrize("wanted", [False, None])
def test_a_container_without_init_needs_none(wanted: bool | None) -> None:
    _docker_init.require({"HostConfig": {"Init": wanted}}, {"InitBinary": "/nowhere/init"})
    _docker_init.require({"HostConfig": {}}, {})


def test_a_container_with_init_is_refused_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        _docker_init.require({"HostConfig": {"Init": True}}, {"InitBinary": "/nowhere/init"})
    assert caught.value.code == "init_missing"
    assert "/nowhere/init" in caught.value.message
    _docker_init.require({"HostConfig": {"Init": True}}, {"InitBinary": _program(tmp_path / "init")})
