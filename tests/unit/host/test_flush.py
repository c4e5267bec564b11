# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Flushed file systems, on disks of the tests' own: what a power cut leaves, and what a disk that fails is told as."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host import flush as flush_module
from ansible_collections.livemigrate.criu.plugins.module_utils._host.flush import Flush
from tests.unit.helpers.disks import Disk, require_disks, with_own_mounts

_MIB = 1 << 20
# More than a disk with so much room holds.
_SCARCE, _TOO_MUCH = 24 * _MIB, 48 * _MIB


@pytest.fixture
def needs_disks(needs_namespaces: None) -> None:  # noqa: ARG001
    """Skip where a test cannot have disks of its own."""
    require_disks()


@pytest.mark.usefixtures("needs_disks")
@pytest.mark.parametrize("flushed", [True, False])
def test_what_was_flushed_is_there_after_a_power_cut(flushed: bool, tmp_path: Path) -> None:
    """The other case is of the test: without a flush the power cut loses it, so the first one says something."""

    def work() -> list[tuple[str, int]]:
        disk = Disk(tmp_path, tmp_path / "disk")
        with Flush([str(disk.place)], host="destination") as flush:
            (disk.place / "file").write_bytes(b"x" * _MIB)
            (disk.place / "file").rename(disk.place / "named")
            if flushed:
                flush.now(20)
        return [(path.name, path.stat().st_size) for path in disk.after_a_power_cut().iterdir()]

    assert with_own_mounts(work) == ([("named", _MIB)] if flushed else [])


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The devices that are flushed from now on."""
    devices: list[int] = []
    real = flush_module._syncfs

    def syncfs(descriptor: int) -> None:
        devices.append(os.fstat(descriptor).st_dev)
        real(descriptor)

    monkeypatch.setattr(flush_module, "_syncfs", syncfs)
    return devices


@pytest.mark.usefixtures("needs_disks")
def test_each_file_system_is_flushed_once_and_so_is_what_is_mounted_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> tuple[bool, int]:
        one = Disk(tmp_path, tmp_path / "one")
        for name in ("a", "b/c", "below"):
            (one.place / name).mkdir(parents=True)
        below = Disk(tmp_path, one.place / "below")
        elsewhere = tmp_path / "else\twhere"
        other = Disk(tmp_path, elsewhere)
        (other.place / "d").mkdir()
        devices = _counted(monkeypatch)
        with Flush([str(one.place / "a"), str(one.place / "b/c"), str(one.place)], [str(elsewhere)], host="x") as flush:
            flush.now(20)
        wanted = {place.stat().st_dev for place in (one.place, below.place, other.place)}
        return set(devices) == wanted, len(devices)

    assert with_own_mounts(work) == (True, 3)


@pytest.mark.usefixtures("needs_disks")
def test_what_is_mounted_below_is_left_alone_where_only_the_directory_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's data root has the layers of all containers below it."""

    def work() -> list[bool]:
        one = Disk(tmp_path, tmp_path / "one")
        (one.place / "below").mkdir()
        Disk(tmp_path, one.place / "below")
        devices = _counted(monkeypatch)
        with Flush([], [str(one.place)], host="x") as flush:
            flush.now(20)
        return [device == one.place.stat().st_dev for device in devices]

    assert with_own_mounts(work) == [True]


@pytest.mark.usefixtures("needs_disks")
def test_a_disk_that_cannot_take_it_is_reported(tmp_path: Path) -> None:
    def work() -> tuple[str, str]:
        disk = Disk(tmp_path, tmp_path / "disk", room=_SCARCE)
        with Flush([str(disk.place)], host="destination") as flush:
            # The kernel takes it: the file system believes in the room that it sees.
            (disk.place / "file").write_bytes(os.urandom(_TOO_MUCH))
            with pytest.raises(MigrationError) as caught:
                flush.now(20)
        return caught.value.code, caught.value.message

    code, message = with_own_mounts(work)
    assert code == "flush_failed"
    assert message.startswith(f"What was written below {tmp_path}/disk on the destination did not reach its disk (")


@pytest.mark.usefixtures("needs_disks")
def test_an_error_that_another_program_got_is_reported_here_too(tmp_path: Path) -> None:
    """Why the descriptors are opened first: `sync -f` says that all is well as soon as somebody else has asked."""

    def work() -> tuple[list[int], list[str]]:
        disk = Disk(tmp_path, tmp_path / "disk", room=_SCARCE)
        reported = []
        with Flush([str(disk.place)], host="destination") as early:
            (disk.place / "file").write_bytes(os.urandom(_TOO_MUCH))
            codes: list[int] = []
            # Not all of it need fail at the first time.
            while codes[-1:] != [0] and len(codes) < 20:
                argv = ["sync", "-f", str(disk.place)]
                codes.append(subprocess.run(argv, capture_output=True, check=False).returncode)
            with Flush([str(disk.place)], host="destination") as late:
                for name, flush in (("late", late), ("early", early)):
                    try:
                        flush.now(20)
                    except MigrationError:
                        reported.append(name)
        return codes, reported

    codes, reported = with_own_mounts(work)
    assert (codes[0], codes[-1]) == (1, 0)
    assert reported == ["early"]


def test_a_disk_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that really hangs would hang this process."""
    monkeypatch.setattr(flush_module, "_syncfs", lambda _descriptor: time.sleep(1))
    began = time.monotonic()
    late = pytest.raises(MigrationError, match=r"did not take within 0\.1 seconds")
    with Flush([str(tmp_path)], host="destination") as flush, late as caught:
        flush.now(0.1)
    assert time.monotonic() - began < 0.9
    assert caught.value.code == "flush_failed"


def test_it_goes_on_beside_other_work_and_tells_for_how_long_it_was_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush_module, "_syncfs", lambda _descriptor: time.sleep(0.4))
    with Flush([str(tmp_path)], host="destination") as flush:
        flush.begin()
        time.sleep(0.2)
        waited = flush.finish(20)
        assert flush.seconds >= 0.4
        assert 0 < waited < flush.seconds - 0.1
        flush.begin()
        time.sleep(2)
        assert flush.finish(20) < 0.2
        assert flush.seconds < 1.8, "how long it took, not when it was asked for"


def test_a_directory_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        Flush([str(tmp_path), str(tmp_path / "gone")], host="destination")
    assert caught.value.code == "flush_failed"
    assert f"The directory {tmp_path}/gone on the destination cannot be opened" in caught.value.message


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    failures: list[Any] = []
    with Flush([str(tmp_path)], host="destination") as flush:
        flush.now(20)
    try:
        Flush([str(tmp_path), "/nonexistent"], host="destination")
    except MigrationError as exc:
        failures.append(exc)
    assert failures
    assert os.listdir("/proc/self/fd") == before
