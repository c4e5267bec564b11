# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pass while the container runs and the one while it stands still: after both, everything is as on the source."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import transfer
from tests.unit.helpers import moved
from tests.unit.helpers.support import CONTAINER
from tests.unit.helpers.wire import Wire
from tests.unit.subjects.container.test_trees import snapshot


class Contents:
    """A container's directories on a source, with the two passes over the wire."""

    def __init__(self, wire: Wire, root: Path) -> None:
        self._wire = wire
        self.layer, self.volume = root / "overlay2" / "diff", root / "volume"
        self.directory = root / "containers" / CONTAINER
        for directory in (self.layer, self.volume, self.directory):
            directory.mkdir(parents=True)
        inspect = {
            "Id": CONTAINER,
            "Name": "/web",
            "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": str(self.layer)}},
            "HostConfig": {"LogConfig": {"Type": "json-file"}},
        }
        wire.source.facts["data_root"] = str(root)
        outbox = Path(wire.source.memory_path("outbox"))
        outbox.mkdir()
        volume = {"kind": "volume", "name": "data", "path": str(self.volume), "travels": True}
        durable.write_json(str(outbox / "spec.json"), {"inspect": inspect, "volumes": [volume]})
        wire.prepare("layer", "log", "volume/data")
        self.arrived = wire.places

    def send(self, *, running: bool) -> int:
        return transfer.send_content(moved.original(self._wire.source), running=running)

    def clock_was_set(self, seconds: float) -> None:
        """What the note of the first pass looks like when the clock has been set since."""
        path = self._wire.source.memory_path("content_sent.json")
        durable.write_json(path, {name: value - seconds for name, value in durable.read_json(path).items()})


@pytest.fixture
def contents(wire: Wire, disk: Path) -> Contents:
    return Contents(wire, disk / "docker")


def _rewritten(file: Path) -> None:
    file.write_text("after!")


def _rewritten_with_its_old_time(file: Path) -> None:
    status = file.stat()
    file.write_text("after!")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replaced_by_a_file_with_its_old_time(file: Path) -> None:
    status = file.stat()
    new = file.with_name("new")
    new.write_text("after!")
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(file)


NAMES = ("file", "with\nline", "-n", " blank ", "--files-from", "deep/er", "\u00fc", "*")


def _changed_between_the_passes(
    contents: Contents, change: Callable[[Path], None], names: tuple[str, ...], *, clock_set_by: float = 0.0
) -> None:
    places = {contents.volume: contents.arrived / "volume/data", contents.layer: contents.arrived / "layer"}
    for source in places:
        for name in names:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text("before")
            # Made long ago, as far as its times tell.
            os.utime(source / name, (1_000_000_000, 1_000_000_000))
    contents.send(running=True)
    for source, target in places.items():
        for name in names:
            assert (target / name).read_text() == "before"
            change(source / name)
    contents.clock_was_set(clock_set_by)
    contents.send(running=False)
    missed = [name for target in places.values() for name in names if (target / name).read_text() != "after!"]
    assert missed == []


@pytest.mark.parametrize("change", [_rewritten, _rewritten_with_its_old_time, _replaced_by_a_file_with_its_old_time])
def test_a_file_that_changed_between_the_passes_arrives(change: Callable[[Path], None], contents: Contents) -> None:
    _changed_between_the_passes(contents, change, NAMES)


@pytest.mark.parametrize("change", [_rewritten_with_its_old_time, _replaced_by_a_file_with_its_old_time])
def test_a_file_that_changed_before_the_clock_was_set_back_arrives(
    change: Callable[[Path], None], contents: Contents
) -> None:
    _changed_between_the_passes(contents, change, ("file", "deep/er"), clock_set_by=-3600)


# -- a destination that has something already: the volume and the layer that a move away has left there ----------------


def _same_size_and_time(contents: Contents, *, first: bytes = b"before", then: bytes = b"after!") -> list[Path]:
    """Files that the destination has with other content of the same size and time; returns where they lie there."""
    found = []
    for source, target in ((contents.volume, "volume/data"), (contents.layer, "layer")):
        for name in ("package.json", "deep/er"):
            for place, content in ((source, then), (contents.arrived / target, first)):
                (place / name).parent.mkdir(exist_ok=True)
                (place / name).write_bytes(content)
                # The date that npm gives every file of a package.
                os.utime(place / name, (499_162_500, 499_162_500))
            found.append(contents.arrived / target / name)
    return found


def test_a_file_of_the_same_size_and_time_as_an_old_one_arrives(contents: Contents) -> None:
    arrived = _same_size_and_time(contents)
    contents.send(running=True)
    assert [path.read_bytes() for path in arrived] == [b"after!"] * 4


def test_what_is_there_already_is_compared_and_not_sent_or_written_again(contents: Contents) -> None:
    content = os.urandom(1 << 20)
    arrived = _same_size_and_time(contents, first=content, then=content)
    before = [path.stat().st_ino for path in arrived]
    assert contents.send(running=True) < 1 << 18
    assert [path.stat().st_ino for path in arrived] == before


def test_nothing_is_compared_where_nothing_is_or_in_the_frozen_time(contents: Contents, wire: Wire) -> None:
    """To compare is to read everything on both sides."""
    _same_size_and_time(contents)
    # The directory itself stays: another one in its place would be found out.
    for path in (contents.arrived / "volume/data").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    contents.send(running=True)
    contents.send(running=False)
    asked = [(command[-1].rstrip("/"), _compares(command)) for command in wire.commands if command[0] == "rsync"]
    assert [target for target, compares in asked if compares] == ["layer"]
    assert len(asked) > 4


def _compares(command: list[str]) -> bool:
    return any(
        word.startswith("-") and not word.startswith("--") and "c" in word.partition("e.")[0] for word in command
    )


def test_the_other_end_waits_as_long_as_it_takes_to_read_what_is_compared(contents: Contents, wire: Wire) -> None:
    """rsync says nothing while it reads a file for its checksum, and the other end takes silence for a dead source (run)."""
    _same_size_and_time(contents)
    with (contents.volume / "image").open("wb") as file:
        file.truncate(3 << 30)
    contents.send(running=True)
    limits = {
        command[-1].rstrip("/"): int(word.partition("=")[2])
        for command in wire.commands
        for word in command
        if word.startswith("--timeout=")
    }
    assert limits["layer"] < 200 < limits["volume/data"]
    assert "log" not in limits


def test_a_file_whose_name_is_no_text_arrives(contents: Contents) -> None:
    _changed_between_the_passes(contents, _rewritten, ("na\udcffme",))


def test_stores_through_a_shared_map_arrive(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store to a page that is dirty already does not move the file's time (mm/memory.c calls the file system once a page)."""
    file = contents.volume / "map"
    file.write_bytes(b"A" * 4096)
    with file.open("r+b") as handle, mmap.mmap(handle.fileno(), 4096) as shared:
        shared[:1] = b"B"
        rsync = Channel.rsync

        def store_while_it_is_sent(self: Channel, *arguments: Any, **keywords: Any) -> int:
            # After the pass has begun, before and after it reads the file.
            shared[:1] = b"C"
            sent = rsync(self, *arguments, **keywords)
            shared[:1] = b"D"
            return sent

        with monkeypatch.context() as patch:
            patch.setattr(Channel, "rsync", store_while_it_is_sent)
            before = file.stat().st_mtime_ns
            contents.send(running=True)
        assert file.stat().st_mtime_ns > before
        contents.send(running=False)
    assert (contents.arrived / "volume/data/map").read_bytes() == file.read_bytes()
    assert file.read_bytes()[:1] == b"D"


@pytest.mark.usefixtures("needs_namespaces")
def test_stores_through_a_shared_map_on_a_tmpfs_arrive(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """There they move no time at all."""
    monkeypatch.setattr(transfer, "_MARGIN_SECONDS", 0.0)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", contents.volume], check=True)
    try:
        file = contents.volume / "map"
        file.write_bytes(b"A" * 4096)
        with file.open("r+b") as handle, mmap.mmap(handle.fileno(), 4096) as shared:
            shared[:1] = b"B"
            time.sleep(0.1)
            contents.send(running=True)
            shared[:1] = b"C"
            contents.send(running=False)
        assert (contents.arrived / "volume/data/map").read_bytes()[:1] == b"C"
    finally:
        subprocess.run(["umount", contents.volume], check=True)


def test_what_nobody_touched_is_not_sent_again(contents: Contents) -> None:
    for number in range(20):
        (contents.volume / str(number)).write_bytes(os.urandom(50_000))
        # Long ago, as far as times tell.
        os.utime(contents.volume / str(number), (1_000_000_000, 1_000_000_000))
    first = contents.send(running=True)
    assert first > 1_000_000
    assert contents.send(running=False) < first / 2


@pytest.mark.usefixtures("needs_root")
def test_the_second_pass_brings_nothing_that_stays_on_its_host(contents: Contents) -> None:
    (contents.layer / "file").write_text("copied up")
    for name in ("origin", "impure"):
        os.setxattr(contents.layer / "file", f"trusted.overlay.{name}", b"source")
    (contents.directory / f"{CONTAINER}-json.log").write_text("one line\n")
    contents.send(running=True)
    with (contents.layer / "file").open("a") as file:
        file.write(" and changed")
    with (contents.directory / f"{CONTAINER}-json.log").open("a") as file:
        file.write("another line\n")
    # The engine's own files, and a checkpoint that has its own way.
    (contents.directory / "config.v2.json").write_text("PASSWORD=secret")
    (contents.directory / "checkpoints" / "c1").mkdir(parents=True)
    (contents.directory / "checkpoints" / "c1" / "pages-1.img").write_bytes(os.urandom(1 << 20))
    sent = contents.send(running=False)
    assert os.listxattr(contents.arrived / "layer" / "file") == []
    assert (contents.arrived / "layer" / "file").read_text() == "copied up and changed"
    assert [path.name for path in (contents.arrived / "log").rglob("*") if path.is_file()] == [f"{CONTAINER}-json.log"]
    assert (contents.arrived / "log" / f"{CONTAINER}-json.log").read_text() == "one line\nanother line\n"
    assert sent < 1 << 20


@pytest.mark.usefixtures("needs_root")
def test_after_both_passes_all_is_as_on_the_source(contents: Contents) -> None:
    (contents.volume / "a").write_text("a")
    os.link(contents.volume / "a", contents.volume / "b")
    (contents.volume / "dir").mkdir()
    (contents.volume / "dir" / "gone").write_text("")
    contents.send(running=True)
    with (contents.volume / "a").open("a") as file:
        file.write("+")
    os.chown(contents.volume / "a", 33, 33)
    (contents.volume / "dir" / "gone").unlink()
    (contents.volume / "dir" / "c").write_text("c")
    os.utime(contents.volume / "dir", (5, 5))
    (contents.volume / "link").symlink_to("a")
    contents.send(running=False)
    arrived = snapshot(contents.arrived / "volume/data")
    assert arrived == snapshot(contents.volume)
