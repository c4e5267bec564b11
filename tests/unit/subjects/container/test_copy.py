# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy that ends between RUN and its own restart policy is started as Docker would have done it, and once.

One that is refused leaves no memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import directories
from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED, RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import WITH_KEEPER, Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import copy as copy_module
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group
from tests.unit.helpers.support import OTHER_CONTAINER

MakeSession = Callable[..., Session]


class Docker:
    """What of an engine is asked here: the state of one container."""

    def __init__(self, *, running: bool, exit_code: int = 0) -> None:
        self.state: dict[str, Any] = {"Running": running, "ExitCode": exit_code}
        self.answers = True
        self.starts = 0

    def find(self, container: str) -> dict[str, Any]:
        if not self.answers:
            raise MigrationError("engine_unreachable", "The Docker engine does not answer.")
        assert container == OTHER_CONTAINER
        return {"Id": container, "State": dict(self.state)}

    def start(self, container: str) -> None:
        if not self.answers:
            raise MigrationError("engine_unreachable", "The Docker engine does not answer.")
        assert container == OTHER_CONTAINER
        self.starts += 1
        self.state["Running"] = True


def _run(make_session: MakeSession, policy: str) -> Session:
    session = make_session(DESTINATION, engine="runtime")
    session.enter("creating")
    session.enter("created", container_id=OTHER_CONTAINER, policy={"Name": policy})
    session.enter("starting")
    session.enter("held")
    session.decide(RUN)
    session.enter("run", container_id=OTHER_CONTAINER)
    return session


@pytest.fixture(autouse=True)
def _all_else_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """What precedes it is tested with copies and their policies."""
    monkeypatch.setattr(destination, "finish", lambda *_arguments: [])


def _hand_over(session: Session, docker: Docker) -> None:
    destination._hand_to_keeper_once(moved.copy(session, docker))


@pytest.mark.parametrize(
    ("policy", "exit_code", "starts"),
    [
        ("always", 0, 1),
        ("unless-stopped", 143, 1),
        ("on-failure", 137, 1),
        ("on-failure", 0, 0),
        ("no", 137, 0),
    ],
)
def test_one_that_a_restart_of_dockerd_has_ended_is_started_as_its_policy_says(
    policy: str, exit_code: int, starts: int, make_session: MakeSession
) -> None:
    docker = Docker(running=False, exit_code=exit_code)
    _hand_over(_run(make_session, policy), docker)
    assert docker.starts == starts


def test_one_that_ended_with_the_host_is_started_whatever_its_exit_code(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _run(make_session, "on-failure")
    monkeypatch.setattr(boot, "boot_identity", lambda: "another/1")
    docker = Docker(running=False)
    _hand_over(session, docker)
    assert docker.starts == 1


@pytest.mark.parametrize("policy", ["always", "no"])
def test_one_that_runs_unknown_to_docker_is_left_running(
    policy: str, make_session: MakeSession, group: Group, init: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start would kill it and begin afresh. The session stays open, and says so at every look."""
    session = _run(make_session, policy)
    monkeypatch.setattr(copy_module, "group_of_id", lambda container: group if container == OTHER_CONTAINER else None)
    docker = Docker(running=False)
    for _look in range(2):
        with pytest.raises(MigrationError, match=r"says it does not.*cgroup\.kill.*recover\.yml") as caught:
            _hand_over(session, docker)
        assert caught.value.code == "engine_lost_it"
    assert (docker.starts, group.pids()) == (0, [init])
    # What the message says.
    group.kill()
    _hand_over(session, docker)
    assert docker.starts == (policy == "always")


def test_one_that_a_person_stops_later_stays_down(make_session: MakeSession) -> None:
    """The session may be open for hours still, until its source comes back."""
    session = _run(make_session, "always")
    docker = Docker(running=True)
    _hand_over(session, docker)
    docker.state["Running"] = False
    _hand_over(session, docker)
    assert docker.starts == 0


def test_what_an_engine_does_not_do_is_done_later(make_session: MakeSession) -> None:
    session = _run(make_session, "always")
    docker = Docker(running=False)
    docker.answers = False
    with pytest.raises(MigrationError):
        _hand_over(session, docker)
    docker.answers = True
    _hand_over(session, docker)
    assert docker.starts == 1


def test_a_disk_that_does_not_take_the_note_changes_nothing_of_that(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full, and has no ballast left: the watchdog tries to note it at every look."""
    session = _run(make_session, "always")
    docker = Docker(running=True)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "publish", full)
        for _look in range(2):
            with pytest.raises(OSError, match="No space left"):
                _hand_over(session, docker)
            docker.state["Running"] = False
    _hand_over(session, docker)
    assert docker.starts == 0
    assert os.path.exists(session.path(WITH_KEEPER))


@pytest.mark.parametrize("engine", ["api", "runtime"])
def test_the_memory_of_a_refused_copy_goes_whatever_the_engine_does(
    engine: str, make_session: MakeSession, tmp_path: Path
) -> None:
    """It may have been the engine that broke in the restore. The host may be short of this memory."""
    session = make_session(DESTINATION, engine=engine, data_root=str(tmp_path / "docker"))
    session.enter("creating", name="web")
    session.enter("created", container_id=OTHER_CONTAINER)
    checkpoint = directories.checkpoint_directory(str(tmp_path / "docker"), OTHER_CONTAINER, session.id)
    place = Path(checkpoint if engine == "api" else session.memory_path("images"))
    place.mkdir(parents=True)
    (place / "pages-1.img").write_bytes(b"memory")
    docker = Docker(running=True)
    docker.answers = False
    with pytest.raises(MigrationError, match="does not answer"):
        destination.refuse(moved.copy(session, docker), "The restore failed.")
    assert session.decision == REFUSED
    assert not place.exists()


def test_an_abandoned_copy_that_is_held_leaves_its_memory_without_the_engine(
    make_session: MakeSession, tmp_path: Path
) -> None:
    session = make_session(DESTINATION, engine="runtime", data_root=str(tmp_path / "docker"))
    session.enter("creating", name="web")
    session.enter("created", container_id=OTHER_CONTAINER)
    place = Path(session.memory_path("images"))
    place.mkdir()

    class Hangs:
        def reach(self, _seconds: float) -> None:
            raise MigrationError("engine_unreachable", "It hangs.")

    one = moved.copy(session)
    one._keeper = Hangs()  # type: ignore[assignment]
    with pytest.raises(MigrationError, match="It hangs"):
        destination.reach(one, 1)
    assert (session.decision, session.phase) == (REFUSED, "created"), "the rest waits for the engine"
    assert not place.exists()
