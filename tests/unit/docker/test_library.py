# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which docker-py a Python would import, told without importing it: in Pythons that find nothing but the files of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import library as docker_library
from tests.conftest import ROOT

_ASK = """
import json, sys
sys.path[:0] = sys.argv[1:]
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import library as docker_library
docker_library.VENV = "/nowhere"
found = docker_library.look()
print(json.dumps([found.version, found.path, found.error, "docker" in sys.modules]))
"""


def _package(place: Path, name: str, text: str = "") -> Path:
    (place / name).mkdir(parents=True)
    (place / name / "__init__.py").write_text(text)
    return place / name


def _look(*places: Path) -> list[object]:
    """Version, path, error, and whether docker-py was imported."""
    collection = str(ROOT / ".tree")
    # Without the packages of the interpreter's own.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ASK, *map(str, places), collection],
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("requests", "urllib3"):
        _package(tmp_path / "site", name)
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("note", "version"),
    [
        ("docker-7.1.0.dist-info", "7.1.0"),
        ("docker-5.0.3.egg-info", "5.0.3"),
        ("docker-5.0.3-py3.11.egg-info", "5.0.3"),
        ("docker-7.2.0rc1.dist-info", "7.2.0rc1"),
    ],
)
def test_the_version_is_that_of_its_note(place: Path, note: str, version: str) -> None:
    path = _package(place, "docker", "raise SystemExit('imported')")
    (place / note).mkdir()
    (place / "docker_compose-1.29.2.dist-info").mkdir()
    assert _look(place) == [version, str(path), None, False]


def test_the_first_place_counts(place: Path, tmp_path: Path) -> None:
    """A note beside another one is not its own."""
    path = _package(tmp_path / "first", "docker")
    (tmp_path / "first" / "docker-7.1.0.dist-info").mkdir()
    _package(place, "docker")
    (place / "docker-5.0.3.egg-info").mkdir()
    assert _look(tmp_path / "first", place) == ["7.1.0", str(path), None, False]


def test_without_a_note_it_is_imported(place: Path) -> None:
    path = _package(place, "docker", "__version__ = '7.0.0'")
    assert _look(place) == ["7.0.0", str(path), None, True]


def test_what_is_missing_is_named(place: Path, tmp_path: Path) -> None:
    assert _look(place) == [None, None, "No module named 'docker'", False]
    _package(tmp_path / "alone", "docker")
    (tmp_path / "alone" / "docker-7.1.0.dist-info").mkdir()
    assert _look(tmp_path / "alone") == [None, None, "No module named 'requests'", False]


def test_a_directory_without_a_module_is_none(place: Path) -> None:
    (place / "docker").mkdir()
    assert _look(place)[:3] == [None, None, "No module named 'docker'"]


def test_packages_of_the_venv_count_only_for_its_own_python(tmp_path: Path) -> None:
    major, minor = sys.version_info[:2]
    site = tmp_path / "lib" / f"python{major}.{minor}" / "site-packages"
    (site / "docker").mkdir(parents=True)
    (site / "docker" / "__init__.py").touch()
    assert docker_library.directory(venv=str(tmp_path)) == str(site)
    assert docker_library.directory((major, minor + 1), venv=str(tmp_path)) is None
