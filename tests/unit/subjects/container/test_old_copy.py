# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The old copy: ended so that nothing starts it again, wherever that is cut off, and removed only while it is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import connections
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination, freeze, recovery, source
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    ABORT,
    DESTINATION,
    GO_SENT,
    RUN,
    SOURCE,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import (
    examine,
    keeper,
    old_copy,
    old_records,
    restart_policy,
    trees,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.original import Original
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group
from tests.unit.helpers.one_container import ALWAYS, NEVER, CutOff, OneContainer
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to

MakeSession = Callable[..., Session]
VERDICT = {"decision": RUN, "container_id": OTHER_CONTAINER}


@pytest.fixture
def docker(quick: Path) -> Path:
    """The engine's data root."""
    return quick / "docker"


@pytest.fixture
def frozen(make_session: MakeSession, group: Group, init: int, docker: Path) -> Session:
    """A source that has handed over a container of real tasks, which stand still."""
    session = make_session(SOURCE, engine="runtime", data_root=str(docker))
    session.enter("prepared")
    session.enter("arming", policy=ALWAYS, pid=init, cgroup=group.path, bytes=0)
    for phase in ("armed", "freezing", "dumped", "sent"):
        session.enter(phase, at=0.0)
    session.decide(GO_SENT)
    group.freeze()
    TaskGroup(group.path).wait_frozen(True, 5)
    return session


def _moved(session: Session) -> str:
    return f"web-moved-{session.id}"


def _flushes(monkeypatch: pytest.MonkeyPatch, reported: list[str]) -> None:
    """Note what is flushed, among what the engine is asked."""
    file, directory = durable.sync_file, durable.sync_directory

    def sync_file(path: str) -> None:
        file(path)
        reported.append(f"flush {os.path.basename(path)}")

    def sync_directory(path: str) -> None:
        directory(path)
        if os.path.basename(os.path.dirname(path)) == "containers":
            reported.append("flush directory")

    monkeypatch.setattr(durable, "sync_file", sync_file)
    monkeypatch.setattr(durable, "sync_directory", sync_directory)


FLUSHED = ["flush config.v2.json", "flush hostconfig.json", "flush directory"]


# -- ending it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [NEVER, ALWAYS])
def test_it_loses_its_name_and_policy_before_it_is_killed_and_is_looked_at_after(
    policy: dict[str, Any], frozen: Session, group: Group, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = OneContainer(docker, CONTAINER, running=lambda: group.populated, policy=policy)
    _flushes(monkeypatch, engine.calls)
    kill = TaskGroup.kill
    monkeypatch.setattr(TaskGroup, "kill", lambda self, *words: (engine.calls.append("end tasks"), kill(self, *words)))
    source.commit(moved.original(frozen, engine), VERDICT)
    changed = ["rename"] if policy == NEVER else ["rename", "policy"]
    assert engine.calls == ["look", *changed, *FLUSHED, "end tasks", "kill", "look"]
    assert (engine.name, engine.policy, group.populated) == (_moved(frozen), NEVER, False)
    assert frozen.phase == "committed"


class Victim:
    """A container that is ended by somebody who is cut off before one of his calls."""

    def __init__(self, session: Session, docker: Path, cut: int) -> None:
        self._session = session
        self._left = cut
        self.alive = True
        self.engine: Any = OneContainer(
            docker, session.facts["container_id"], running=lambda: self.alive, policy=ALWAYS
        )
        self.engine.before = self._call

    def _call(self, _name: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise CutOff

    def _kill(self, *_words: object) -> None:
        self._call("end tasks")
        self.alive = False

    def commit(self) -> bool:
        """Whether it came to its end."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TaskGroup, "kill", self._kill)
            try:
                source.commit(moved.original(self._session, self.engine), VERDICT)
            except CutOff:
                return False
        return True

    @property
    def is_harmless(self) -> bool:
        """Whether nothing knows it by its name, and no policy starts it."""
        return (self.engine.name, self.engine.policy) == (_moved(self._session), NEVER)


def test_wherever_ending_it_is_cut_off_nothing_starts_it_again(make_session: MakeSession, docker: Path) -> None:
    """What is dead has lost its name and policy already; and doing it again ends it whatever was left."""
    for cut in range(1, 10):
        session = make_session(SOURCE, container=f"{cut:064x}", engine="runtime", data_root=str(docker))
        session.enter("prepared")
        session.enter("arming", policy=ALWAYS, pid=1, cgroup="/nowhere", bytes=0)
        for phase in ("armed", "freezing", "dumped", "sent"):
            session.enter(phase, at=0.0)
        victim = Victim(session, docker, cut)
        done = victim.commit()
        assert victim.alive or victim.is_harmless, cut
        assert done or victim.commit()
        assert (victim.alive, victim.is_harmless, session.phase) == (False, True, "committed")
        if done:
            assert cut > 5, "it was cut off at each of its calls"
            return
    raise AssertionError("it never came to its end")


def test_one_that_is_started_meanwhile_is_no_end(
    frozen: Session, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who has its id starts it again at once: that is told, and the session stays open for the next attempt."""
    engine: Any = OneContainer(docker, CONTAINER)
    monkeypatch.setattr(old_copy, "_NOTICE_SECONDS", 0.1)
    with pytest.raises(MigrationError) as caught:
        source.commit(moved.original(frozen, engine), VERDICT)
    assert caught.value.code == "kill_failed"
    assert "started it again" in caught.value.message
    assert (frozen.phase, engine.name) == ("sent", _moved(frozen))


def test_one_that_was_removed_by_a_person_has_ended(frozen: Session) -> None:
    class Gone:
        def find(self, _container: str) -> None:
            return None

    engine: Any = Gone()
    source.commit(moved.original(frozen, engine), VERDICT)
    assert frozen.phase == "committed"


# -- or letting it go on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web", "moved"])
def test_wherever_the_engine_restarts_a_container_that_goes_on_runs_in_the_end(
    name: str, make_session: MakeSession, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of dockerd without live-restore ends it; its policy starts it again, or the look at it does."""
    monkeypatch.setattr(Original, "thaw", lambda _self: None)
    for moment in range(1, 8):
        container = f"{moment:064x}"
        session = make_session(SOURCE, container=container, engine="runtime", data_root=str(docker))
        session.enter("prepared")
        session.enter("arming", policy=ALWAYS, pid=1, cgroup="/nowhere", bytes=0)
        session.decide(ABORT)
        engine: Any = OneContainer(docker, container)
        engine.name = _moved(session) if name == "moved" else name
        left = moment

        def call(_name: str, engine: Any = engine) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                engine.restarts()

        engine.before = call
        source.abort(moved.original(session, engine))
        if left > 0:
            # When all is done: by its policy, from the disk.
            engine.restarts()
        assert (engine.runs, engine.policy, engine.name, session.phase) == (True, ALWAYS, "web", "aborted"), moment
    assert left > 0, "it was restarted at each call"


def test_the_policy_is_back_on_the_disk_before_the_container_is_looked_at(
    make_session: MakeSession, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(SOURCE, engine="runtime", data_root=str(docker))
    session.enter("prepared")
    session.enter("arming", policy=ALWAYS, pid=1, cgroup="/nowhere", bytes=0)
    engine: Any = OneContainer(docker, CONTAINER)
    monkeypatch.setattr(Original, "thaw", lambda _self: engine.calls.append("thaw"))
    _flushes(monkeypatch, engine.calls)
    source.abort(moved.original(session, engine))
    assert engine.calls == ["look", "thaw", "policy", *FLUSHED, "look"]


# -- the policy on the disk ------------------------------------------------------------------------------------------


def test_a_policy_is_flushed_also_where_another_has_set_it(
    make_session: MakeSession, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who set it may have been cut off before the flush."""
    session = make_session(SOURCE, data_root=str(docker))
    engine: Any = OneContainer(docker, CONTAINER)
    _flushes(monkeypatch, engine.calls)
    inspect = engine.inspect(CONTAINER)
    restart_policy.put(session, engine, CONTAINER, inspect, NEVER)
    assert engine.calls == ["look", *FLUSHED], "no log is waited for"
    restart_policy.put(session, engine, CONTAINER, inspect, ALWAYS)
    assert engine.calls[4:] == ["policy", *FLUSHED]
    restart_policy.flush(session, OTHER_CONTAINER)


def test_nothing_is_frozen_before_the_policy_is_on_the_disk(
    make_session: MakeSession, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(SOURCE, engine="runtime", data_root=str(docker))
    session.enter("prepared")
    engine: Any = OneContainer(docker, CONTAINER, policy=ALWAYS)
    _flushes(monkeypatch, engine.calls)
    inspect = {**engine.inspect(CONTAINER), "State": {"Pid": 1, "Running": True}}

    def frozen(_plan: object) -> None:
        raise CutOff

    engine.inspect = lambda _container: inspect
    Path(session.memory_path("outbox")).mkdir()
    durable.write_json(session.memory_path("outbox", "spec.json"), {"inspect": inspect, "volumes": []})
    monkeypatch.setattr(trees, "content", lambda *_words: [])
    monkeypatch.setattr(Original, "look_last", lambda _self: None)
    monkeypatch.setattr(examine, "require_movable", lambda *_words, **_more: None)
    monkeypatch.setattr(facts_of_container, "checkpoint_bytes", lambda _inspect: 0)
    monkeypatch.setattr(watchdog, "prove", lambda _session: engine.calls.append("watchdog"))
    monkeypatch.setattr(connections, "keep_new_ones_out", frozen)
    monkeypatch.setattr(connections.Plan, "of", lambda _session: type("Plan", (), {"fence": None}))
    monkeypatch.setattr(TaskGroup, "of_container", lambda _inspect: TaskGroup("/nowhere"))
    monkeypatch.setattr(engine_runtime, "reserve_space", lambda _session, _size: None)
    with pytest.raises(CutOff):
        freeze.freeze(moved.original(session, engine))
    assert engine.calls == ["look", "watchdog", "policy", *FLUSHED]
    assert session.phase == "armed"


# -- removing it -----------------------------------------------------------------------------------------------------

USES = {
    "kept": ("", False, ""),
    "started": ("", True, "has been started again and is running"),
    "renamed": ("other", False, "has been given this name by somebody"),
    "its own name": ("web", False, "has been given this name by somebody"),
}


def _old(session: Session, docker: Path, use: str) -> OneContainer:
    name, runs, _reported = USES[use]
    return OneContainer(docker, CONTAINER, name=name or _moved(session), running=lambda: runs)


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("use", USES)
def test_a_cleanup_removes_what_is_stopped_and_bears_its_moved_name(
    use: str,
    check_mode: bool,
    make_session: MakeSession,
    host_roots: dict[str, str],
    docker: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = bring_to(make_session(SOURCE, data_root=str(docker)), "committed")
    session.close(keep=True)
    # What else there is to do is done all the same.
    nothing = bring_to(make_session(SOURCE, container=OTHER_CONTAINER), "aborted")
    nothing.close(keep=True)
    engine = _old(session, docker, use)
    monkeypatch.setattr(keeper, "Engine", lambda **_settings: engine)
    engine_find = engine.find
    monkeypatch.setattr(engine, "find", lambda name: engine_find(name) if name == CONTAINER else None)
    prune: Any = old_records.prune
    for name, value in host_roots.items():
        monkeypatch.setitem(prune.__kwdefaults__, name, value)
    reported = USES[use][2]
    if reported:
        with pytest.raises(MigrationError) as caught:
            recovery.clean(session=None, name=None, check_mode=check_mode)
        assert caught.value.code == "old_copy_in_use"
        assert reported in caught.value.message
        assert f"name it {_moved(session)} again" in caught.value.message
        assert engine.removed == []
    else:
        answer = recovery.clean(session=None, name=None, check_mode=check_mode)
        assert (answer["removed"], answer["changed"]) == ([_moved(session)], True)
        # Not by force: it may be started at that very moment.
        assert engine.removed == ([] if check_mode else [(CONTAINER, False)])
    assert os.path.isdir(session.directory)
    assert os.path.isdir(nothing.directory) == check_mode


def _came_back(use: str, make_session: MakeSession, docker: Path) -> tuple[Session, OneContainer, OneContainer, Any]:
    """A session that has brought a container back, its old copy, its copy, and the engine that has both."""
    earlier = bring_to(make_session(SOURCE, data_root=str(docker)), "committed")
    earlier.close(keep=True)
    session = make_session(
        DESTINATION, container=OTHER_CONTAINER, engine="runtime", data_root=str(docker), ancestry=[CONTAINER]
    )
    session.enter("creating")
    session.enter("created", policy=ALWAYS, container_id="c" * 64)
    session.enter("starting")
    session.decide(RUN)
    session.enter("run", container_id="c" * 64)
    old, copy = _old(earlier, docker, use), OneContainer(docker, "c" * 64)

    class Both:
        def find(self, name: str) -> dict[str, Any] | None:
            return (old if name == CONTAINER else copy).find(name)

        def __getattr__(self, name: str) -> Any:
            return getattr(old if name == "remove" else copy, name)

    return session, old, copy, Both()


@pytest.mark.usefixtures("host_roots")
@pytest.mark.parametrize("use", USES)
def test_a_move_back_removes_its_old_copy_and_nothing_that_is_in_use(
    use: str, make_session: MakeSession, docker: Path
) -> None:
    session, old, copy, engine = _came_back(use, make_session, docker)
    left = destination.finish(moved.copy(session, engine))
    assert copy.policy == ALWAYS
    assert old.removed == ([] if USES[use][2] else [(CONTAINER, False)])
    assert [USES[use][2] in one for one in left] == ([True] if USES[use][2] else [])


@pytest.mark.usefixtures("host_roots")
def test_an_old_copy_that_cannot_be_removed_keeps_no_move_from_its_end(
    make_session: MakeSession, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, old, copy, engine = _came_back(next(use for use in USES if not USES[use][2]), make_session, docker)
    code, busy = "engine_error", "Cannot remove container: unlinkat upper: device or resource busy"

    def remove(*_arguments: object, **_keywords: object) -> None:
        raise MigrationError(code, busy)

    monkeypatch.setattr(old, "remove", remove)
    assert destination.finish(moved.copy(session, engine)) == [busy]
    assert copy.policy == ALWAYS
    # An engine that does not answer will, and is asked again.
    code = "engine_unreachable"
    with pytest.raises(MigrationError):
        destination.finish(moved.copy(session, engine))
