# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A few programs are installed into one directory, and what is as it should be is left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.modules import program_files

PROGRAMS = {"one": "#!/bin/sh\necho 1\n", "two": "#!/bin/sh\necho ü\n"}


def _install(directory: Path, *, check_mode: bool = False, files: dict[str, str] | None = None) -> Any:
    return program_files._install({"directory": str(directory), "files": files or PROGRAMS}, check_mode)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "programs"


def test_they_are_made_and_then_left_alone(place: Path) -> None:
    before = os.umask(0o077)
    try:
        assert _install(place) == {"changed": True, "written": ["one", "two"]}
    finally:
        os.umask(before)
    assert {path.name: path.read_text() for path in place.iterdir()} == PROGRAMS
    assert {path.stat().st_mode & 0o7777 for path in (place, *place.iterdir())} == {0o755}
    numbers = [path.stat().st_ino for path in place.iterdir()]
    assert _install(place) == {"changed": False, "written": []}
    assert [path.stat().st_ino for path in place.iterdir()] == numbers


@pytest.mark.parametrize("spoil", ["content", "mode", "owner", "link", "gone", "directory"])
def test_what_somebody_has_changed_is_put_right(place: Path, tmp_path: Path, spoil: str) -> None:
    _install(place)
    one = place / "one"
    if spoil == "content":
        one.write_text("#!/bin/sh\necho 2\n")
    elif spoil == "mode":
        one.chmod(0o700)
    elif spoil == "owner":
        os.chown(one, 1000, 1000)
    elif spoil == "link":
        other = tmp_path / "other"
        one.rename(other)
        one.symlink_to(other)
    elif spoil == "gone":
        one.unlink()
    else:
        place.chmod(0o777)
    reported = _install(place)
    assert reported["changed"]
    assert reported["written"] == ([] if spoil == "directory" else ["one"])
    assert not one.is_symlink()
    assert _install(place) == {"changed": False, "written": []}


def test_check_mode_tells_and_writes_nothing(place: Path) -> None:
    assert _install(place, check_mode=True)["written"] == ["one", "two"]
    assert not place.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd"])
def test_a_name_that_is_none(place: Path, name: str) -> None:
    with pytest.raises(MigrationError, match="no names of files"):
        _install(place, files={name: "x"})
    assert not place.exists()


def test_a_place_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MigrationError, match="Cannot install programs"):
        _install(tmp_path / "file" / "below")
