# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How often the engine is asked for a container's inspect data in a move: once for each thing that may have changed since.

The tasks are real and in a cgroup of their own; CRIU, the other host and the engine are played.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import checkpoint_stream, durable_content
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import images as docker_images
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import runc
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import api as engine_api
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import armed_start, connections
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._host import tasks as tasks_of_host
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import (
    destination,
    handover,
    opening,
    source,
    steps,
    transfer,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, RUN, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import surroundings
from tests.unit.docker.spec.samples import IMAGE, container
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group, unified
from tests.unit.helpers.moved import AnyEngine
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER

MakeSession = Callable[..., Session]


class Engine(AnyEngine):
    """An engine with one container of real tasks; it counts how often it is asked for the inspect data of one."""

    api_version = "1.51"

    def __init__(self, root: Path, group: Group | None = None, init: int = 0) -> None:
        self.asked = 0
        self.root, self.group = root, group
        self.upper = root / "upper"
        self.upper.mkdir()
        (root / "containers" / CONTAINER).mkdir(parents=True)
        self.name = "web"
        self.policy: dict[str, Any] = {"Name": "always", "MaximumRetryCount": 0}
        self.calls: list[str] = []
        self._init = init
        self.copy: dict[str, Any] | None = None
        self.gone = False

    def _reported(self) -> dict[str, Any]:
        running = self.group is not None and self.group.populated
        state = {"Status": "running" if running else "exited", "Running": running, "Paused": False, "Pid": self._init}
        graph = {"Name": "overlay2", "Data": {"UpperDir": str(self.upper)}}
        found = container(Id=CONTAINER, Name=f"/{self.name}", State=state, GraphDriver=graph)
        found["HostConfig"]["RestartPolicy"] = dict(self.policy)
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        self.asked += 1
        if self.copy is not None and name in (OTHER_CONTAINER, self.copy["Name"].lstrip("/")):
            return self.copy
        return self._reported() if self.group is not None and name in (CONTAINER, self.name) and not self.gone else None

    def inspect(self, name: str) -> dict[str, Any]:
        found = self.find(name)
        assert found is not None
        return found

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": str(self.root), "Runtimes": {"livemigrate": {}}}

    def containers(self, *_filters: object, running: bool = False) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def find_image(self, _reference: str) -> dict[str, Any]:
        return {"Id": IMAGE, "RepoTags": ["app:1"]}

    def find_network(self, _name: str) -> None: ...

    def pause(self, _container: str) -> None:
        assert self.group is not None
        self.group.freeze()

    def rename(self, _container: str, name: str) -> None:
        if self.gone:
            raise MigrationError("engine_error", "No such container.")
        self.calls.append(f"rename {name}")
        if self.copy is not None:
            self.copy["Name"] = f"/{name}"
        else:
            self.name = name

    def set_restart_policy(self, _container: str, policy: dict[str, Any]) -> None:
        self.calls.append(f"policy {policy['Name']}")
        self.policy = dict(policy)

    def kill(self, _container: str) -> None:
        self.calls.append("kill")

    def create(self, name: str, _body: dict[str, Any]) -> str:
        graph = {"Name": "overlay2", "Data": {"UpperDir": str(self.upper)}}
        state = {"Running": True, "Status": "running", "ExitCode": 0}
        self.copy = container(Id=OTHER_CONTAINER, Name=f"/{name}", State=state, GraphDriver=graph)
        return OTHER_CONTAINER


class PlayedConversation:
    """The destination's end of the hand-over: all goes well there."""

    def __init__(self, *_words: object) -> None:
        self.output = None
        #: what happens here when the copy runs there
        self.meanwhile: Callable[[], None] = lambda: None

    def __enter__(self) -> PlayedConversation:
        return self

    def __exit__(self, *_exc: object) -> None: ...

    def disconnect(self) -> None: ...

    def time_limit(self, _seconds: float) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def receive(self) -> dict[str, Any]:
        return {"ready": True}

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        if "hold" in message:
            assert set(message["hold"]) == {"manifest", "fingerprints", "network", "surroundings"}
            numbers = dict.fromkeys(("seconds", "flush_seconds", "flush_waited"), 0.0)
            return {**numbers, "processes": 1, "recognised": 1, "warnings": [], "timeline": []}
        self.meanwhile()
        return {"decision": RUN, "container_id": OTHER_CONTAINER, "running_for": 0.0}


class Beside:
    """What is sent beside the dump."""

    def __init__(self, *_words: object, **_more: object) -> None: ...

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_exc: object) -> None: ...

    def dumped(self) -> None: ...

    def finish(self) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(({}, 0))

    def __radd__(self, other: int) -> int:
        return other


@pytest.fixture
def tasks(group: Group, init: int) -> Group:
    """The cgroup of the container, by whose name it is known."""
    path = Path(group.path) / f"docker-{CONTAINER}.scope"
    path.mkdir()
    found = Group(str(path))
    found.put(init)
    return found


@pytest.fixture
def conversation() -> PlayedConversation:
    return PlayedConversation()


@pytest.fixture
def engine(
    tasks: Group,
    init: int,
    quick: Path,
    conversation: PlayedConversation,
    host_roots: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    del host_roots
    (quick / "docker").mkdir()
    found = Engine(quick / "docker", tasks, init)
    monkeypatch.setattr(tasks_of_host, "_CGROUPS", str(unified()))
    monkeypatch.setattr(keeper, "Engine", lambda **_settings: found)
    for name in ("arm", "prove", "disarm"):
        monkeypatch.setattr(watchdog, name, lambda *_words: None)
    monkeypatch.setattr(Session, "keep_out_of_swap", lambda _self: None)
    monkeypatch.setattr(channel_client, "make_key", lambda _session: "ssh-ed25519 AAAA")
    monkeypatch.setattr(channel_client, "set_peer", lambda _session, _peer: None)
    monkeypatch.setattr(source, "probe", lambda _session: {})
    monkeypatch.setattr(transfer, "send_description", lambda _session: 0)
    monkeypatch.setattr(durable_content, "send", lambda *_words, **_more: 0)
    plan = connections.Plan(None, NO_ADDRESSES, (), False)
    monkeypatch.setattr(connections, "make_plan", lambda *_words, **_more: (plan, []))
    monkeypatch.setattr(surroundings, "look_ahead", lambda _side: {})
    monkeypatch.setattr(surroundings, "look_last", lambda _side, _ahead: {})
    reading = SimpleNamespace(result=dict)
    monkeypatch.setattr(surroundings, "Reading", lambda _side, _ahead: contextlib.nullcontext(reading))
    monkeypatch.setattr(runc, "unit_ready", lambda *_words: contextlib.nullcontext())
    monkeypatch.setattr(runc, "await_end", lambda *_words: None)
    counted = {"kept": 0, "closed": 0, "deleted_files": 0}
    monkeypatch.setattr(engine_runtime, "dump", lambda *_words: {"criu": {}, "found": dict(counted)})
    monkeypatch.setattr(engine_runtime, "reserve_space", _room)
    monkeypatch.setattr(handover, "Channel", lambda _session: None)
    monkeypatch.setattr(handover, "Conversation", lambda *_words: conversation)
    monkeypatch.setattr(handover, "LastPass", Beside)
    monkeypatch.setattr(checkpoint_stream, "Follower", Beside)
    monkeypatch.setattr(source, "close_destination_half", lambda _session: True)
    monkeypatch.setattr(Channel, "disconnect", lambda _self: None)
    return found


def _room(session: Session, _size: int) -> None:
    os.makedirs(session.memory_path("images"))


def _open(tmp_path: Path, engine_name: str = "runtime") -> Session:
    (tmp_path / "agent").write_text("")
    params = {
        "role": SOURCE,
        "container": "web",
        "peer_name": "beta",
        "engine": engine_name,
        "bind_mounts": [],
        # They are asked all the same what they need, and the container of this test is none that can be moved.
        "ignore_rules": [rule.id for rule in judge.rules()],
    }
    return Session(opening.open_half(params, str(tmp_path / "agent"), check_mode=False)["session"])


class Counted:
    """How often the engine is asked in each step."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked: dict[str, int] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        before = self._engine.asked
        yield
        self.asked[name] = self._engine.asked - before


def test_the_source_asks_four_times(engine: Engine, tmp_path: Path) -> None:
    counted = Counted(engine)
    with counted.step("opened"):
        session = _open(tmp_path)
    for name, params in (("connected", {"peer": {}}), ("content_sent", {"close_connections": False})):
        with counted.step(name):
            steps.run(name, session, params)
    with counted.step("handed_over"):
        reported = steps.run("handed_over", session, {})
    with counted.step("committed"):
        # What a module finds that comes late.
        steps.run("committed", session, {"wait": 1})
    assert session.phase == "closed"
    assert set(reported) >= {"gap", "connections", "criu", "checkpoint_bytes"}
    # Opened: is it there, and may it be moved? Before the freeze: which process is its first now, and how is it connected? At the
    # freeze: what has changed that keeps it here? At the end: has the engine noticed that it is stopped?
    assert counted.asked == {"opened": 1, "connected": 0, "content_sent": 1, "handed_over": 2, "committed": 0}
    assert sum(counted.asked.values()) <= 4
    # Somebody may have given it a policy or a name since it was looked at: both are taken from it without a look.
    assert engine.calls == ["policy no", f"rename web-moved-{session.id}", "policy no", "kill"]


def test_one_that_is_removed_while_it_is_handed_over_has_ended(
    engine: Engine, conversation: PlayedConversation, tmp_path: Path
) -> None:
    """The end of the hand-over does not look; where it fails, the next attempt does."""
    session = _open(tmp_path)
    steps.run("content_sent", session, {"close_connections": False})

    def removed() -> None:
        engine.gone = True

    conversation.meanwhile = removed
    asked: list[str] = []

    def ask(one: Session, _timeout: float) -> dict[str, Any]:
        asked.append(one.id)
        return {"decision": RUN, "container_id": OTHER_CONTAINER}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ask_decision", ask)
        steps.run("handed_over", session, {})
    assert asked == [session.id]
    assert session.reached("committed")


def test_with_the_engine_api_it_is_asked_once_more(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are agents of their own: the one that ends it cannot know what the one that froze it has seen."""
    monkeypatch.setattr(engine_api, "reserve_space", lambda _session, _size: None)
    monkeypatch.setattr(engine_api, "dump", lambda *_words: {})
    monkeypatch.setattr(engine_api, "seal", lambda _session, _content: 0)
    monkeypatch.setattr(engine_api, "forget", lambda *_words: None)
    counted = Counted(engine)
    with counted.step("opened"):
        session = _open(tmp_path, "api")
    wanted: dict[str, dict[str, Any]] = {
        "content_sent": {"close_connections": False},
        "dumped": {},
        "checkpoint_sent": {},
        "go": {},
        "committed": {"wait": 1},
    }
    monkeypatch.setattr(source, "ask_decision", lambda *_words: {"decision": RUN, "container_id": OTHER_CONTAINER})
    for name, params in wanted.items():
        with counted.step(name):
            steps.run(name, session, params)
    assert session.phase == "closed"
    assert counted.asked == {"opened": 1, "content_sent": 1, "dumped": 1, "checkpoint_sent": 0, "go": 0, "committed": 2}


def test_the_destination_asks_four_times(
    make_session: MakeSession, quick: Path, host_roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del host_roots
    monkeypatch.setattr(armed_start, "arm", lambda *_words: None)
    (quick / "docker").mkdir()
    engine = Engine(quick / "docker")
    (engine.root / "containers" / OTHER_CONTAINER).mkdir()
    session = make_session(DESTINATION, engine="runtime", data_root=str(engine.root))
    image = {"id": IMAGE, "reference": "app:1", "tags": ["app:1"], "digests": []}
    spec = {
        "inspect": container(),
        "image": image,
        "volumes": [],
        "networks": [],
        "memory_bytes": 1,
        "ignore_rules": [],
    }
    Path(session.memory_path("inbox")).mkdir()
    durable.write_json(session.memory_path("inbox", "spec.json"), spec)
    counted = Counted(engine)
    monkeypatch.setattr(docker_images, "find", lambda _engine, _image: {"Id": IMAGE})
    with counted.step("created"):
        moved.copy(session, engine).make({"overwrite_data": False})
    for phase in ("starting", "held"):
        session.enter(phase)
    session.decide(RUN)
    session.enter("run", container_id=OTHER_CONTAINER, running_since=time.clock_gettime(time.CLOCK_BOOTTIME))
    monkeypatch.setattr(channel_server, "revoke", lambda _session: None)
    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    with counted.step("close"):
        destination.source_is_done(moved.copy(session, engine))
    assert session.phase == "closed"
    # Created: is the name free, and where do its files lie? Bye: is it there to be given its policy, and, when it has that, has
    # it ended meanwhile?
    assert counted.asked == {"created": 2, "close": 2}


def test_a_look_that_is_not_the_first_of_a_step_is_a_fresh_one(engine: Engine, tasks: Group, tmp_path: Path) -> None:
    """A container that was started again since it was prepared is found out at the freeze, not moved by what was known of it."""
    session = _open(tmp_path)
    original = moved.original(session, engine)
    with pytest.MonkeyPatch.context() as patch:
        fenced = connections.Plan(SimpleNamespace(pid=1), NO_ADDRESSES, (), False)  # type: ignore[arg-type]
        patch.setattr(connections.Plan, "of", lambda _session: fenced)
        with pytest.raises(MigrationError) as caught:
            original.make_ready()
    assert caught.value.code == "container_restarted"
    assert TaskGroup(tasks.path).populated
