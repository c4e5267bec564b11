# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine `runtime` on files, marks and real frozen processes: where memory lies, what is held, and what lets it go."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils import _engine_runtime, _proof, _session, _trees
from ansible_collections.livemigrate.criu.plugins.module_utils._checkpoint_dir import Manifest
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._mark import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._session import DESTINATION, REFUSED, RUN, Session
from tests.unit.core.groups import Group, Shim
from tests.unit.core.support import CONTAINER, OTHER_CONTAINER, wait_for

MakeSession = Callable[..., Session]

MANIFEST: Manifest = {
    "inventory.img": {"size": 1, "sha256": "a" * 64},
    "pstree.img": {"size": 1, "sha256": "b" * 64},
}
MIB = 1 << 20


class Programs:
    """What the engine calls of systemd, as programs that note what they are told."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "log"
        self.state = directory / "state"
        self.state.write_text("active\n")
        for name in ("systemctl", "systemd-run"):
            program = directory / name
            program.write_text(
                f'#!/bin/sh\necho "{name} $*" >>{self._log}\n[ "$1" != is-active ] || cat {self.state}\n'
            )
            program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    return Programs(directory)


@pytest.fixture
def session(make_session: MakeSession, tmp_path: Path) -> Session:
    """A destination's session whose copy is created, marked and waits for its checkpoint."""
    (tmp_path / "docker" / "containers" / OTHER_CONTAINER).mkdir(parents=True)
    found = make_session(DESTINATION, engine="runtime", data_root=str(tmp_path / "docker"))
    found.enter("creating", name="web")
    _engine_runtime.receive(found, OTHER_CONTAINER)
    found.enter("created", container_id=OTHER_CONTAINER)
    return found


@pytest.fixture
def mark(session: Session) -> Mark:
    return Mark.of(session)


@pytest.fixture
def shim(mark: Mark, group: Group, init: int) -> Shim:
    return Shim(mark, group, init)


def _hold(session: Session, group: Group) -> dict[str, Any]:
    return _engine_runtime.hold(session, MANIFEST, MANIFEST, _proof.take(group.pids()))


@pytest.fixture
def held(session: Session, shim: Shim, group: Group) -> Iterator[Session]:
    """A session whose copy is restored and held, with a shim that lets it go."""
    with shim:
        _hold(session, group)
        yield session


# -- where the memory lies ---------------------------------------------------------------------------------------------


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def free(session: Session, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free in bytes, to be set by a test: in "memory" (the file system), on the "disk", of "available" memory."""
    found = {"memory": 1 << 40, "disk": 1 << 40, "available": 1 << 40}

    def usage(path: str) -> Usage:
        assert path in (session.volatile, session.directory)
        return Usage(1 << 50, 0, found["memory" if path == session.volatile else "disk"])

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(_engine_runtime, "_available_memory", lambda: found["available"])
    return found


def test_the_available_memory_is_the_kernel_s_word() -> None:
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert abs(_engine_runtime._available_memory() - (int(told["MemAvailable"].split()[0]) << 10)) < 1 << 30


def test_images_lie_in_memory_where_there_is_room(session: Session, free: dict[str, int]) -> None:
    assert _engine_runtime.place_for(MIB, session, "here") == session.memory_path("here")
    assert os.stat(session.memory_path("here")).st_mode & 0o777 == 0o700
    assert _engine_runtime.place_for(MIB, session, "here") == session.memory_path("here"), "twice is fine"
    assert not os.path.exists(session.path("here"))
    assert min(free.values()) > 0


@pytest.mark.parametrize(
    ("size", "memory", "available", "in_memory"),
    [
        (100 * MIB, 229 * MIB, 329 * MIB, True),
        # The file system of the images is full.
        (100 * MIB, 228 * MIB, 1 << 40, False),
        # The images would fit, but not the tasks beside them.
        (100 * MIB, 1 << 40, 328 * MIB, False),
        (0, 129 * MIB, 129 * MIB, True),
        (0, 1 << 40, 128 * MIB, False),
    ],
)
def test_images_lie_on_the_disk_where_memory_would_not_do_for_them_and_the_tasks(
    size: int, memory: int, available: int, in_memory: bool, session: Session, free: dict[str, int]
) -> None:
    free.update(memory=memory, available=available)
    place = _engine_runtime.place_for(size, session, "here")
    assert place == (session.memory_path("here") if in_memory else session.path("here"))
    assert os.stat(place).st_mode & 0o777 == 0o700
    assert [os.path.exists(path("here")) for path in (session.memory_path, session.path)] == [in_memory, not in_memory]


def test_no_room_anywhere_is_told_before_anything_is_made(session: Session, free: dict[str, int]) -> None:
    free.update(available=50 * MIB, disk=227 * MIB)
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.place_for(100 * MIB, session, "here")
    assert caught.value.code == "no_space"
    assert caught.value.details == {"free": 227 * MIB, "needed": 100 * MIB}
    for part in ("100 MiB", "227 MiB", "50 MiB", session.directory):
        assert part in caught.value.message
    assert not os.path.exists(session.memory_path("here"))
    assert not os.path.exists(session.path("here"))
    free["disk"] += 2 * MIB
    assert _engine_runtime.place_for(100 * MIB, session, "here") == session.path("here")


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_source_s_checkpoint_is_found_measured_and_deleted(
    on_disk: bool, make_session: MakeSession, free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(container="c" * 64)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 50, 0, 1 << 40))
    free["available"] = 0 if on_disk else 1 << 40
    place = _engine_runtime.place_for(MIB, session, "images")
    os.mkdir(session.memory_path("dump"))
    for name, size in (("inventory.img", 5), ("pages-1.img", 7)):
        Path(place, name).write_bytes(bytes(size))
    assert _engine_runtime.images(session) == place == (session.path if on_disk else session.memory_path)("images")
    engine: Any = None
    assert _engine_runtime.seal(session, engine) == 12
    _engine_runtime.forget(session, engine)
    _engine_runtime.forget(session, engine)
    assert not os.path.exists(place)
    assert not os.path.exists(session.memory_path("dump"))
    assert not _engine_runtime.bring_back(session, engine)


# -- getting ready on the destination ----------------------------------------------------------------------------------


def test_the_place_of_the_checkpoint_is_where_the_shim_looks(session: Session, mark: Mark) -> None:
    assert mark.exists
    assert not mark.ready
    assert os.path.realpath(mark.images) == session.memory_path("images") == _engine_runtime.checkpoint_place(session)
    assert _engine_runtime.receive(session, OTHER_CONTAINER) == session.memory_path("images"), "twice is fine"


def test_a_checkpoint_too_large_for_memory_lies_on_the_disk(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(DESTINATION, container="c" * 64)
    os.mkdir(session.memory_path("inbox"))
    monkeypatch.setattr(_engine_runtime, "_available_memory", lambda: 200 * MIB)
    Path(session.memory_path("inbox", "spec.json")).write_text(json.dumps({"memory_bytes": 40 * MIB}))
    assert _engine_runtime.receive(session, "c" * 64) == session.path("images")
    assert os.path.realpath(Mark.of(session, "c" * 64).images) == session.path("images")


class FakeEngine:
    """The few calls of an engine that arming makes."""

    def __init__(self) -> None:
        self.renamed: list[tuple[str, str]] = []

    def info(self) -> dict[str, Any]:
        return {"Runtimes": {"runc": {}, "livemigrate": {}}}

    def rename(self, container: str, name: str) -> None:
        self.renamed.append((container, name))

    def containers(self) -> list[dict[str, str]]:
        return [{"Id": OTHER_CONTAINER}]


def test_arming_names_the_copy_starts_the_call_and_prunes(session: Session, mark: Mark, programs: Programs) -> None:
    removed = Mark("c" * 64, state_root=session.state_root, volatile_root=session.volatile_root)
    removed.make(session.id)
    removed.consume()
    engine: Any = FakeEngine()
    _engine_runtime.arm(session, engine)
    assert engine.renamed == [(OTHER_CONTAINER, "web")]
    [call] = programs.calls
    assert call.startswith("systemd-run ")
    assert call.endswith(f" start {session.id}")
    assert (mark.exists, removed.exists) == (True, False)


def test_the_copy_runs_under_the_shim_or_not_at_all() -> None:
    engine: Any = FakeEngine()
    assert _engine_runtime.runtime_of({"HostConfig": {}}, engine) == "livemigrate"
    infos: list[dict[str, Any]] = [{"Runtimes": {"runc": {}}}, {"Runtimes": None}, {}]
    for info in infos:
        engine.info = partial(dict, info)
        with pytest.raises(MigrationError) as caught:
            _engine_runtime.runtime_of({"HostConfig": {}}, engine)
        assert caught.value.code == "shim_missing"


# -- holding -----------------------------------------------------------------------------------------------------------


def test_a_copy_is_held_and_proved(session: Session, mark: Mark, shim: Shim, group: Group) -> None:
    with shim:
        told = _hold(session, group)
    assert (told["processes"], told["recognised"]) == (1, 1)
    assert 0 < told["seconds"] < 10
    assert (session.phase, session.decision) == ("held", None)
    assert [entry["phase"] for entry in session.journal][-2:] == ["starting", "held"]
    assert group.frozen
    assert not mark.consumed
    options = Path(mark.path("criu.conf")).read_text().splitlines()
    assert "action-script=/usr/local/lib/livemigrate/livemigrate-criu-action" in options
    assert "manage-cgroups=ignore" in options


def test_the_log_of_the_source_is_in_its_place_before_the_engine_starts(
    session: Session, shim: Shim, group: Group, tmp_path: Path
) -> None:
    container = tmp_path / "docker" / "containers" / OTHER_CONTAINER
    incoming = Path(_trees.incoming_log_directory(str(tmp_path / "docker"), OTHER_CONTAINER))
    incoming.mkdir(parents=True)
    (incoming / f"{CONTAINER}-json.log").write_text("line\n")
    with shim:
        _hold(session, group)
    assert (container / f"{OTHER_CONTAINER}-json.log").read_text() == "line\n"


def test_what_arrived_otherwise_is_not_restored(session: Session, mark: Mark) -> None:
    received: Manifest = {**MANIFEST, "pstree.img": {"size": 1, "sha256": "c" * 64}}
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.hold(session, received, MANIFEST, {"1": "f"})
    assert caught.value.code == "checkpoint_corrupt"
    assert (session.phase, mark.ready) == ("created", False)


def _engine_says(session: Session, error: str) -> None:
    Path(session.memory_path("start.json")).write_text(json.dumps({"error": error}))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("container web: no such network", "no such network"),
        # A runtime in between that is not the shim: the copy may run. It is refused and killed.
        ("", "nothing holds it"),
    ],
)
def test_a_start_that_comes_to_nothing_is_told_with_criu_s_words(
    said: str, told: str, session: Session, mark: Mark
) -> None:
    os.mkdir(mark.path("work"))
    Path(mark.path("work", "restore.log")).write_text("(00.1) fine\n(00.2) Error (criu/files.c:1): no such file\n")
    _engine_says(session, said)
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"})
    assert caught.value.code == "restore_failed"
    assert told in caught.value.message
    assert "CRIU says: (00.2) Error (criu/files.c:1): no such file" in caught.value.message
    assert session.phase == "starting"


def test_a_restore_that_does_not_end_is_given_up(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine_runtime, "_START_SECONDS", 0.1)
    monkeypatch.setattr(_engine_runtime, "memory_timeout", lambda size: 0.0)
    with pytest.raises(MigrationError, match="not restored in time") as caught:
        _engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"})
    assert caught.value.code == "restore_failed"


def test_a_copy_that_is_not_frozen_is_not_trusted(session: Session, shim: Shim, group: Group) -> None:
    shim.tell()
    with pytest.raises(MigrationError) as caught:
        _hold(session, group)
    assert caught.value.code == "not_held"


def test_a_copy_whose_cgroup_is_gone_is_not_trusted(session: Session, shim: Shim, group: Group) -> None:
    shim.tell(group.path + "-gone")
    with pytest.raises(MigrationError) as caught:
        _hold(session, group)
    assert caught.value.code == "not_held"


def test_a_shim_that_does_not_tell_what_it_holds_is_not_trusted(session: Session, mark: Mark) -> None:
    Path(mark.path("waiting")).write_text("1\n")
    with pytest.raises(MigrationError, match="did not tell") as caught:
        _engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "f"})
    assert caught.value.code == "not_held"


def test_a_copy_of_something_else_is_not_held(session: Session, shim: Shim) -> None:
    with shim, pytest.raises(MigrationError) as caught:
        _engine_runtime.hold(session, MANIFEST, MANIFEST, {"1": "0" * 64})
    assert caught.value.code == "not_a_restore"
    assert (session.phase, session.decision) == ("starting", None)


# -- letting go --------------------------------------------------------------------------------------------------------


def test_the_word_lets_the_copy_go(held: Session, mark: Mark, group: Group, programs: Programs) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    since = _engine_runtime.run(held)
    assert before <= since <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert (held.phase, held.decision) == ("run", RUN)
    assert held.data("run") == {"container_id": OTHER_CONTAINER, "running_since": since}
    assert mark.consumed
    assert not group.frozen
    assert programs.calls == [f"systemctl is-active livemigrate-{held.id}-start.service"]


def _still_held(session: Session, mark: Mark, decision: str | None = None) -> None:
    assert (session.phase, session.decision, mark.consumed) == ("held", decision, False)


@pytest.mark.parametrize("state", ["inactive\n", "failed\n", ""])
def test_a_copy_whose_engine_no_longer_waits_is_not_let_go(
    state: str, held: Session, mark: Mark, group: Group, programs: Programs
) -> None:
    """It would run without Docker knowing of it."""
    programs.state.write_text(state)
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.run(held)
    assert caught.value.code == "not_held"
    _still_held(held, mark)
    assert group.frozen


@pytest.mark.usefixtures("programs")
def test_a_copy_whose_start_has_been_answered_is_not_let_go(held: Session, mark: Mark) -> None:
    _engine_says(held, "context canceled")
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.run(held)
    assert caught.value.code == "not_held"
    _still_held(held, mark)


@pytest.mark.usefixtures("programs")
def test_a_copy_that_somebody_has_thawed_is_not_run(held: Session, mark: Mark, group: Group) -> None:
    group.thawed_by_a_stranger()
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.run(held)
    assert caught.value.code == "not_held"
    _still_held(held, mark)


@pytest.mark.usefixtures("programs")
def test_a_copy_that_was_refused_meanwhile_is_not_run(held: Session, mark: Mark, group: Group) -> None:
    held.decide(REFUSED)
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.run(held)
    assert caught.value.code == "already_refused"
    _still_held(held, mark, REFUSED)
    assert group.frozen


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("phase", ["created", "starting"])
def test_a_copy_that_was_never_proved_is_not_run(
    phase: str, session: Session, mark: Mark, shim: Shim, group: Group
) -> None:
    """It is restored and waits, but nobody has compared it with the source's."""
    if phase != "created":
        session.enter(phase)
    group.freeze()
    shim.tell()
    with pytest.raises(MigrationError) as caught:
        _engine_runtime.run(session)
    assert caught.value.code == "not_held"
    assert (session.decision, mark.consumed) == (None, False)
    assert group.frozen


def test_letting_go_without_a_shim_thaws_the_copy_itself(
    session: Session, mark: Mark, shim: Shim, group: Group
) -> None:
    """The shim was killed after RUN had been decided: that word has been given out and holds."""
    with shim:
        _hold(session, group)
    session.decide(RUN)
    _engine_runtime.let_go(session)
    assert not group.frozen
    assert mark.consumed
    assert session.phase == "run"


def test_letting_go_twice_changes_nothing(held: Session, group: Group) -> None:
    held.decide(RUN)
    _engine_runtime.let_go(held)
    journal = Path(held.path("journal")).read_bytes()
    _engine_runtime.let_go(held)
    assert Path(held.path("journal")).read_bytes() == journal
    assert not group.frozen


def test_after_a_reboot_only_the_tombstone_is_written(
    session: Session, mark: Mark, shim: Shim, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there of the copy names a cgroup that is another's by now."""
    with shim:
        _hold(session, group)
    session.decide(RUN)
    monkeypatch.setattr(_session, "boot_mark", lambda: "another/1")
    _engine_runtime.let_go(session)
    assert mark.consumed
    assert group.frozen
    assert session.phase == "run"


def test_an_interrupted_start_is_never_a_run(held: Session) -> None:
    engine: Any = None
    assert _engine_runtime.decide_interrupted(held, engine)
    assert held.decision is None


# -- the end -----------------------------------------------------------------------------------------------------------


def test_after_run_no_memory_is_left(held: Session, mark: Mark) -> None:
    Path(mark.images, "pages-1.img").write_text("memory")
    os.mkdir(held.path("images"))
    held.decide(RUN)
    _engine_runtime.let_go(held)
    wait_for(lambda: mark.consumed, "it is let go")
    engine: Any = None
    _engine_runtime.finish(held, engine, OTHER_CONTAINER)
    _engine_runtime.finish(held, engine, OTHER_CONTAINER)
    assert os.listdir(mark.work) == ["criu.conf"]
    assert not os.path.exists(held.memory_path("images"))
    assert not os.path.exists(held.path("images"))
    assert mark.consumed, "the tombstone stays as long as the container"


def test_after_refused_nothing_is_left(session: Session, mark: Mark, programs: Programs) -> None:
    Path(mark.images, "pages-1.img").write_text("memory")
    os.mkdir(session.path("images"))
    _engine_runtime.give_up(session, OTHER_CONTAINER)
    assert os.path.exists(mark.path("refused"))
    for _time in range(2):
        _engine_runtime.discard(session, OTHER_CONTAINER)
        assert not mark.exists
        for path in (mark.work, session.memory_path("images"), session.path("images")):
            assert not os.path.exists(path)
    assert programs.calls == [f"systemctl stop livemigrate-{session.id}-start.service"] * 2


@pytest.mark.usefixtures("programs")
def test_a_copy_that_was_never_created_has_only_a_name(session: Session, mark: Mark) -> None:
    """REFUSED in the middle of creating: what is known of the copy is the name it was to have."""
    _engine_runtime.give_up(session, "web-incoming")
    _engine_runtime.discard(session, "web-incoming")
    assert mark.exists
