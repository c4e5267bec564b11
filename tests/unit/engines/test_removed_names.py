# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file that is open under a removed name, and has another one, gets the name that CRIU's images tell."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import core_image
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import removed_names
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import wait_for

# By the beginning of a name.
_HEADS = {
    "remap-fpath": (0x54564319, 0x59133954),
    "files": (0x54564319, 0x56303138),
    "pstree": (0x54564319, 0x50273030),
    "ids": (0x54564319, 0x54432030),
    "fdinfo": (0x54564319, 0x56213732),
    "mm": (0x54564319, 0x57492820),
}
_HOLD = "import sys, time; held = [open(name) for name in sys.argv[1:]]; print(1, flush=True); sys.stdin.read()"


def _image(place: Path, name: str, *entries: list[Any]) -> None:
    data = struct.pack("<II", *_HEADS[name[:-4].rstrip("0123456789").rstrip("-")])
    for entry in entries:
        message = core_image.build(entry)
        data += struct.pack("<I", len(message)) + message
    (place / name).write_bytes(data)


def _file(number: int, name: str) -> list[Any]:
    """A file_entry of a regular file, as CRIU writes it."""
    regular: list[Any] = [(1, 0, number), (2, 0, 0), (3, 0, 0), (5, 2, b""), (6, 2, os.fsencode(name))]
    return [(1, 0, 1), (2, 0, number), (3, 2, core_image.build(regular))]


def _remap(original: int, remap: int, kind: int | None = 0) -> list[Any]:
    return [(1, 0, original), (2, 0, remap), *([] if kind is None else [(3, 0, kind)])]


def _processes(place: Path, *pids: int) -> None:
    """Which processes there are, each with a table of descriptors of its own that has its number."""
    _image(place, "pstree.img", *([(1, 0, pid), (2, 0, 0), (5, 0, pid)] for pid in pids))
    for pid in pids:
        _image(place, f"ids-{pid}.img", [(1, 0, 70), (2, 0, pid), (3, 0, 71), (4, 0, 72)])


def _descriptors(place: Path, pid: int, numbers: dict[int, int]) -> None:
    """The files that a process has open: CRIU's numbers of them, by descriptors."""
    entries = [[(1, 0, number), (2, 0, 0), (3, 0, 1), (4, 0, fd)] for fd, number in numbers.items()]
    _image(place, f"fdinfo-{pid}.img", *entries)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    return place


def test_without_such_files_nothing_is_wanted(images: Path) -> None:
    assert removed_names.wanted(str(images)) == []
    _image(images, "remap-fpath.img")
    assert removed_names.wanted(str(images)) == []


def test_only_links_are_wanted(images: Path) -> None:
    """Ghosts are in the images themselves, and a dead process is no file."""
    _image(
        images, "files.img", _file(1, "/data/old"), _file(2, "/gone"), _file(9, "/data/link_remap.9"), _file(7, "/x")
    )
    _image(images, "remap-fpath.img", _remap(1, 9), _remap(2, 3, 1), _remap(7, 4, 2))
    assert removed_names.wanted(str(images)) == [("/data/old", "/data/link_remap.9", 1)]
    # As an older CRIU wrote it.
    _image(images, "remap-fpath.img", _remap(1, 9, None))
    assert removed_names.wanted(str(images)) == [("/data/old", "/data/link_remap.9", 1)]


@pytest.mark.parametrize(
    "data", [b"", b"no image at all", struct.pack("<III", *_HEADS["remap-fpath"], 400) + b"cut off"]
)
def test_what_is_no_such_image_is_left_alone(data: bytes, images: Path, make_session: Any) -> None:
    (images / "remap-fpath.img").write_bytes(data)
    with pytest.raises(ValueError, match=r"no such image|cut off"):
        removed_names.wanted(str(images))
    removed_names.give(make_session(SOURCE), str(images), os.getpid(), [])


@pytest.fixture
def holder(disk: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process in a mount namespace of its own that holds such files, and their directory."""
    place = disk / "data"
    place.mkdir()
    (place / "old").write_text("content")
    (place / "ghost").write_text("nobody else has it")
    os.link(place / "old", place / "new")
    command = ["unshare", "--mount", sys.executable, "-c", _HOLD, str(place / "old"), str(place / "ghost")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (place / "old").unlink()
        (place / "ghost").unlink()
        try:
            yield process, place
        finally:
            process.kill()


def _bring_to_arming(session: Session, pid: int) -> None:
    session.enter("prepared")
    session.enter("arming", pid=pid, cgroup="/nowhere", policy={})


@pytest.mark.usefixtures("needs_namespaces")
def test_the_name_is_given_and_taken_back(
    holder: tuple[subprocess.Popen[bytes], Path], images: Path, make_session: Any
) -> None:
    process, place = holder
    wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text() != "unshare\n", "the process")
    session = make_session(SOURCE)
    _bring_to_arming(session, process.pid)
    link = place / "link_remap.9"
    _image(images, "files.img", _file(1, str(place / "old")), _file(9, str(link)))
    _image(images, "remap-fpath.img", _remap(1, 9))
    _processes(images, process.pid)
    _descriptors(images, process.pid, {3: 1, 4: 2})
    for _time in range(2):
        removed_names.give(session, str(images), process.pid, [process.pid])
        assert link.samefile(place / "new")
        assert link.stat().st_nlink == 2
    for _time in range(2):
        removed_names.take_back(session)
        assert sorted(path.name for path in place.iterdir()) == ["new"]


@pytest.mark.usefixtures("needs_namespaces")
def test_a_map_holds_a_file_too(disk: Path, images: Path, make_session: Any) -> None:
    """The descriptor may have been closed."""
    place = disk / "data"
    place.mkdir()
    (place / "old").write_bytes(bytes(4096))
    os.link(place / "old", place / "new")
    code = (
        "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); "
        "print(1, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(place / "old")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (place / "old").unlink()
        session = make_session(SOURCE)
        _bring_to_arming(session, process.pid)
        _image(images, "files.img", _file(1, str(place / "old")), _file(9, str(place / "link_remap.9")))
        _image(images, "remap-fpath.img", _remap(1, 9))
        _processes(images, process.pid)
        [mapped] = [
            line.split()[0]
            for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            if "/data/old" in line
        ]
        start, end = (int(one, 16) for one in mapped.split("-"))
        vma: list[Any] = [(1, 0, start), (2, 0, end), (3, 0, 0), (4, 0, 1), (8, 0, (1 << 64) - 1)]
        _image(images, f"mm-{process.pid}.img", [(1, 0, 0), (12, 0, 5), (14, 2, core_image.build(vma))])
        removed_names.give(session, str(images), process.pid, [process.pid])
        assert (place / "link_remap.9").samefile(place / "new")
        process.kill()


_SAME_NAME = """
import os, sys
os.chdir(sys.argv[1])
for name in "AB":
    held = os.open(".tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.link(".tmp", name)
    os.unlink(".tmp")
print(1, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(disk: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that has made two files under the same name, one after the other, and their directory."""
    place = disk / "data"
    place.mkdir()
    command = ["unshare", "--mount", sys.executable, "-c", _SAME_NAME, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process, place
        finally:
            process.kill()


class Two(NamedTuple):
    """A session whose dump wants names for two files that had the same one."""

    session: Any
    images: Path
    place: Path
    pid: int

    def give(self) -> None:
        removed_names.give(self.session, str(self.images), self.pid, [self.pid])

    @property
    def names(self) -> list[str]:
        """What is in their directory."""
        return sorted(path.name for path in self.place.iterdir())


@pytest.fixture
def two(writer: tuple[subprocess.Popen[bytes], Path], images: Path, make_session: Any) -> Two:
    process, place = writer
    found = Two(make_session(SOURCE), images, place, process.pid)
    _bring_to_arming(found.session, process.pid)
    removed = _file(1, str(place / ".tmp")), _file(2, str(place / ".tmp"))
    links = _file(8, str(place / "link_remap.8")), _file(9, str(place / "link_remap.9"))
    _image(images, "files.img", *removed, *links)
    _image(images, "remap-fpath.img", _remap(1, 8), _remap(2, 9))
    _processes(images, process.pid)
    return found


@pytest.mark.usefixtures("needs_namespaces")
def test_two_files_that_had_the_same_name_are_distinguished(two: Two) -> None:
    """Else what the program writes into one of them would overwrite the other one."""
    _descriptors(two.images, two.pid, {3: 1, 4: 2})
    two.give()
    assert (two.place / "link_remap.8").samefile(two.place / "A")
    assert (two.place / "link_remap.9").samefile(two.place / "B")
    removed_names.take_back(two.session)
    assert two.names == ["A", "B"]


@pytest.mark.usefixtures("needs_namespaces")
def test_a_file_that_nobody_can_point_at_stops_the_move(two: Two) -> None:
    """One on its way through a socket, for instance: no process has a descriptor of it."""
    _descriptors(two.images, two.pid, {3: 1})
    with pytest.raises(MigrationError, match=r"/\.tmp, which was removed") as caught:
        two.give()
    assert caught.value.code == "dump_failed"
    (two.images / f"fdinfo-{two.pid}.img").write_bytes(b"of another CRIU")
    with pytest.raises(MigrationError, match=r"do not tell which: fdinfo-\d+\.img is no such image"):
        two.give()
    assert two.names == ["A", "B"]


@pytest.mark.usefixtures("needs_namespaces")
def test_a_name_that_another_file_has_is_not_taken_for_the_right_one(two: Two) -> None:
    """And that file is left alone when the names are taken back."""
    _descriptors(two.images, two.pid, {3: 1, 4: 2})
    (two.place / "link_remap.9").write_text("somebody else's")
    with pytest.raises(MigrationError, match=r"cannot be given another one: .*File exists"):
        two.give()
    removed_names.take_back(two.session)
    assert two.names == ["A", "B", "link_remap.9"]
    assert (two.place / "link_remap.9").read_text() == "somebody else's"
