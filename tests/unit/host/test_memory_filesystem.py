# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session's place in memory: mounted for real, seen by the kernel as one that is not swapped out, and gone with the session."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import memory_filesystem, swap
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination, source
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import old_records
from tests.unit.helpers.support import bring_to

MakeSession = Callable[..., Session]


def _mounts(path: str) -> list[str]:
    """The options of the file systems that are mounted there."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [words[5] + "," + words[-1] for words in lines if words[4] == path]


@pytest.fixture
def place(quick: Path, needs_root: None) -> Iterator[Path]:  # noqa: ARG001
    if not swap.has_noswap():
        pytest.skip("this kernel swaps out all file systems in memory")
    made = quick / "place"
    made.mkdir()
    yield made
    memory_filesystem.remove(str(made))


def test_it_is_mounted_private_small_and_not_swapped_out(place: Path) -> None:
    assert memory_filesystem.keep_out_of_swap(str(place))
    [options] = _mounts(str(place))
    assert {"noswap", "nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    here, around = os.statvfs(place), os.statvfs(place.parent)
    assert here.f_blocks * here.f_frsize == around.f_blocks * around.f_frsize


def test_removing_it_leaves_neither_mount_nor_directory_nor_content(place: Path) -> None:
    for _time in range(2):
        memory_filesystem.keep_out_of_swap(str(place))
    (place / "images").mkdir()
    (place / "images" / "pages-1.img").write_bytes(b"memory")
    (place / "link").symlink_to("/etc")
    (place / "images" / "above").symlink_to("..")
    # Somebody is in there still, and has something open.
    with (place / "images" / "pages-1.img").open("rb") as handle:
        inside = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        memory_filesystem.remove(str(place))
        assert (_mounts(str(place)), place.exists()) == ([], False)
        assert os.listdir(inside) == []
        os.close(inside)
        assert os.fstat(handle.fileno()).st_nlink == 0
    assert os.path.isdir("/etc")
    memory_filesystem.remove(str(place))


def test_a_directory_without_a_mount_goes_too(quick: Path) -> None:
    place = quick / "plain"
    (place / "images").mkdir(parents=True)
    (place / "images" / "x").write_text("x")
    memory_filesystem.remove(str(place))
    assert not place.exists()


@pytest.mark.usefixtures("needs_root")
def test_a_kernel_that_does_not_know_it_is_no_failure(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = memory_filesystem._call

    def older(name: str, *arguments: object) -> None:
        changed = [one.replace(b"noswap", b"no-such-word") if isinstance(one, bytes) else one for one in arguments]
        real(name, *changed)

    monkeypatch.setattr(memory_filesystem, "_call", older)
    assert not memory_filesystem.keep_out_of_swap(str(quick))
    assert _mounts(str(quick)) == []


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("keep", [True, False])
def test_a_session_s_signs_of_life_are_in_it_and_it_goes_with_the_session(
    keep: bool, make_session: MakeSession
) -> None:
    session = bring_to(make_session(), "aborted")
    try:
        before = session.lease_left
        assert before > 0
        session.keep_out_of_swap()
        assert "noswap" in _mounts(session.volatile)[0]
        assert 0 < session.lease_left >= before - 1
        Path(session.memory_path("spec.json")).write_text("secret")
        with session.locked():
            time.sleep(0.05)
        session.close(keep=keep)
        assert (_mounts(session.volatile), os.path.exists(session.volatile)) == ([], False)
    finally:
        memory_filesystem.remove(session.volatile)


@pytest.mark.usefixtures("place")
def test_what_a_session_left_whose_record_is_gone_is_removed(
    make_session: MakeSession, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session()
    session.keep_out_of_swap()
    shutil.rmtree(session.directory)
    monkeypatch.setattr(old_records, "_DAY_SECONDS", -1.0)

    class NoContainers:
        def containers(self) -> list[dict[str, str]]:
            return []

    engine: object = NoContainers()
    old_records.prune(engine, **roots)  # type: ignore[arg-type]
    assert (_mounts(session.volatile), os.path.exists(session.volatile)) == ([], False)


def test_both_halves_ask_for_it_before_anything_is_written_there() -> None:
    """In the functions that open them; what they do besides needs an engine and is seen in the lab."""
    for module in (source, destination):
        text = Path(str(module.__file__)).read_text()
        body = text[text.index("def open_session(") :]
        asked = body.index(".keep_out_of_swap()")
        assert asked < min(body.index("memory_path"), body.index("agent_package.install"))
