# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers as a kind: what is found of one by its name, and the steps and commands that only containers have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent, steps
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.kind import Containers
from tests.unit.docker.spec.samples import container
from tests.unit.helpers import moved
from tests.unit.helpers.moved import AnyEngine
from tests.unit.helpers.support import CONTAINER

MakeSession = Callable[..., Session]


class Engine(AnyEngine):
    """An engine with one container and its image."""

    def __init__(self) -> None:
        self.exported: list[str] = []

    def find(self, name: str) -> dict[str, Any] | None:
        return container(Id=CONTAINER, Name="/web") if name in ("web", CONTAINER) else None

    def names(self) -> list[str]:
        return ["web"]

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": "/docker"}

    def export_image(self, references: Iterable[str]) -> list[bytes]:
        self.exported = list(references)
        return [b"an ", b"image"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()
    monkeypatch.setattr(keeper, "Engine", lambda **_settings: found)
    return found


def test_one_is_found_by_its_name_and_its_id(engine: Engine) -> None:
    kind = moved.containers(engine)
    for name in ("web", CONTAINER):
        found = kind.find(name)
        assert found is not None
        assert (found.id, found.name) == (CONTAINER, "web")
    assert kind.find("wep") is None
    reported = kind.unknown("wep")
    assert reported.code == "container_not_found"
    assert "Did you mean web?" in reported.message


def test_the_destination_s_half_notes_what_it_is_about(engine: Engine) -> None:
    params = {"container": "/web", "container_id": CONTAINER, "engine": "runtime", "peer_name": "alpha"}
    assert moved.containers(engine).facts_of_copy(params) == {
        "container_id": CONTAINER,
        "container_name": "web",
        "engine": "runtime",
        "data_root": "/docker",
    }
    with pytest.raises(MigrationError):
        moved.containers(engine).facts_of_copy({**params, "container": "../web"})


@pytest.mark.parametrize(("tags", "exported"), [(["app:1", "app:2"], ["app:1", "app:2"]), ([], ["sha256:5"])])
def test_its_image_is_sent_by_its_tags_where_it_has_any(
    tags: list[str], exported: list[str], engine: Engine, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(engine="runtime")
    Path(session.memory_path("outbox")).mkdir()
    durable.write_json(session.memory_path("outbox", "spec.json"), {"image": {"id": "sha256:5", "tags": tags}})
    printed: list[tuple[str, bytes]] = []

    def stream(_self: Channel, command: str, chunks: Iterable[bytes]) -> tuple[dict[str, Any], int]:
        printed.append((command, b"".join(chunks)))
        return {}, len(printed[0][1])

    monkeypatch.setattr(Channel, "__init__", lambda _self, _session: None)
    monkeypatch.setattr(Channel, "stream", stream)
    reported = steps.run("image_sent", session, {})
    assert (reported["changed"], reported["bytes"], printed) == (True, 8, [("image-load", b"an image")])
    assert engine.exported == exported


def test_its_commands_are_answered_beside_those_of_every_kind(
    make_session: MakeSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(DESTINATION, engine="runtime")
    session.enter("creating")
    session.enter("created", container_id=CONTAINER, addresses={"reachable": []})
    assert agent.serve(session, "addresses") == 0
    assert capsys.readouterr().out == '{"reachable": [], "keeps": true}'
    assert agent.serve(session, "no-such-command") == 1
    assert "does not know the command" in capsys.readouterr().out
    # For what every session is asked its kind is not even loaded.
    monkeypatch.setattr(agent, "_of_kind", lambda _session: pytest.fail("it is not asked"))
    assert agent.serve(session, "ping") == 0


def test_nothing_is_asked_of_an_engine_before_it_is_needed(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing docker-py takes longer than most commands."""
    monkeypatch.setattr(keeper, "Engine", lambda: pytest.fail("it is not needed"))
    kind = Containers()
    source, destination = make_session(engine="runtime"), make_session(DESTINATION, container="b" * 64, engine="api")
    assert kind.original(source).can_be_held
    assert not kind.copy(destination).can_be_held
    assert set(kind.steps()) == {"image_sent"}
    assert set(kind.commands(destination)) == {"image-load", "addresses"}
