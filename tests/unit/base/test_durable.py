# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files after a crash at any call, after a race, and on disks that are full."""

from __future__ import annotations

import itertools
import os
import resource
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from tests.unit.helpers.support import killed_at, race


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _strays(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir() if entry.suffix != ".tmp"]


# -- one writer, killed ----------------------------------------------------------------------------------------------


def test_a_write_that_is_killed_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old, new = b"old" * 1000, b"new!" * 1000
    seen = set()
    for step in itertools.count(1):
        path.write_bytes(old)
        killed = killed_at(step, lambda: durable.write(str(path), new))
        seen.add(path.read_bytes())
        assert _strays(tmp_path) == ["file"]
        if not killed:
            break
    assert seen == {old, new}
    assert path.read_bytes() == new


def test_a_publication_that_is_killed_has_been_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made = []
    for step in itertools.count(1):
        killed = killed_at(step, lambda: durable.publish(str(path), b"word\n"))
        made.append(path.exists())
        if path.exists():
            assert path.read_bytes() == b"word\n"
            path.unlink()
        if not killed:
            break
    assert made == sorted(made), "it appears at one call and stays"
    assert {False, True} == set(made)


def test_nothing_temporary_is_left_by_those_who_live(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    durable.write(path, b"1")
    durable.write(path, b"2")
    assert not durable.publish(path, b"3")
    assert durable.publish(path + "2", b"4")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"file": b"2", "file2": b"4"}


def test_nothing_temporary_is_left_by_a_failed_write(tmp_path: Path) -> None:
    def full_disk() -> list[str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(OSError, match="File too large"):
            durable.write(str(tmp_path / "file"), b"x" * 5000)
        return os.listdir(tmp_path)

    assert race(1, lambda _number: full_disk()) == [("ok", [])]


# -- what has reached the disk ---------------------------------------------------------------------------------------


class Recorder:
    """Which files were flushed, and when names appeared, as os was asked for it. Everything is done as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, Any]] = []
        fsync, rename, link = os.fsync, os.rename, os.link

        def recorded_fsync(fd: int) -> None:
            fsync(fd)
            self.events.append(("flushed", os.fstat(fd).st_ino))

        def recorded_rename(old: str, new: str) -> None:
            rename(old, new)
            self.events.append(("named", os.stat(new).st_ino))

        def recorded_link(old: str, new: str) -> None:
            link(old, new)
            self.events.append(("named", os.stat(new).st_ino))

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "rename", recorded_rename)
        monkeypatch.setattr(os, "link", recorded_link)


@pytest.mark.parametrize("function", [durable.write, durable.publish])
def test_content_is_flushed_before_it_gets_its_name_and_the_name_after(
    function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    function(str(tmp_path / "file"), b"content")
    file, directory = (tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino
    assert recorder.events == [("flushed", file), ("named", file), ("flushed", directory)]


def test_an_appended_line_is_flushed_and_so_is_the_name_of_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    durable.append_line(str(tmp_path / "file"), "1")
    file, directory = (tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino
    assert recorder.events == [("flushed", file), ("flushed", directory)]
    recorder.events.clear()
    durable.append_line(str(tmp_path / "file"), "2")
    assert recorder.events == [("flushed", file)]
    assert (tmp_path / "file").read_text() == "1\n2\n"


def test_new_directories_are_flushed_into_the_ones_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    durable.make_directory(str(tmp_path / "a" / "b"))
    assert recorder.events == [("flushed", tmp_path.stat().st_ino), ("flushed", (tmp_path / "a").stat().st_ino)]


def test_a_disk_that_takes_half_a_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    durable.append_line(str(path), "first")

    def full_disk() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15, 15))
        durable.append_line(str(path), "a line that does not fit")
        return "taken for written"

    assert race(1, lambda _number: full_disk()) == [("error", "OSError")]


# -- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_written_is_private(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        durable.make_directory(str(tmp_path / "new" / "below"))
        durable.write(str(tmp_path / "written"), b"")
        durable.publish(str(tmp_path / "published"), b"")
        durable.append_line(str(tmp_path / "appended"), "")
        durable.write_json(str(tmp_path / "json"), {})
    finally:
        os.umask(before)
    assert {_mode(tmp_path / name) for name in ("new", "new/below")} == {0o700}
    assert {_mode(tmp_path / name) for name in ("written", "published", "appended", "json")} == {0o600}


def test_a_directory_that_is_there_is_tightened_with_its_content_left(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir(mode=0o755)
    (directory / "file").write_text("kept")
    durable.make_directory(str(directory))
    assert _mode(directory) == 0o700
    assert (directory / "file").read_text() == "kept"


def test_a_replaced_file_loses_a_mode_that_was_too_wide(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    durable.write(str(path), b"new")
    assert _mode(path) == 0o600


# -- several writers -------------------------------------------------------------------------------------------------


def test_of_several_who_publish_at_once_one_wins_and_all_see_its_decision(disk: Path) -> None:
    for attempt in range(10):
        path = disk / f"word{attempt}"

        def publish(number: int, path: Path = path) -> tuple[bool, str]:
            won = durable.publish(str(path), str(number).encode() * 2000)
            return won, path.read_text()

        answers = [value for kind, value in race(8, publish) if kind == "ok"]
        assert len(answers) == 8
        winners = [number for number, (won, _seen) in enumerate(answers) if won]
        assert len(winners) == 1
        assert {seen for _won, seen in answers} == {str(winners[0]) * 2000}


def test_lines_that_are_appended_at_once_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    def append(number: int) -> None:
        for _line in range(20):
            durable.append_line(str(path), str(number) * 200)

    assert race(4, append) == [("ok", None)] * 4
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(str(number) * 200 for number in range(4) for _line in range(20))


def _make_directory(path: str, _number: int) -> None:
    durable.make_directory(path)


def test_a_directory_may_be_made_by_several_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        path = str(tmp_path / str(attempt) / "deep" / "down")
        assert race(8, partial(_make_directory, path)) == [("ok", None)] * 8


# -- JSON ------------------------------------------------------------------------------------------------------------


def test_json_goes_out_and_comes_back_and_may_be_missing(tmp_path: Path) -> None:
    path = str(tmp_path / "file.json")
    assert durable.read_json(path) is None
    value = {"b": [1, None, "zwölf \udc80"], "a": {"nested": True}}
    durable.write_json(path, value)
    assert durable.read_json(path) == value


# -- where -----------------------------------------------------------------------------------------------------------

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /run rw shared:2 - tmpfs tmpfs rw
24 22 8:2 / /var rw - xfs /dev/sdb rw
25 24 0:30 / /var/lib/live\\040migrate rw - tmpfs tmpfs rw
26 22 8:3 / /srv rw - ext4 /dev/sdc rw
27 26 0:31 / /srv rw - tmpfs tmpfs rw
28 22 0:32 / /var/lib/docker/overlay2/x/merged rw master:3 propagate_from:2 - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/nonexistent/x", "ext4"),
        ("/run", "tmpfs"),
        ("/run/x/y", "tmpfs"),
        ("/running", "ext4"),
        ("/var/lib/livemigrate", "xfs"),
        ("/var/lib/live migrate/x", "tmpfs"),
        ("/srv/data", "tmpfs"),
        ("/var/lib/docker/overlay2/x/merged/etc", "overlay"),
    ],
)
def test_the_file_system_of_a_place(path: str, kind: str) -> None:
    assert durable.filesystem_type(path, MOUNTS) == kind


def test_the_file_system_of_a_place_is_that_behind_its_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/run")
    assert durable.filesystem_type(str(tmp_path / "link" / "x"), MOUNTS) == "tmpfs"


def test_places_of_this_machine(memory: Path, disk: Path) -> None:
    assert durable.filesystem_type("/proc/self/status") == "proc"
    assert durable.filesystem_type(str(memory / "not" / "there")) == "tmpfs"
    durable.require_durable(str(disk))
    with pytest.raises(MigrationError) as caught:
        durable.require_durable(str(memory))
    assert caught.value.code == "state_not_durable"
    assert caught.value.details == {"path": str(memory), "filesystem": "tmpfs"}
