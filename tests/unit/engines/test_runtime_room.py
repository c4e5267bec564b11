# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the engine `runtime` puts a checkpoint: in memory where it does not crowd the tasks out, else on the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers import moved

MakeSession = Callable[..., Session]

MIB = 1 << 20


@pytest.fixture
def session(make_session: MakeSession) -> Session:
    return make_session(engine="runtime")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def free(session: Session, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free in bytes, to be set by a test: in "memory" (the file system), on the "disk", of "available" memory."""
    found = {"memory": 1 << 40, "disk": 1 << 40, "available": 1 << 40}

    def usage(path: str) -> Usage:
        # Of whichever session.
        assert os.path.dirname(path) in (session.volatile_root, session.state_root)
        return Usage(1 << 50, 0, found["memory" if os.path.dirname(path) == session.volatile_root else "disk"])

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(engine_runtime, "_available_memory", lambda: found["available"])
    return found


def test_the_available_memory_is_what_the_kernel_reports() -> None:
    reported = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert abs(engine_runtime._available_memory() - (int(reported["MemAvailable"].split()[0]) << 10)) < 1 << 30


def test_images_lie_in_memory_where_there_is_room(session: Session, free: dict[str, int]) -> None:
    assert engine_runtime.place_for(MIB, session, "here", memory=0) == session.memory_path("here")
    assert os.stat(session.memory_path("here")).st_mode & 0o777 == 0o700
    assert engine_runtime.place_for(MIB, session, "here", memory=0) == session.memory_path("here"), "twice is fine"
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
    place = engine_runtime.place_for(size, session, "here", memory=0)
    assert place == (session.memory_path("here") if in_memory else session.path("here"))
    assert os.stat(place).st_mode & 0o777 == 0o700
    assert [os.path.exists(path("here")) for path in (session.memory_path, session.path)] == [in_memory, not in_memory]


def test_no_room_anywhere_is_reported_before_anything_is_made(session: Session, free: dict[str, int]) -> None:
    free.update(available=50 * MIB, disk=227 * MIB)
    with pytest.raises(MigrationError) as caught:
        engine_runtime.place_for(100 * MIB, session, "here", memory=0)
    assert caught.value.code == "no_space"
    assert caught.value.details == {"free": 227 * MIB, "needed": 100 * MIB}
    for part in ("100 MiB", "227 MiB", "50 MiB", session.directory):
        assert part in caught.value.message
    assert not os.path.exists(session.memory_path("here"))
    assert not os.path.exists(session.path("here"))
    free["disk"] += 2 * MIB
    assert engine_runtime.place_for(100 * MIB, session, "here", memory=0) == session.path("here")


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_what_another_session_has_reserved_is_not_there(
    where: str, session: Session, make_session: MakeSession, free: dict[str, int]
) -> None:
    """Two sessions that look one after the other, and use it only after both have looked."""
    free.update({"available": 500 * MIB, "disk": 0} if where == "memory" else {"available": 0, "disk": 300 * MIB})
    other = make_session(engine="runtime", container="d" * 64)
    place = engine_runtime.place_for(100 * MIB, other, "images", memory=100 * MIB)
    with pytest.raises(MigrationError, match="beside 100 MiB that other moves of this host have reserved") as caught:
        engine_runtime.place_for(150 * MIB, session, "images", memory=150 * MIB)
    assert caught.value.code == "no_space"
    # What it has used meanwhile is not free any more, and not reserved either.
    Path(place, "pages-1.img").write_bytes(bytes(60 * MIB))
    free["available" if where == "memory" else "disk"] -= 60 * MIB
    with pytest.raises(MigrationError, match="beside 40 MiB"):
        engine_runtime.place_for(150 * MIB, session, "images", memory=150 * MIB)
    # With the session its reservation ends.
    other.enter("aborted")
    other.close(keep=True)
    free["available" if where == "memory" else "disk"] += 60 * MIB
    engine_runtime.place_for(150 * MIB, session, "images", memory=150 * MIB)


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_source_s_checkpoint_is_found_measured_and_deleted(
    on_disk: bool, session: Session, free: dict[str, int]
) -> None:
    free["available"] = 0 if on_disk else 1 << 40
    place = engine_runtime.place_for(MIB, session, "images", memory=0)
    os.mkdir(session.memory_path("dump"))
    for name, size in (("inventory.img", 5), ("pages-1.img", 7)):
        Path(place, name).write_bytes(bytes(size))
    assert engine_runtime.images(session) == place == (session.path if on_disk else session.memory_path)("images")
    engine: Any = None
    assert engine_runtime.seal(session, engine) == 12
    engine_runtime.forget(session, engine)
    engine_runtime.forget(session, engine)
    assert not os.path.exists(place)
    assert not os.path.exists(session.memory_path("dump"))
    assert not engine_runtime.bring_back(session, engine)


def test_a_checkpoint_too_large_for_memory_lies_on_the_disk(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(DESTINATION, container="c" * 64)
    os.mkdir(session.memory_path("inbox"))
    monkeypatch.setattr(engine_runtime, "_available_memory", lambda: 200 * MIB)
    Path(session.memory_path("inbox", "spec.json")).write_text(json.dumps({"memory_bytes": 40 * MIB}))
    assert engine_runtime.receive(session, "c" * 64) == session.path("images")
    assert os.path.realpath(Mark.of(session, "c" * 64).images) == session.path("images")


def _room_for_another(session: Session) -> bool:
    """Whether all that is free is there for another session (see the fixture ``free``: 1000 MiB of memory)."""
    return engine_runtime.place_for(400 * MIB, session, "here", memory=0) == session.memory_path("here")


def test_what_is_not_going_to_be_used_is_given_back_before_the_session_ends(
    session: Session, make_session: MakeSession, free: dict[str, int]
) -> None:
    """The other host may be gone: its half cannot be closed for a day then."""
    free["available"] = 1000 * MIB
    given_up = make_session(engine="runtime", container="d" * 64)
    engine_runtime.place_for(100 * MIB, given_up, "images", memory=600 * MIB)
    assert not _room_for_another(session)
    moved.original(given_up, moved.AnyEngine()).forget()
    assert _room_for_another(session)


@pytest.mark.parametrize("end", [engine_runtime.finish, engine_runtime.discard], ids=["RUN", "REFUSED"])
def test_so_it_is_on_the_destination(
    end: Callable[..., None], session: Session, make_session: MakeSession, free: dict[str, int]
) -> None:
    free["available"] = 1000 * MIB
    copy = make_session(DESTINATION, engine="runtime", container="d" * 64)
    engine_runtime.place_for(100 * MIB, copy, "images", memory=600 * MIB)
    assert not _room_for_another(session)
    end(copy, *([moved.AnyEngine()] if end is engine_runtime.finish else []), "e" * 64)
    assert _room_for_another(session)


def test_memory_that_is_in_use_is_not_reserved_any_more(
    session: Session, make_session: MakeSession, free: dict[str, int]
) -> None:
    """A copy that runs has its memory; the kernel counts that."""
    free["available"] = 1000 * MIB
    copy = make_session(DESTINATION, engine="runtime", container="d" * 64)
    copy.enter("creating")
    copy.enter("created", container_id="e" * 64)
    engine_runtime.place_for(100 * MIB, copy, "images", memory=600 * MIB)
    copy.enter("starting")
    copy.enter("held")
    assert not _room_for_another(session)
    assert copy.decide(RUN) == RUN
    engine_runtime.let_go(copy)
    assert copy.phase == "run"
    assert _room_for_another(session)
