# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an old session may still do when the container, or its place, belongs to somebody else by now.

A half that waits to be heard is looked at for a day, and a person may settle it at any time. The engine is a table of containers:
these tests are about which calls are made, and to which of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import destination_lost
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination, recovery, source
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    DESTINATION,
    GO_SENT,
    REFUSED,
    RUN,
    SOURCE,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import copy as copy_module
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER

MakeSession = Callable[..., Session]

THIRD_CONTAINER = "c" * 64
ALWAYS = {"Name": "always", "MaximumRetryCount": 0}

pytestmark = pytest.mark.usefixtures("host_roots", "apart")


class Docker:
    """An engine with containers, which notes what is done to them."""

    def __init__(self, **containers: str) -> None:
        """
        :param containers: name to id, all of them running.
        """
        self.done: list[str] = []
        self.table: dict[str, dict[str, Any]] = {
            identity: {
                "Id": identity,
                "Name": f"/{name}",
                "State": {"Running": True, "Status": "running", "Paused": False, "Pid": 0, "ExitCode": 0},
                "HostConfig": {"RestartPolicy": dict(ALWAYS)},
            }
            for name, identity in containers.items()
        }

    @property
    def engine(self) -> Engine:
        return cast(Engine, self)

    @contextmanager
    def within(self, _seconds: float) -> Iterator[None]:
        yield

    def find(self, container: str) -> dict[str, Any] | None:
        for one in self.table.values():
            if container in (one["Id"], one["Name"].lstrip("/")):
                return {**one, "State": dict(one["State"]), "HostConfig": dict(one["HostConfig"])}
        return None

    def inspect(self, container: str) -> dict[str, Any]:
        found = self.find(container)
        assert found is not None
        return found

    def set_restart_policy(self, container: str, policy: dict[str, Any]) -> None:
        self.done.append(f"policy {policy['Name']}")
        self.table[container]["HostConfig"] = {"RestartPolicy": dict(policy)}

    def start(self, container: str) -> None:
        self.done.append("start")
        self.table[container]["State"].update(Running=True, Status="running")

    def kill(self, container: str) -> None:
        self.table[container]["State"].update(Running=False, Status="exited")

    def rename(self, container: str, name: str) -> None:
        self.table[container]["Name"] = f"/{name}"

    def find_volume(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Mountpoint": f"/nowhere/{name}"}

    def remove_volume(self, name: str) -> None:
        self.done.append(f"remove volume {name}")

    def remove_network(self, name: str) -> None:
        self.done.append(f"remove network {name}")

    def find_image(self, _name: str) -> None:
        return None

    def containers(self, *, running: bool = False) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def policy_of(self, container: str) -> str:
        return str(self.table[container]["HostConfig"]["RestartPolicy"]["Name"])


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own is touched, and nobody can be reached."""

    def unreachable(*_arguments: object) -> None:
        raise MigrationError("destination_unreachable", "It does not answer.", connected=False)

    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    monkeypatch.setattr(channel_server, "revoke", lambda _session: None)
    monkeypatch.setattr(source, "ask_decision", unreachable)
    monkeypatch.setattr(source, "close_destination_half", lambda _session: False)
    monkeypatch.setattr(destination_lost, "require", lambda *_arguments: None)
    monkeypatch.setattr(Channel, "disconnect", lambda _self: None)


def _enter(session: Session, phases: str, **facts: dict[str, Any]) -> Session:
    for phase in phases.split():
        session.enter(phase, **facts.get(phase, {}))
    return session


def _frozen(make_session: MakeSession, container: str) -> Session:
    """A source's half that has handed over."""
    arming = {"policy": ALWAYS, "cgroup": "/nowhere", "pid": 1}
    session = make_session(SOURCE, container=container, engine="runtime", container_name="web", data_root="/nowhere")
    _enter(session, "prepared arming armed freezing dumped sent held", arming=arming)
    session.decide(GO_SENT)
    return session


def _came(make_session: MakeSession) -> Session:
    """A destination's half that has said RUN, of which its source has not heard."""
    session = make_session(DESTINATION, engine="runtime", container_name="web", data_root="/nowhere")
    made = {"name": "web", "volumes": [], "networks": [], "made_directories": [], "empty_directories": []}
    _enter(
        session,
        "creating created starting held",
        creating=made,
        created={"container_id": OTHER_CONTAINER, "policy": ALWAYS},
    )
    session.decide(RUN)
    return _enter(session, "run", run={"container_id": OTHER_CONTAINER})


def _settle(session: Session, docker: Docker, **keywords: bool) -> None:
    """As its watchdog does, or its source's command to close."""
    with session.locked(alive=False):
        destination.settle(moved.copy(session, docker.engine), **keywords)


def _move_on(make_session: MakeSession, docker: Docker) -> None:
    """Another move takes the container away, to a third host."""
    onward = _frozen(make_session, OTHER_CONTAINER)
    source.commit(moved.original(onward, docker.engine), {"decision": RUN, "container_id": THIRD_CONTAINER})
    onward.close(keep=True)
    docker.done.clear()


def test_a_refusal_takes_nothing_away_a_second_time(make_session: MakeSession, tmp_path: Path) -> None:
    """By the next hour somebody may have put the service there by other means."""
    data, made = tmp_path / "data", tmp_path / "made"
    data.mkdir()
    session = make_session(DESTINATION, engine="runtime", data_root="/nowhere")
    places = {
        "made_directories": [{"path": str(made), "around": durable.identity(str(tmp_path))}],
        "empty_directories": [{"path": str(data), "identity": durable.identity(str(data))}],
    }
    _enter(session, "creating", creating={"name": "web", "volumes": ["db"], "networks": ["net"], **places})
    _enter(session, "created", created={"container_id": OTHER_CONTAINER, "policy": ALWAYS})
    docker = Docker()
    (data / "sent").write_text("")
    _settle(session, docker)
    assert (session.phase, session.decision) == ("refused", REFUSED)
    assert docker.done == ["remove volume db", "remove network net"]
    assert not list(data.iterdir())
    docker.done.clear()
    (data / "precious").write_text("live")
    made.mkdir()
    for known in (False, True):
        _settle(session, docker, source_knows=known)
    assert docker.done == []
    assert (data / "precious").exists()
    assert made.exists()


@pytest.mark.parametrize("swapped", ["the directory", "the one around it"])
def test_a_refusal_removes_nothing_where_the_way_leads_elsewhere_by_now(
    swapped: str, make_session: MakeSession, tmp_path: Path
) -> None:
    """Who may change a directory above a bind mount can put a link in its place."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for directory in (home / "data", elsewhere / "data" / "below", elsewhere / "made" / "below"):
        directory.mkdir(parents=True)
    places = {
        "made_directories": [{"path": str(home / "made"), "around": durable.identity(str(home))}],
        "empty_directories": [{"path": str(home / "data"), "identity": durable.identity(str(home / "data"))}],
    }
    (home / "made").mkdir()
    conf = {"path": str(home / "conf"), "arrival": str(home / ".arrival"), "made": True}
    files = [{**conf, "around": durable.identity(str(home))}]
    for place in (home / "conf", elsewhere / "conf"):
        place.touch()
    session = make_session(DESTINATION, engine="runtime", data_root="/nowhere")
    _enter(session, "creating", creating={"name": "web", "volumes": [], "networks": [], "files": files, **places})
    link, target = (home, elsewhere) if swapped == "the one around it" else (home / "data", elsewhere / "data")
    link.rename(tmp_path / "away")
    link.symlink_to(target)
    _settle(session, Docker())
    # It never came so far that its source could ask; its record tells people what was left.
    assert session.ended
    assert len(session_stories.left(session)) == (1 if swapped == "the directory" else 3)
    left = {str(path.relative_to(elsewhere)) for path in elsewhere.rglob("*")}
    assert left == {"data", "data/below", "made", "made/below", "conf"}
    if swapped == "the directory":
        assert not (home / "made").exists()
        assert not (home / "conf").exists()


@pytest.mark.parametrize("way", ["a file", "a link to itself"])
def test_a_refusal_comes_to_its_end_where_no_way_leads_any_more(
    way: str, make_session: MakeSession, tmp_path: Path
) -> None:
    """With the engine api its source hears the word only after that."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "conf").touch()
    around = durable.identity(str(home))
    files = [{"path": str(home / "conf"), "arrival": str(home / ".arrival"), "made": True, "around": around}]
    places = {
        "made_directories": [{"path": str(home / "made"), "around": around}],
        "empty_directories": [{"path": str(home / "data"), "identity": durable.identity(str(home / "data"))}],
    }
    session = make_session(DESTINATION, engine="runtime", data_root="/nowhere")
    _enter(session, "creating", creating={"name": "web", "volumes": [], "networks": [], "files": files, **places})
    home.rename(tmp_path / "away")
    if way == "a file":
        home.touch()
    else:
        home.symlink_to(home)
    _settle(session, Docker())
    assert not os.path.exists(session.directory)


def test_nothing_can_be_written_into_what_has_come(make_session: MakeSession) -> None:
    """The channel stays open for a day, for a source that has not heard; its key writes no file of a container that runs."""
    session = _came(make_session)
    channel_server.set_targets(session, {"layer": "/nowhere"})
    _settle(session, Docker(web=OTHER_CONTAINER))
    assert not session.ended
    assert not os.path.exists(session.memory_path("targets.json"))


def test_who_moves_on_what_has_come_decides_last(make_session: MakeSession) -> None:
    """Its old copy is stopped and has no restart policy; the half that brought it here waits to be heard, for a day."""
    docker = Docker(web=OTHER_CONTAINER)
    session = _came(make_session)
    _settle(session, docker)
    _move_on(make_session, docker)
    for known in (False, True):
        _settle(session, docker, source_knows=known)
    assert docker.done == []
    assert docker.policy_of(OTHER_CONTAINER) == "no"


def test_what_a_move_has_left_to_be_done_is_done_before_the_next_one(make_session: MakeSession) -> None:
    """The watchdog would come 30 s after RUN, and start what has been moved on meanwhile."""
    docker = Docker(web=OTHER_CONTAINER)
    docker.table[OTHER_CONTAINER]["HostConfig"] = {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}
    session = _came(make_session)
    assert destination.finish_arrival(moved.containers(docker.engine), OTHER_CONTAINER)
    assert docker.done == ["policy always"]
    _move_on(make_session, docker)
    _settle(session, docker)
    assert docker.done == []
    assert not docker.table[OTHER_CONTAINER]["State"]["Running"]


def test_what_runs_unknown_to_docker_gets_no_policy(
    make_session: MakeSession, group: Group, init: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By it the next dockerd would start it at once: kill it, and begin afresh."""
    monkeypatch.setattr(copy_module, "group_of_id", lambda container: group if container == OTHER_CONTAINER else None)
    docker = Docker(web=OTHER_CONTAINER)
    docker.table[OTHER_CONTAINER]["HostConfig"] = {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}
    docker.kill(OTHER_CONTAINER)
    session = _came(make_session)
    for _look in range(2):
        with pytest.raises(MigrationError) as caught:
            _settle(session, docker)
        assert caught.value.code == "engine_lost_it"
    assert (docker.done, docker.policy_of(OTHER_CONTAINER), group.pids()) == ([], "no", [init])
    # What the message says.
    group.kill()
    _settle(session, docker)
    assert docker.done == ["policy always", "start"]


@pytest.mark.parametrize("decision", [None, REFUSED])
def test_what_is_held_is_not_moved_on(decision: str | None, make_session: MakeSession) -> None:
    """Docker shows it as running. To freeze it, and to thaw it when that fails, would let it run beside its original."""
    docker = Docker(web=OTHER_CONTAINER)
    session = make_session(DESTINATION, engine="runtime")
    session.enter("creating")
    session.enter("created", container_id=OTHER_CONTAINER)
    session.enter("starting")
    session.enter("held")
    if decision is not None:
        session.decide(decision)
    with pytest.raises(MigrationError, match="has not been handed over to this host") as caught:
        destination.finish_arrival(moved.containers(docker.engine), OTHER_CONTAINER)
    assert caught.value.code == "session_busy"
    assert caught.value.details["session"] == session.id
    assert docker.done == []


def test_what_came_from_nowhere_or_is_not_there_has_nothing_left(make_session: MakeSession) -> None:
    docker = Docker(web=THIRD_CONTAINER)
    _came(make_session)
    assert not destination.finish_arrival(moved.containers(docker.engine), THIRD_CONTAINER)
    assert docker.done == []


def test_a_closing_that_is_cut_off_starts_nothing(make_session: MakeSession) -> None:
    """Who has stopped the container meanwhile wants it to be down."""

    class CutOff(BaseException):
        pass

    def cut_off(*_arguments: object) -> None:
        raise CutOff

    docker = Docker(web=OTHER_CONTAINER)
    session = _came(make_session)
    _settle(session, docker)
    docker.kill(OTHER_CONTAINER)
    docker.done.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "release_claim", cut_off)
        with pytest.raises(CutOff):
            _settle(session, docker, source_knows=True)
    again = Session(session.id)
    assert not again.ended
    _settle(again, docker, source_knows=True)
    assert docker.done == []
    assert sorted(os.listdir(session.directory)) == ["decision", "journal", "session.json"]


@pytest.mark.parametrize("moved_on", [False, True])
def test_a_destination_that_is_lost_after_it_has_refused_changes_nothing(
    moved_on: bool, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source went on long ago, and may have moved the container elsewhere; the person only wants the session to be closed."""
    docker = Docker(web=CONTAINER)
    session = _frozen(make_session, CONTAINER)
    source.settle(moved.original(session, docker.engine), decision={"decision": REFUSED})
    assert session.phase == "aborted"
    if moved_on:
        onward = _frozen(make_session, CONTAINER)
        source.commit(moved.original(onward, docker.engine), {"decision": RUN, "container_id": THIRD_CONTAINER})
        onward.close(keep=True)
    else:
        docker.kill(CONTAINER)
    docker.done.clear()
    monkeypatch.setattr(keeper, "Engine", lambda **_settings: docker.engine)
    recovery.settle(
        session=session.id,
        name=None,
        role=SOURCE,
        wait=0.0,
        ignore_lease=True,
        other_half_settled=False,
        destination_lost=session.id,
        check_mode=False,
    )
    assert docker.done == []
    assert not docker.table[CONTAINER]["State"]["Running"]
    assert session.ended
