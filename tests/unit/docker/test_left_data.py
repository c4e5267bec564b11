# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what is at a name or a path is still what a move has left there: real directories and files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import left_data

MADE = "2026-11-23T04:26:56Z"


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("content")


def _file(path: Path) -> None:
    path.write_text("content")


@pytest.mark.parametrize("make", [_directory, _file])
def test_what_was_left_is_known_by_what_it_is_and_not_by_its_content(make: Callable[[Path], None], disk: Path) -> None:
    path = disk / "data"
    make(path)
    notes = {"data": [left_data.note(str(path), MADE)]}
    assert left_data.is_left(notes, "data", str(path), MADE)
    path.rename(disk / "moved")
    (disk / "link").symlink_to("moved")
    assert left_data.is_left(notes, "data", str(disk / "link"), MADE)
    assert not left_data.is_left(notes, "data", str(path), MADE)
    assert not left_data.is_left(notes, "other", str(disk / "moved"), MADE)
    shutil.move(disk / "moved", path)
    for _again in range(5):
        # ext4 gives it the number of the one before.
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
        make(path)
        assert not left_data.is_left(notes, "data", str(path), MADE)


def test_one_of_several_notes_is_enough(disk: Path) -> None:
    notes = {"data": [left_data.note(str(disk / "gone")), left_data.note(str(disk))]}
    assert left_data.is_left(notes, "data", str(disk))


def test_what_was_left_is_known_after_a_boot_that_numbers_file_systems_anew(disk: Path) -> None:
    noted = left_data.note(str(disk), MADE)
    noted["identity"][0] += 1
    # To restore a backup beside it can change what the engine takes for the time of its making.
    assert left_data.is_left({"data": [noted]}, "data", str(disk), "2026-11-24T00:00:00Z")


def test_where_the_file_system_does_not_tell_the_time_does(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: Callable[[str | int], list[int] | None] = durable.lasting_identity

    def without(descriptor: int) -> list[int] | None:
        found = known(descriptor)
        return found and found[:2]

    monkeypatch.setattr(durable, "lasting_identity", without)
    notes = {"data": [left_data.note(str(disk), MADE)]}
    assert left_data.is_left(notes, "data", str(disk), MADE)
    assert not left_data.is_left(notes, "data", str(disk), "2026-11-24T00:00:00Z")


def test_what_is_no_content_is_not_opened(disk: Path) -> None:
    os.mkfifo(disk / "pipe")
    for path in (disk / "pipe", Path("/dev/null"), disk / "none"):
        notes: dict[str, Any] = {"data": [left_data.note(str(path))]}
        assert notes["data"][0]["identity"] is None
        assert not left_data.is_left(notes, "data", str(path))
