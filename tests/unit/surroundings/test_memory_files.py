# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tar does not take along of files in memory: of real file systems in mount namespaces of their own, packed as CRIU does."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import memory_tree
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import memory_files

pytestmark = pytest.mark.usefixtures("needs_namespaces")

# Two file systems, one with another one in it; a directory of the host that is bound; and places below /proc.
MOUNTS = (
    "mount --make-rprivate / && mount -t tmpfs a /mnt && mkdir /mnt/run /mnt/shm && mount -t tmpfs b /mnt/run &&"
    " mount -t tmpfs c /mnt/shm && mkdir /mnt/run/inner && mount -t tmpfs d /mnt/run/inner && echo made && read word"
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
# As CRIU calls it (criu/filesystems.c).
PACK = (
    *("tar", "--create", "--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links"),
    *("--preserve-permissions", "--sparse", "--numeric-owner", "--directory"),
)
UNPACK = ("tar", "--extract", "--gzip", "--no-unquote", "--no-wildcards", "--directory")


def _acl(*, user: int, rights: int) -> bytes:
    """An access control list that lets one more user in: user::rw-, group::---, other::---."""
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, rights, user), (4, 0, nobody), (16, rights, nobody), (32, 0, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@contextmanager
def _mounted(directory: Path, program: str = MOUNTS, *, frozen: bool = True, number: str = "1") -> Iterator[Any]:
    """A side whose first process has these mounts."""
    directory.mkdir(exist_ok=True)
    (directory / "config.v2.json").write_text(json.dumps({"MountPoints": {"/mnt/bound": {"Type": "bind"}}}))
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        try:
            yield SimpleNamespace(
                init=process.pid,
                directory=str(directory),
                processes={number: process.pid},
                ignored=frozenset(),
                notes={},
                group=SimpleNamespace(frozen=frozen),
            )
        finally:
            process.stdin.close()


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A source and its copy, with the same mounts."""
    with ExitStack() as stack:
        yield stack.enter_context(_mounted(tmp_path / "source")), stack.enter_context(_mounted(tmp_path / "copy"))


def _root(side: Any) -> Path:
    return Path(f"/proc/{side.init}/root")


def _fill(side: Any) -> None:
    """Files with all that tar loses."""
    run, shm = _root(side) / "mnt/run", _root(side) / "mnt/shm"
    (run / "deep/er").mkdir(parents=True)
    secret = run / "deep/er/secret"
    secret.write_text("x")
    secret.chmod(0o600)
    os.setxattr(secret, "system.posix_acl_access", _acl(user=1000, rights=4))
    os.setxattr(run / "deep", "system.posix_acl_default", _acl(user=1001, rights=6))
    (run / "deep/program").write_bytes(b"#!/bin/true")
    os.setxattr(run / "deep/program", "security.capability", CAPABILITY)
    (shm / "plain").write_text("y")
    (shm / "na me\udce4").symlink_to("/etc/passwd")
    os.setxattr(shm / "na me\udce4", "trusted.note", b"\0\xff", follow_symlinks=False)
    os.mkfifo(shm / "pipe")
    os.setxattr(shm, "trusted.of.the.root", b"1")
    os.utime(shm / "plain", ns=(1_000_000_001, 2_000_000_002))


def _move(source: Any, copy: Any) -> None:
    """What CRIU does with the files."""
    for place in ("mnt", "mnt/run", "mnt/shm", "mnt/run/inner"):
        packed = subprocess.run([*PACK, str(_root(source) / place), "."], stdout=subprocess.PIPE, check=True).stdout
        subprocess.run([*UNPACK, str(_root(copy) / place)], input=packed, check=True)


def _taken(side: Any) -> Any:
    return json.loads(json.dumps(memory_files.take(side, memory_files.look_ahead(side))))


def test_what_tar_loses_is_carried(sides: tuple[Any, Any]) -> None:
    source, copy = sides
    _fill(source)
    taken = _taken(source)
    _move(source, copy)
    secret = _root(copy) / "mnt/run/deep/er/secret"
    assert secret.stat().st_mode & 0o070 == 0o040, "without its list the group may read it"
    differences = memory_files.compare(copy, taken)
    assert sum("extended attributes" in one for one in differences) == 5
    assert any("last change of plain in /mnt/shm" in one for one in differences)
    memory_files.carry(copy, taken)
    assert memory_files.compare(copy, taken) == []
    assert os.getxattr(secret, "system.posix_acl_access") == _acl(user=1000, rights=4)
    assert os.getxattr(_root(copy) / "mnt/run/deep", "system.posix_acl_default") == _acl(user=1001, rights=6)
    assert os.getxattr(_root(copy) / "mnt/run/deep/program", "security.capability") == CAPABILITY
    plain = (_root(copy) / "mnt/shm/plain").stat()
    assert (plain.st_atime_ns, plain.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
    for place in ("", "/run", "/run/deep", "/shm", "/shm/pipe"):
        was, now = ((_root(side) / f"mnt{place}").stat().st_mtime_ns for side in sides)
        assert was == now, place
    [link] = (path for path in (_root(copy) / "mnt/shm").iterdir() if path.is_symlink())
    assert os.getxattr(link, "trusted.note", follow_symlinks=False) == b"\0\xff"
    # The copy gives away what it has itself.
    again = _taken(copy)
    for one in [*taken, *again]:
        # To look at it reads the directories.
        one["times"] = {d: {n: times[1] for n, times in its.items()} for d, its in one["times"].items()}
    assert sorted(again, key=str) == sorted(taken, key=str)


def test_a_copy_that_runs_is_only_looked_at(sides: tuple[Any, Any]) -> None:
    """A program may have put another file in the place of one, which must not get its capabilities."""
    source, copy = sides
    _fill(source)
    taken = _taken(source)
    _move(source, copy)
    copy.group.frozen = False
    memory_files.carry(copy, taken)
    differences = memory_files.compare(copy, taken)
    assert len(differences) == 5
    assert all("extended attributes" in one for one in differences)


def test_a_link_leads_nowhere(tmp_path: Path, sides: tuple[Any, Any]) -> None:
    """The copy's files may be others than the source says, and a source may say what it likes."""
    source, copy = sides
    _fill(source)
    taken = _taken(source)
    outside = tmp_path / "outside"
    (outside / "er").mkdir(parents=True)
    (outside / "er/secret").write_text("of the host")
    (_root(copy) / "mnt/run/deep").symlink_to(outside)
    (_root(copy) / "mnt/shm/plain").symlink_to(outside / "er/secret")
    was = (outside / "er/secret").stat()
    memory_files.carry(copy, taken)
    assert (outside / "er/secret").stat() == was
    assert [os.listxattr(path) for path in (outside, outside / "er", outside / "er/secret")] == [[], [], []]
    assert len(memory_files.compare(copy, taken)) >= 4


@pytest.mark.parametrize("path", ["../../etc/passwd", "deep/../x", "deep//x", "/etc", "a\0b", "."])
def test_paths_that_no_source_can_have_found(path: str, sides: tuple[Any, Any]) -> None:
    _source, copy = sides
    one: dict[str, Any] = {"process": "1", "place": "/mnt/run", "attributes": {}, "times": {}}
    with pytest.raises(ValueError, match="no path below"):
        memory_files.carry(copy, [{**one, "attributes": {path: {"user.x": "eA=="}}}])
    with pytest.raises(ValueError, match="no path below"):
        memory_files.carry(copy, [{**one, "times": {path: {"x": [0, 0]}}}])
    if path != ".":
        with pytest.raises(ValueError, match="no file of a directory"):
            memory_files.carry(copy, [{**one, "times": {"": {path: [0, 0]}}}])
    with pytest.raises(ValueError, match="is no attribute that is carried"):
        memory_files.carry(copy, [{**one, "attributes": {"x": {"security.selinux": "eA=="}}}])


def test_another_file_system_is_not_reached(sides: tuple[Any, Any]) -> None:
    """Neither what is mounted in one, nor what is mounted in its place."""
    _source, copy = sides
    inner = _root(copy) / "mnt/run/inner"
    was = inner.stat()
    one = {"process": "1", "place": "/mnt/run", "attributes": {"inner": {"trusted.x": "eA=="}}}
    memory_files.carry(copy, [{**one, "times": {"": {"inner": [1, 1]}, "inner": {".": [1, 1]}}}])
    assert inner.stat() == was
    assert os.listxattr(inner) == []
    elsewhere = {**one, "place": "/mnt", "attributes": {"run": {"trusted.x": "eA=="}}, "times": {}}
    memory_files.carry(copy, [elsewhere])
    assert os.listxattr(inner.parent) == []
    [difference] = memory_files.compare(copy, [elsewhere])
    assert difference.endswith("of /mnt/run")
    [difference] = memory_files.compare(copy, [{**one, "place": "/nowhere", "times": {}}])
    assert difference == "the file system in memory at /nowhere"


def test_which_file_systems_are_the_containers_own(tmp_path: Path) -> None:
    """Not what a bind mount brings, not what the host has mounted as well, and each one once."""
    program = (
        "mount --make-rprivate / && mount -t tmpfs a /mnt && mkdir /mnt/bound /mnt/twice /mnt/below /mnt/shm &&"
        " mount -t tmpfs b /mnt/bound && mount --bind /mnt/shm /mnt/shm && mount -t tmpfs c /mnt/below &&"
        " mount --bind /mnt/below /mnt/twice && mount -t tmpfs e /mnt/below && mount --bind /dev/shm /mnt/shm &&"
        " echo made && read word"
    )
    with _mounted(tmp_path / "source", program) as side:
        places = [tree.place for tree in memory_tree.trees(side.init, ["/mnt/bound"])]
        # Of two at one place the upper one, and the lower one where a path leads to it. This host has its own in there as well.
        assert " - tmpfs " in Path("/proc/self/mountinfo").read_text()
        assert places == ["/mnt", "/mnt/twice", "/mnt/below"]
        (_root(side) / "mnt/below/file").write_text("x")
        os.setxattr(_root(side) / "mnt/below/file", "trusted.x", b"1")
        taken = {one["place"]: list(one["attributes"]) for one in _taken(side)}
        assert taken["/mnt/below"] == ["file"]
        assert taken["/mnt"] == taken["/mnt/twice"] == []


def test_programs_that_have_mounts_of_their_own(tmp_path: Path) -> None:
    """What is mounted there alone counts for them, and the rest counts once."""
    with _mounted(tmp_path / "a") as side, _mounted(tmp_path / "b", number="7") as other:
        side.processes = {**other.processes, **side.processes}
        (_root(other) / "mnt/run/file").write_text("x")
        os.setxattr(_root(other) / "mnt/run/file", "trusted.x", b"1")
        taken = _taken(side)
        assert {one["process"] for one in taken} == {"1", "7"}
        [found] = [one for one in taken if one["attributes"]]
        assert (found["process"], found["place"]) == ("7", "/mnt/run")
        os.removexattr(_root(other) / "mnt/run/file", "trusted.x")
        memory_files.carry(side, taken)
        assert os.getxattr(_root(other) / "mnt/run/file", "trusted.x") == b"1"


def test_there_are_bounds(sides: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    source, _copy = sides
    _fill(source)
    monkeypatch.setattr(memory_files, "_MOST_TIMES", 3)
    taken = _taken(source)
    assert [one["times"] for one in taken] == [{}] * len(taken)
    assert sum(len(one["attributes"]) for one in taken) == 5
    monkeypatch.setattr(memory_files, "MOST_FILES", 3)
    with pytest.raises(OSError, match="more than"):
        memory_files.take(source, None)
    source.ignored = frozenset([memory_files.RULE])
    assert memory_files.take(source, None) is None
    monkeypatch.undo()
    source.ignored = frozenset()
    monkeypatch.setattr(memory_files, "_MOST_BYTES", 10)
    with pytest.raises(OSError, match="extended attributes"):
        memory_files.take(source, None)
    monkeypatch.undo()
    deep = _root(source) / "mnt/shm" / "/".join("d" * 210)
    deep.mkdir(parents=True)
    with pytest.raises(OSError, match="too deep"):
        memory_files.take(source, None)


def test_a_read_only_one_keeps_its_times_as_they_are(sides: tuple[Any, Any]) -> None:
    """They cannot be set there, and are no reason to refuse the copy."""
    source, copy = sides
    _fill(source)
    for path in ("run/deep/er/secret", "run/deep", "run/deep/program"):
        for name in os.listxattr(_root(source) / "mnt" / path):
            os.removexattr(_root(source) / "mnt" / path, name)
    taken = [one for one in _taken(source) if one["place"] == "/mnt/run"]
    _move(source, copy)
    subprocess.run(["nsenter", "-t", str(copy.init), "-m", "mount", "-o", "remount,bind,ro", "/mnt/run"], check=True)
    memory_files.carry(copy, taken)
    assert memory_files.compare(copy, taken) == []
