# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mark of a copy: what outlives a reboot, what does not, and what the shim is told through it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import shim_files
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Held, Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, ROOT, bring_to, killed_at

SESSION = "20261123T000001Z-3f9a1c"
SHIM = ROOT / "roles" / "checkpointing" / "files" / "livemigrate-runc"


@pytest.fixture
def mark(roots: dict[str, str]) -> Mark:
    found = Mark(CONTAINER, **roots)
    found.make(SESSION)
    return found


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# -- where it is -------------------------------------------------------------------------------------------------------


def test_it_lies_where_the_shim_looks() -> None:
    """Its two directories stand in the shim word by word."""
    mark = Mark(CONTAINER)
    shim = SHIM.read_text()
    assert f"marks={os.path.dirname(mark.directory)}\n" in shim
    assert f"works={os.path.dirname(mark.work)}\n" in shim


@pytest.mark.parametrize("container", ["", "web", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_only_a_full_id_becomes_a_path(container: str, roots: dict[str, str]) -> None:
    with pytest.raises(MigrationError) as caught:
        Mark(container, **roots)
    assert caught.value.code == "invalid_id"


def test_a_session_s_mark_lies_below_its_roots(make_session: Callable[..., Session], roots: dict[str, str]) -> None:
    session = make_session(DESTINATION)
    assert Mark.of(session, OTHER_CONTAINER).directory == Mark(OTHER_CONTAINER, **roots).directory
    session.enter("creating", name="web")
    session.enter("created", container_id=OTHER_CONTAINER)
    assert Mark.of(session).work == Mark(OTHER_CONTAINER, **roots).work
    assert Mark.of(session).work.startswith(roots["volatile_root"] + "/")


# -- the durable part --------------------------------------------------------------------------------------------------


def test_a_container_that_was_never_marked_is_like_any_other(roots: dict[str, str]) -> None:
    mark = Mark(CONTAINER, **roots)
    assert (mark.exists, mark.consumed, mark.ready, mark.plumbed, mark.held, mark.log()) == (
        False,
        False,
        False,
        False,
        None,
        "",
    )
    mark.consume()
    mark.refuse()
    mark.forget_checkpoint()
    mark.remove()
    assert not os.path.exists(mark.directory)
    assert not os.path.exists(mark.work)


def test_a_marked_container(mark: Mark) -> None:
    assert (mark.exists, mark.consumed) == (True, False)
    assert Path(mark.directory, "session").read_text() == SESSION + "\n"
    assert _mode(mark.directory) == _mode(mark.work) == 0o700


def test_marking_twice_is_fine(mark: Mark) -> None:
    mark.set_ready()
    mark.make(SESSION)
    assert mark.exists
    assert mark.ready
    assert os.listdir(mark.directory) == ["session"]


def test_the_tombstone_is_written_once_and_stays(mark: Mark) -> None:
    mark.consume()
    written = os.stat(os.path.join(mark.directory, "consumed"))
    mark.consume()
    again = os.stat(os.path.join(mark.directory, "consumed"))
    assert (written.st_ino, written.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
    assert mark.exists
    assert mark.consumed
    assert sorted(os.listdir(mark.directory)) == ["consumed", "session"]


def test_the_mark_outlives_a_reboot_and_the_checkpoint_does_not(mark: Mark, roots: dict[str, str]) -> None:
    mark.set_ready()
    shutil.rmtree(roots["volatile_root"])
    after = Mark(CONTAINER, **roots)
    assert (after.exists, after.consumed, after.ready) == (True, False, False)


def test_a_process_that_is_killed_while_it_marks_leaves_no_mark_or_one_that_holds(roots: dict[str, str]) -> None:
    """Whatever stands there then is finished by doing it again; nothing stands there that looks consumed."""
    step = 0
    while True:
        step += 1
        died = killed_at(step, lambda: Mark(CONTAINER, **roots).make(SESSION))
        assert not Mark(CONTAINER, **roots).consumed
        again = Mark(CONTAINER, **roots)
        again.make(SESSION)
        assert Path(again.directory, "session").read_text() == SESSION + "\n"
        again.remove()
        assert not again.exists
        if not died:
            break
    assert step > 5


def test_a_process_that_is_killed_while_it_lets_go_has_done_it_or_not(mark: Mark) -> None:
    step = 0
    seen = set()
    while True:
        step += 1
        died = killed_at(step, mark.consume)
        seen.add(mark.consumed)
        assert mark.exists
        mark.consume()
        assert mark.consumed
        mark.remove()
        mark.make(SESSION)
        if not died:
            break
    assert seen == {True, False}


def test_removing_takes_everything_and_nothing_that_a_link_leads_to(mark: Mark, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "pages-1.img").write_text("memory")
    os.symlink(images, mark.images)
    mark.set_ready()
    mark.remove()
    assert not mark.exists
    assert not os.path.exists(mark.work)
    assert (images / "pages-1.img").exists()


# -- the volatile part -------------------------------------------------------------------------------------------------


def test_what_the_shim_gets(mark: Mark) -> None:
    assert (mark.ready, os.listdir(mark.work)) == (False, [])
    mark.set_options(["tcp-close", "action-script=/x"])
    mark.set_ready()
    assert mark.ready
    assert Path(mark.path("criu.conf")).read_text() == "tcp-close\naction-script=/x\n"
    mark.refuse()
    assert sorted(os.listdir(mark.work)) == ["criu.conf", "ready", "refused"]


def test_what_the_shim_tells(mark: Mark) -> None:
    assert (mark.held, mark.plumbed, mark.log()) == (None, False, "")
    Path(mark.path("held")).write_text("4242\n/sys/fs/cgroup/a b.scope\n")
    Path(mark.path("plumbed")).write_text("1\n")
    os.mkdir(mark.path("work"))
    Path(mark.path("work", "restore.log")).write_bytes(b"(00.1) Error (x.c:1): \xff\n")
    assert (mark.held, mark.plumbed) == (Held(4242, "/sys/fs/cgroup/a b.scope"), True)
    assert "Error (x.c:1)" in mark.log()


@pytest.mark.parametrize("held", ["", "4242\n", "x\n/sys/fs/cgroup/x\n", "\n\n"])
def test_what_the_action_script_did_not_write_holds_nothing(held: str, mark: Mark) -> None:
    Path(mark.path("held")).write_text(held)
    assert mark.held is None


def test_the_checkpoint_is_forgotten_and_the_options_stay(mark: Mark, tmp_path: Path) -> None:
    """runc goes on naming the file of the options: a dump of a container whose file is gone fails."""
    elsewhere = tmp_path / "images"
    elsewhere.mkdir()
    (elsewhere / "pages-1.img").write_text("memory")
    os.symlink(elsewhere, mark.images)
    os.mkdir(mark.path("work"))
    Path(mark.path("work", "restore.log")).write_text("log")
    for name in ("ready", "held", "plumbed", "refused"):
        Path(mark.path(name)).write_text("")
    mark.set_options(["tcp-close"])
    mark.forget_checkpoint()
    assert os.listdir(mark.work) == ["criu.conf"]
    assert (elsewhere / "pages-1.img").exists(), "the session's own directory is the session's to remove"
    assert mark.exists
    mark.forget_checkpoint()


def test_forgetting_goes_on_when_somebody_was_quicker(mark: Mark, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ready", "held", "plumbed"):
        Path(mark.path(name)).write_text("")
    names = os.listdir(mark.work)
    # Another process of the session takes away what has been listed.
    monkeypatch.setattr(os, "listdir", lambda _path: names)
    os.unlink(mark.path(names[0]))
    mark.forget_checkpoint()
    monkeypatch.undo()
    assert os.listdir(mark.work) == []


def test_once_it_runs_dumps_read_the_options_of_the_host(mark: Mark) -> None:
    mark.set_options(["tcp-close"])
    for _time in range(2):
        mark.use_options_of_host()
        assert os.readlink(mark.path("criu.conf")) == "/etc/criu/runc.conf"
    assert os.listdir(mark.work) == ["criu.conf"]
    mark.remove()
    mark.use_options_of_host()
    assert not os.path.exists(mark.work), "a place that is gone stays gone"


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_tombstones_go_with_their_containers_and_marks_with_their_sessions(
    make_session: Callable[..., Session], roots: dict[str, str]
) -> None:
    alive = make_session(DESTINATION)
    over = bring_to(make_session(DESTINATION, container=OTHER_CONTAINER), "refused")
    over.close(keep=True)
    owners = (SESSION, SESSION, alive.id, SESSION, over.id)
    marks = [Mark(character * 64, **roots) for character in "abcde"]
    for mark, owner in zip(marks, owners, strict=True):
        mark.make(owner)
    there, gone, undecided, decided, refused = marks
    # What a crash has left of a container that is gone, its mark included; and of one that is there.
    for character in "fd":
        Path(roots["volatile_root"], "restores", character * 64).mkdir(exist_ok=True)
    for mark in (there, gone):
        mark.consume()
    stranger = Path(roots["state_root"], "restores", "not-an-id")
    stranger.mkdir()
    (stranger / "consumed").write_text("")
    shim_files.prune({"a" * 64, "d" * 64}, **roots)
    # Without a tombstone it may be the copy of a migration whose container the engine does not list yet.
    assert [mark.exists for mark in (there, gone, undecided, decided)] == [True, False, True, True]
    assert not refused.exists
    assert sorted(os.listdir(Path(roots["volatile_root"], "restores"))) == ["a" * 64, "c" * 64, "d" * 64]
    assert there.consumed
    assert not os.path.exists(gone.work)
    assert stranger.exists()


def test_a_host_that_never_had_a_mark_has_nothing_to_prune(roots: dict[str, str]) -> None:
    shim_files.prune(set(), **roots)
    assert not os.path.exists(roots["state_root"])
