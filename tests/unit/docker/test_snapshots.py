# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a writable layer lies in containerd's image store: from captured tables of mounts, and a real one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import snapshots
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import trees
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER

BASE = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
OPTIONS = f"lowerdir={BASE}/3/fs:{BASE}/2/fs,upperdir={BASE}/4/fs,workdir={BASE}/4/work"
# Docker 28.5.2 and 26.1.5.
MOUNTED = f"/var/lib/docker/rootfs/overlayfs/{CONTAINER} rw,relatime shared:753 - overlay overlay rw,{OPTIONS}"
# containerd 2.1.9 prints the options in this order, 1.7.24 begins with index=off.
PRINTED = f"mount -t overlay overlay /livemigrate -o workdir={BASE}/4/work,upperdir={BASE}/4/fs,lowerdir={BASE}/3/fs,index=off"
PRINTED_BY_1_7 = (
    f"mount -t overlay overlay /x -o index=off,workdir={BASE}/4/work,upperdir={BASE}/4/fs,lowerdir={BASE}/3/fs\n"
)


def test_a_running_container_is_in_the_table_of_mounts() -> None:
    table = f"22 1 8:1 / / rw - ext4 /dev/sda rw\n1874 1465 0:220 / {MOUNTED}\n"
    assert snapshots.parse_mountinfo(table, CONTAINER) == f"{BASE}/4/fs"
    assert snapshots.parse_mountinfo(table, OTHER_CONTAINER) is None


@pytest.mark.parametrize(
    "table",
    [
        "",
        "garbage\n",
        # the engine's other mounts for this container
        f"9 1 0:3 / /var/lib/docker/containers/{CONTAINER}/mounts/shm rw - tmpfs shm rw,size=65536k",
        # something below the container's root, mounted by a person
        f"9 1 0:220 /etc /mnt/{CONTAINER} rw - overlay overlay rw,{OPTIONS}",
        # a name that only begins like it
        f"9 1 0:220 / /x/{CONTAINER}-init rw - overlay overlay rw,{OPTIONS}",
        # an overlay that nobody writes
        f"9 1 0:220 / /x/{CONTAINER} ro - overlay overlay ro,lowerdir=/a:/b",
    ],
)
def test_other_mounts_are_not_mistaken_for_it(table: str) -> None:
    assert snapshots.parse_mountinfo(table, CONTAINER) is None


def test_two_mounts_that_do_not_agree_tell_nothing() -> None:
    other = MOUNTED.replace("/4/fs", "/5/fs")
    assert snapshots.parse_mountinfo(f"9 1 0:3 / {MOUNTED}\n8 1 0:3 / {MOUNTED}", CONTAINER) == f"{BASE}/4/fs"
    assert snapshots.parse_mountinfo(f"9 1 0:3 / {MOUNTED}\n8 1 0:4 / {other}", CONTAINER) is None


@pytest.mark.parametrize("output", [PRINTED, PRINTED_BY_1_7])
def test_what_ctr_prints(output: str) -> None:
    assert snapshots.parse_mounts(output) == f"{BASE}/4/fs"


@pytest.mark.parametrize(
    "output",
    [
        "",
        "mount -t bind /var/lib/containerd/x/1/fs /livemigrate -o rw,rbind",
        f"mount -t overlay overlay /livemigrate -o lowerdir={BASE}/2/fs:{BASE}/1/fs",
        "mount -t overlay overlay /livemigrate -o upperdir=,workdir=/w",
    ],
)
def test_snapshots_without_an_upper_directory(output: str) -> None:
    assert snapshots.parse_mounts(output) is None


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An upper directory with a blank in its name, and the merged root over it that bears a container's id."""
    upper, merged = tmp_path / "an upper", tmp_path / "rootfs" / CONTAINER
    for path in (upper, merged, tmp_path / "lower", tmp_path / "work"):
        path.mkdir(parents=True)
    options = f"lowerdir={tmp_path}/lower,upperdir={upper},workdir={tmp_path}/work"
    subprocess.run(["mount", "-i", "-t", "overlay", "-o", options, "overlay", str(merged)], check=True)
    try:
        yield upper, merged
    finally:
        subprocess.run(["umount", str(merged)], check=True)


def _never(argv: Sequence[str], **_options: object) -> Completed:
    raise AssertionError(f"{argv} was run")


def test_a_real_mount(overlay: tuple[Path, Path]) -> None:
    upper, merged = overlay
    assert snapshots.upper_directory(CONTAINER, _never) == str(upper)
    (upper / "below").write_text("seen")
    assert (merged / "below").read_text() == "seen"


class Ctr:
    """Answers as ctr does, and remembers what it was asked."""

    def __init__(self, answers: Mapping[str, Completed]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str], **_options: object) -> Completed:
        self.asked.append(list(argv))
        return self.answers[argv[argv.index("--address") + 1]]


NOT_FOUND = Completed(1, "", "ctr: snapshot does not exist: not found")


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where two containerds listen, and a third does not."""
    places = [tmp_path / name for name in ("system.sock", "own.sock", "missing.sock")]
    for place in places[:2]:
        place.touch()
    monkeypatch.setattr(snapshots, "SOCKETS", tuple(map(str, places)))
    return [str(place) for place in places[:2]]


def test_one_that_does_not_run_is_asked_for(tmp_path: Path, sockets: list[str]) -> None:
    upper = tmp_path / "4" / "fs"
    upper.mkdir(parents=True)
    found = Completed(0, f"mount -t overlay overlay /x -o index=off,workdir={tmp_path}/4/work,upperdir={upper}\n", "")
    ctr = Ctr({sockets[0]: NOT_FOUND, sockets[1]: found})
    assert snapshots.upper_directory(CONTAINER, ctr) == str(upper)
    assert [argv[0] for argv in ctr.asked] == ["ctr", "ctr"]
    assert all(argv[-1] == CONTAINER and "moby" in argv for argv in ctr.asked)
    ctr = Ctr({sockets[0]: found})
    assert snapshots.upper_directory(CONTAINER, ctr) == str(upper)
    assert len(ctr.asked) == 1


def test_a_place_in_the_table_that_is_not_there_is_not_believed(
    tmp_path: Path, sockets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "parse_mountinfo", lambda _table, _container: str(tmp_path / "an\\,upper"))
    found = Completed(0, f"mount -t overlay overlay /x -o upperdir={tmp_path},lowerdir=/a\n", "")
    assert snapshots.upper_directory(CONTAINER, Ctr({sockets[0]: found})) == str(tmp_path)


def test_the_error_has_the_message_of_containerd(sockets: list[str]) -> None:
    with pytest.raises(MigrationError) as caught:
        snapshots.upper_directory(CONTAINER, Ctr(dict.fromkeys(sockets, NOT_FOUND)))
    assert caught.value.code == "snapshot_not_found"
    assert "does not exist: not found" in caught.value.message


def test_a_directory_that_is_not_there_is_not_given_out(tmp_path: Path, sockets: list[str]) -> None:
    gone = Completed(0, f"mount -t overlay overlay /x -o upperdir={tmp_path}/gone,lowerdir=/a\n", "")
    with pytest.raises(MigrationError, match="gone is no directory"):
        snapshots.upper_directory(CONTAINER, Ctr(dict.fromkeys(sockets, gone)))


def test_no_containerd_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SOCKETS", (str(tmp_path / "none"),))
    with pytest.raises(MigrationError, match="no containerd listens on"):
        snapshots.upper_directory(CONTAINER, _never)


def test_only_an_id_reaches_ctr() -> None:
    with pytest.raises(MigrationError, match="not a full container id"):
        snapshots.upper_directory("--help", _never)


@pytest.mark.parametrize("shown", [{"GraphDriver": {"Name": "overlayfs", "Data": None}}, {"Driver": "overlayfs"}])
def test_the_layer_of_such_a_container_travels(shown: dict[str, object], overlay: tuple[Path, Path]) -> None:
    inspect = {"Id": CONTAINER, "Name": "/web", **shown}
    assert trees.layer(inspect)[:2] == ("layer", str(overlay[0]))
