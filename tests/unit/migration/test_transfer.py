# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which directories are sent once more while everything stands still: those in which anything was touched, seen or hidden."""

from __future__ import annotations

import mmap
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.tree import Tree
from ansible_collections.livemigrate.criu.plugins.module_utils._host import flush, mountinfo
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import transfer
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.trees import LOG_FILES

MakeSession = Callable[..., Session]


def _same_size_and_time(path: Path) -> None:
    """New content that rsync would not see: the size stays, and the time is set back."""
    status = path.stat()
    path.write_text(path.read_text().upper())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _exchange(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_text("OLD")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


# What is done to the file sub/deep/file of a directory.
CHANGES: dict[str, Callable[[Path], object]] = {
    "new content": lambda file: file.write_text("new"),
    "new content under the same size and time": _same_size_and_time,
    "more content": lambda file: file.open("a").write("more"),
    "cut off": lambda file: os.truncate(file, 0),
    "another mode": lambda file: file.chmod(0o640),
    "a time of long ago": lambda file: os.utime(file, (1, 1)),
    "an attribute": lambda file: os.setxattr(file, "user.livemigrate", b"x"),
    "deleted": lambda file: file.unlink(),
    "another name": lambda file: file.rename(file.with_name("renamed")),
    "another file in its place": _exchange,
    "one more name": lambda file: file.with_name("link").hardlink_to(file),
    "a new file beside it": lambda file: file.with_name("new").write_text(""),
    "a new directory": lambda file: file.with_name("directory").mkdir(),
    "a new link": lambda file: file.with_name("symlink").symlink_to("nowhere"),
    "the mode of a directory": lambda file: file.parent.chmod(0o700),
    "a directory deleted": lambda file: shutil.rmtree(file.parent),
    "the top directory": lambda file: file.parents[2].chmod(0o700),
}
NOTHING: dict[str, Callable[[Path], object]] = {
    "nothing": lambda file: None,
    "read": lambda file: file.read_text(),
    "listed": lambda file: list(file.parents[2].rglob("*")),
}


@pytest.fixture
def make_tree(disk: Path) -> Callable[..., Tree]:
    """A function that makes a directory that travels: make_tree(target, name)."""

    def make(target: str, name: str) -> Tree:
        path = str(disk / name)
        file = disk / name / "sub" / "deep" / "file"
        file.parent.mkdir(parents=True)
        file.write_text("old")
        # As a container's trees of these names are, see _subjects/container/trees.py.
        return _log(disk) if target == "log" else Tree(target, path, (), dump_makes_directories=target == "layer")

    return make


def _log(disk: Path) -> Tree:
    return Tree("log", str(disk / "log"), (), always=True, counts=LOG_FILES, by_times=False)


def _pass_before(session: Session) -> None:
    """Note a first pass; the look goes back a second from it."""
    durable.write_json(session.memory_path("content_sent.json"), transfer._moment())


def _clock_set_since(session: Session, seconds: float) -> None:
    """What the note of the pass before looks like when the clock has been set by so many seconds since."""
    path = session.memory_path("content_sent.json")
    durable.write_json(path, {name: value - seconds for name, value in durable.read_json(path).items()})


def test_every_touch_is_seen_and_nothing_else(make_session: MakeSession, make_tree: Callable[..., Tree]) -> None:
    session = make_session()
    actions = {**CHANGES, **NOTHING}
    trees = {name: make_tree(f"volume/{number}", f"tree {number}") for number, name in enumerate(actions)}
    time.sleep(1.1)
    _pass_before(session)
    for name, action in actions.items():
        action(Path(trees[name].path) / "sub" / "deep" / "file")
    found = transfer.changed(session, list(trees.values()))
    assert [name for name, tree in trees.items() if tree in found] == list(CHANGES)
    assert found == [trees[name] for name in CHANGES], "in the order in which they were given"


def test_a_touch_at_the_moment_when_the_pass_began_is_seen(
    make_session: MakeSession, make_tree: Callable[..., Tree]
) -> None:
    session = make_session()
    tree = make_tree("layer", "layer")
    _pass_before(session)
    assert transfer.changed(session, [tree]) == [tree]


def test_a_store_through_a_map_that_was_dirty_before_is_seen(
    make_session: MakeSession, make_tree: Callable[..., Tree], disk: Path
) -> None:
    """What the pass before rests on: once it has written out, the next store to a mapped page moves the file's time."""
    if durable.filesystem_type(str(disk)) not in ("ext4", "xfs", "btrfs"):
        pytest.skip("needs a file system of which that is known")
    session = make_session()
    tree, other = make_tree("layer", "layer"), make_tree("volume/a", "other")
    file = Path(tree.path) / "sub" / "deep" / "file"
    file.write_bytes(bytes(mmap.PAGESIZE))
    with file.open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as shared:
        shared[0] = 1
        time.sleep(1.1)
        _pass_before(session)
        flush.write_out([tree.path, other.path])
        shared[1] = 1
        assert transfer.changed(session, [tree, other]) == [tree]


def test_the_log_always_travels(make_session: MakeSession, make_tree: Callable[..., Tree]) -> None:
    """It is grown by the engine, not by the container, and the source's name of it is another."""
    session = make_session()
    log, layer = make_tree("log", "log"), make_tree("layer", "layer")
    time.sleep(1.1)
    _pass_before(session)
    assert transfer.changed(session, [log, layer]) == [log]


def test_without_a_pass_before_everything_travels(make_session: MakeSession, make_tree: Callable[..., Tree]) -> None:
    trees = [make_tree("layer", "layer"), make_tree("volume/a", "volume")]
    assert transfer.changed(make_session(), trees) == trees


@pytest.mark.parametrize("seconds", [-3600, -1.5, 1.5, 3600])
def test_after_the_clock_was_set_everything_travels(
    seconds: float, make_session: MakeSession, make_tree: Callable[..., Tree]
) -> None:
    """A change between the two passes has a time before the first one then, and no time tells of it."""
    session = make_session()
    trees = [make_tree("layer", "layer"), make_tree("volume/a", "volume")]
    time.sleep(1.1)
    _pass_before(session)
    _clock_set_since(session, seconds)
    assert transfer.changed(session, trees) == trees


def test_a_clock_that_is_slewed_a_little_hides_nothing(
    make_session: MakeSession, make_tree: Callable[..., Tree]
) -> None:
    session = make_session()
    touched, untouched = make_tree("layer", "layer"), make_tree("volume/a", "volume")
    time.sleep(2.1)
    _pass_before(session)
    _clock_set_since(session, -0.9)
    (Path(touched.path) / "new").write_text("")
    assert transfer.changed(session, [touched, untouched]) == [touched]


def test_where_a_server_s_clock_counts_everything_travels(
    make_session: MakeSession, make_tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session()
    served, local = make_tree("volume/a", "served"), make_tree("layer", "local")
    mounts = Path("/proc/self/mountinfo").read_text()
    mounts += f"999 1 0:99 / {served.path} rw - fuse.sshfs host:/srv rw\n"
    real = durable.filesystem_type
    monkeypatch.setattr(durable, "filesystem_type", lambda path, _text=None: real(path, mounts))
    time.sleep(1.1)
    _pass_before(session)
    assert transfer.changed(session, [served, local]) == [served]


def test_a_server_s_clock_counts_also_where_its_files_are_mounted_below(
    make_session: MakeSession, make_tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session()
    outer, local = make_tree("bind/0", "outer"), make_tree("layer", "local")
    line = f"999 1 0:99 / {outer.path}/sub rw - nfs4 host:/srv rw\n"
    real = mountinfo.parse
    monkeypatch.setattr(mountinfo, "parse", lambda mounts: real(mounts + line))
    time.sleep(1.1)
    _pass_before(session)
    assert transfer.changed(session, [outer, local]) == [outer]


def test_a_directory_that_cannot_be_looked_at_is_an_error(
    make_session: MakeSession, make_tree: Callable[..., Tree]
) -> None:
    session = make_session()
    tree = make_tree("layer", "layer")
    _pass_before(session)
    os.rename(tree.path, tree.path + "-gone")
    with pytest.raises(MigrationError) as caught:
        transfer.changed(session, [tree])
    assert caught.value.code == "transfer_failed"


def test_a_name_is_no_option_and_no_pattern(make_session: MakeSession, disk: Path) -> None:
    session = make_session()
    trees = []
    for name in ("-delete", "*", "( )", "new\nline"):
        (disk / name).mkdir()
        (disk / name / "-delete").write_text("")
        trees.append(Tree("layer", str(disk / name), ()))
    _pass_before(session)
    assert transfer.changed(session, trees) == trees
    assert all((Path(tree.path) / "-delete").exists() for tree in trees)


# -- the pass beside the dump ------------------------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Which directories each pass has sent."""
    sent: list[list[str]] = []

    def send(_session: Session, trees: Sequence[Tree], *, running: bool) -> int:
        assert not running
        sent.append([tree.target for tree in trees])
        return 100 * len(trees)

    # What a pass brings is tested with the real rsync; here it is about what is sent when.
    monkeypatch.setattr(transfer, "send_trees", send)
    return sent


def test_what_nobody_touches_during_the_dump_is_sent_once(
    make_session: MakeSession, make_tree: Callable[..., Tree], passes: list[list[str]]
) -> None:
    session = make_session()
    trees = [make_tree("log", "log"), make_tree("layer", "layer"), make_tree("volume/a", "volume")]
    time.sleep(0.05)
    with transfer.LastPass(session, trees) as content:
        assert content.finish() == 300
    assert passes == [["log", "layer", "volume/a"], []]


@pytest.mark.parametrize("change", ["new content", "a new link", "deleted", "one more name"])
def test_what_is_touched_during_the_dump_is_sent_again(
    change: str, make_session: MakeSession, make_tree: Callable[..., Tree], passes: list[list[str]]
) -> None:
    session = make_session()
    trees = [make_tree("layer", "layer"), make_tree("volume/a", "volume")]
    time.sleep(0.05)
    with transfer.LastPass(session, trees) as content:
        CHANGES[change](Path(trees[1].path) / "sub" / "deep" / "file")
        content.dumped()
        assert content.finish() == 300
    assert passes == [["layer", "volume/a"], ["volume/a"]]


def test_what_every_dump_does_in_the_layer_is_no_touch(
    make_session: MakeSession, make_tree: Callable[..., Tree], passes: list[list[str]]
) -> None:
    """CRIU makes a directory in the container's /tmp and removes it; in a volume it may have been anybody."""
    session = make_session()
    trees = [make_tree("layer", "layer"), make_tree("volume/a", "volume")]
    time.sleep(0.05)
    with transfer.LastPass(session, trees) as content:
        for tree in trees:
            (Path(tree.path) / "sub" / ".criu.mntns.x").mkdir()
            (Path(tree.path) / "sub" / ".criu.mntns.x").rmdir()
        content.finish()
    assert passes == [["layer", "volume/a"], ["volume/a"]]


def test_a_file_to_which_criu_gives_a_name_is_sent(
    make_session: MakeSession, make_tree: Callable[..., Tree], passes: list[list[str]]
) -> None:
    """One that is open under a name that was deleted, and has another (link-remap)."""
    session = make_session()
    tree = make_tree("layer", "layer")
    file = Path(tree.path) / "sub" / "deep" / "file"
    time.sleep(0.05)
    with transfer.LastPass(session, [tree]) as content:
        file.with_name("link_remap.1").hardlink_to(file)
        content.finish()
    assert passes == [["layer"], ["layer"]]


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("a-json.log", True),
        ("a-json.log.1", True),
        ("local-logs/container.log", True),
        ("config.v2.json", False),
        ("hostconfig.json", False),
    ],
)
def test_the_log_is_sent_again_when_a_last_line_was_written(
    name: str,
    again: bool,
    make_session: MakeSession,
    disk: Path,
    passes: list[list[str]],
) -> None:
    """The engine notes in the same directory that the container was paused."""
    (disk / "log" / "local-logs").mkdir(parents=True)
    file = disk / "log" / name
    file.write_text("line")
    time.sleep(0.05)
    with transfer.LastPass(make_session(), [_log(disk)]) as content:
        file.write_text("line and line")
        content.finish()
    assert passes == [["log"], ["log"] if again else []]


def test_a_pass_that_fails_is_reported(
    make_session: MakeSession, make_tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> int:
        raise MigrationError("transfer_failed", "no")

    monkeypatch.setattr(transfer, "send_trees", fail)
    with (
        transfer.LastPass(make_session(), [make_tree("layer", "layer")]) as content,
        pytest.raises(MigrationError) as caught,
    ):
        content.finish()
    assert caught.value.code == "transfer_failed"


def test_a_dump_that_fails_does_not_wait_for_the_pass(
    make_session: MakeSession, make_tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(transfer, "send_trees", lambda *_arguments, **_options: gate.wait(20))
    began = time.monotonic()
    with (
        pytest.raises(RuntimeError, match="the dump failed"),
        transfer.LastPass(make_session(), [make_tree("layer", "layer")]),
    ):
        raise RuntimeError("the dump failed")
    assert time.monotonic() - began < 5
    gate.set()


def test_a_pass_that_does_not_end_is_given_up(
    make_session: MakeSession, make_tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container stands still meanwhile; a destination whose disk hangs goes on answering rsync's own questions."""
    gate = threading.Event()
    monkeypatch.setattr(transfer, "_LAST_PASS_SECONDS", 0.2)
    monkeypatch.setattr(transfer, "send_trees", lambda *_arguments, **_options: gate.wait(20))
    with (
        pytest.raises(MigrationError, match=r"within 0\.2 seconds") as caught,
        transfer.LastPass(make_session(), [make_tree("layer", "layer")]) as content,
    ):
        content.finish()
    assert caught.value.code == "transfer_failed"
    gate.set()


def test_where_the_kernel_writes_for_a_program_the_pass_waits_for_the_dump(
    make_session: MakeSession, make_tree: Callable[..., Tree], passes: list[list[str]]
) -> None:
    with transfer.LastPass(make_session(), [make_tree("layer", "layer")], beside=False) as content:
        time.sleep(0.2)
        assert passes == []
        content.dumped()
        content.finish()
    assert passes == [["layer"]]
