# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners, modes and flags of descriptors go from one real process to another that has the same ones."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import descriptors
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.ids import Ids
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.inhabitants import inhabited

# Numbers are chosen, so that both programs have the same: 100 and so on.
_OPEN = """
import fcntl, os, socket
def at(number, descriptor):
    os.dup2(descriptor, number)
reading, writing = os.pipe()
at(100, reading), at(101, writing)
at(102, os.memfd_create("m"))
at(103, os.openpty()[1])
at(104, socket.socket().detach())
at(105, os.eventfd({count}))
at(106, os.open("/dev/null", os.O_RDONLY))
"""
_AS_THE_USER_HAS_IT = """
for number, mode in ((100, 0o620), (102, 0o640), (103, 0o602), (104, 0o700)):
    os.chmod(number, mode)
    os.chown(number, 1000, 1001)
fcntl.fcntl(101, fcntl.F_SETFL, os.O_WRONLY | os.O_NONBLOCK)
"""
ORIGINAL = _OPEN.format(count=7) + _AS_THE_USER_HAS_IT
# As CRIU makes it anew.
COPY = _OPEN.format(count=7)


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


def _sent(data: Any) -> Any:
    return json.loads(json.dumps(data))


def _found(side: Side, number: int) -> tuple[int, int, int]:
    status = os.stat(f"/proc/{side.init}/fd/{number}")
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


def test_owners_modes_and_flags_are_carried(group: Group) -> None:
    """Of a pipe (by either end), a file in memory, a terminal and a socket; before that each is told."""
    with inhabited(group, "original", ORIGINAL) as original, inhabited(group, "copy", COPY) as copy:
        source = _sent(descriptors.take(original, None))
        reported = descriptors.compare(copy, source)
        for part in (
            "descriptor 100 of process 1 (pipe) belongs to 0:0 with mode 0600 and not to 1000:1001 with mode 0620",
            "descriptor 101 of process 1 (pipe) belongs to 0:0 with mode 0600 and not to 1000:1001 with mode 0620",
            "descriptor 101 of process 1 (pipe) has the flags 0o1 and not 0o4001",
            "descriptor 102 of process 1 (file) belongs to 0:0 with mode 0777 and not to 1000:1001 with mode 0640",
            "descriptor 103 of process 1 (terminal) belongs to",
            "descriptor 104 of process 1 (socket) belongs to 0:0 with mode 0777 and not to 1000:1001 with mode 0700",
        ):
            assert any(line.startswith(part) for line in reported), (part, reported)
        descriptors.carry(copy, source)
        assert descriptors.compare(copy, source) == []
        assert _found(copy, 100) == (1000, 1001, 0o620)
        assert _found(copy, 103) == (1000, 1001, 0o602)
        flags = Path(f"/proc/{copy.init}/fdinfo/101").read_text()
        assert "flags:\t0104001" in flags or "flags:\t04001" in flags


def test_a_terminal_as_runc_opens_it(group: Group) -> None:
    """Linux 6.18 tells O_CLOEXEC of every descriptor for it; once restored it does not."""
    by_ioctl = "fcntl.ioctl(os.openpty()[0], 0x5441, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)"
    opened, restored = (f"import fcntl, os\nos.dup2({how}, 100)\n" for how in (by_ioctl, "os.openpty()[1]"))
    with inhabited(group, "original", opened) as original, inhabited(group, "copy", restored) as copy:
        source = _sent(descriptors.take(original, None))
        descriptors.carry(copy, source)
        assert not [line for line in descriptors.compare(copy, source) if "descriptor 100" in line]


def test_what_cannot_be_carried_is_reported(group: Group) -> None:
    """A counter behind an eventfd, a descriptor too few and one too many, another thing under the same number."""
    changed = _OPEN.format(count=8) + "os.close(104)\nat(107, 0)\nat(106, os.memfd_create('other'))\n"
    with inhabited(group, "original", COPY) as original, inhabited(group, "copy", changed) as copy:
        source = _sent(descriptors.take(original, None))
        descriptors.carry(copy, source)
        reported = [line for line in descriptors.compare(copy, source) if "descriptor 10" in line]
        assert reported == [
            "descriptor 104 of process 1 (socket) is missing",
            "descriptor 105 of process 1 (anon_inode:[eventfd]) is in another state",
            "descriptor 106 of process 1 is a file and no character device",
            f"descriptor 107 of process 1 ({source['1']['0'][0]}) is too much",
        ]


def test_a_copy_that_runs_already_gets_owners_and_is_not_compared(group: Group) -> None:
    """As with the engine `api`: its programs may have opened and changed what they like."""
    with inhabited(group, "original", ORIGINAL) as original, inhabited(group, "copy", COPY) as copy:
        source = _sent(descriptors.take(original, None))
        copy.group.thaw()
        descriptors.carry(copy, source)
        assert _found(copy, 100) == (1000, 1001, 0o620)
        assert descriptors.compare(copy, source) == []
        copy.group.freeze()
        (reported,) = (line for line in descriptors.compare(copy, source) if "descriptor 10" in line)
        assert reported.startswith("descriptor 101 of process 1 (pipe) has the flags")


def test_a_file_with_a_name_keeps_the_owner_that_its_copy_has(group: Group, tmp_path: Path) -> None:
    """Files of the container are copied with their owners; what is bound from the host is the host's own."""
    (tmp_path / "theirs").write_text("")
    program = f"import os\nos.dup2(os.open({str(tmp_path / 'theirs')!r}, os.O_RDWR), 100)\n"
    with inhabited(group, "original", program) as original:
        assert descriptors.take(original, None)["1"]["100"].owner is None


def test_ids_as_the_container_counts_them() -> None:
    """By the map of an engine with userns-remap, and of one without."""
    remapped = Ids(["         0     100000      65536\n"])
    assert (remapped.inside(101000), remapped.outside(1000)) == (1000, 101000)
    assert remapped.inside(0) == 0, "the container has no name for it"
    plain = Ids.of(os.getpid(), "uid")
    assert (plain.inside(1000), plain.outside(1000)) == (1000, 1000)


def test_what_comes_in_the_place_of_a_descriptor_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of a copy that runs: just when somebody has looked at a pipe of its, it has a file of the host there."""
    (theirs := tmp_path / "theirs").write_text("")
    theirs.chmod(0o644)
    before = theirs.stat()
    pipe, file = os.pipe(), os.open(theirs, os.O_RDONLY)
    stat = os.stat

    def stat_and_swap(path: Any, **how: Any) -> os.stat_result:
        found = stat(path, **how)
        if path == f"/proc/{os.getpid()}/fd/{pipe[0]}":
            os.dup2(file, pipe[0])
        return found

    side: Any = SimpleNamespace(
        init=os.getpid(), processes={"1": os.getpid()}, group=SimpleNamespace(frozen=False), notes={}
    )
    try:
        monkeypatch.setattr(os, "stat", stat_and_swap)
        descriptors.carry(side, {"1": {str(pipe[0]): ["pipe", 0, [], [1000, 1001, 0o666]]}})
        monkeypatch.setattr(os, "stat", stat)
        assert os.fstat(pipe[0]).st_ino == before.st_ino, "nothing came in its place"
    finally:
        for one in (*pipe, file):
            os.close(one)
    now = theirs.stat()
    assert (now.st_uid, now.st_gid, now.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


@pytest.mark.parametrize(("frozen", "owner"), [(True, 1000), (False, 0)])
def test_where_no_descriptor_can_be_borrowed_only_a_frozen_process_is_trusted_with_its_paths(
    frozen: bool, owner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.6."""

    def not_here(*_arguments: int) -> Any:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(descriptors, "borrowed", not_here)
    pipe = os.pipe()
    side: Any = SimpleNamespace(
        init=os.getpid(), processes={"1": os.getpid()}, group=SimpleNamespace(frozen=frozen), notes={}
    )
    try:
        descriptors.carry(side, {"1": {str(pipe[0]): ["pipe", 0, [], [1000, 1001, 0o666]]}})
        assert os.fstat(pipe[0]).st_uid == owner
    finally:
        for one in pipe:
            os.close(one)


def test_a_socket_with_a_name_keeps_the_owner_that_it_has(group: Group, tmp_path: Path) -> None:
    """Open with O_PATH, as a name of a socket can be: it may be one of the host's, bound into the container."""
    program = (
        f"import os, socket\nsocket.socket(socket.AF_UNIX).bind({str(tmp_path / 'theirs')!r})\n"
        f"os.dup2(os.open({str(tmp_path / 'theirs')!r}, os.O_PATH), 100)\n"
    )
    with inhabited(group, "original", program) as original:
        found = descriptors.take(original, None)["1"]["100"]
        assert (found.kind, found.owner) == ("socket", None)


@pytest.mark.parametrize("name", ["../../../docker.sock", "-1", "", "1/../2", "\u0661"])
def test_no_other_file_is_given_away(name: str) -> None:
    """Numbers that come from another host go into paths."""
    side: Any = SimpleNamespace(init=os.getpid(), processes={"1": os.getpid()}, group=SimpleNamespace(frozen=True))
    with pytest.raises(ValueError, match="is no descriptor"):
        descriptors.carry(side, {"1": {name: ["socket", 0, [], [1000, 1000, 0o777]]}})
