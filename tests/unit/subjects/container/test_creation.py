# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making room on the destination, cut off by an engine that refuses: a copy that exists is marked, and the mark goes with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import creation
from tests.unit.docker.spec.samples import IMAGE, container
from tests.unit.helpers import moved
from tests.unit.helpers.support import OTHER_CONTAINER


class Engine:
    """An engine that makes the container and then refuses whatever it is asked about it."""

    api_version = "1.51"

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self.asked: list[str] = []
        self.made: dict[str, str] = {}
        self.marked: bool | None = None

    def info(self) -> dict[str, Any]:
        self.asked.append("info")
        return {"Runtimes": {"livemigrate": {}}}

    def find_image(self, _reference: str) -> dict[str, Any]:
        self.asked.append("image")
        return {"Id": IMAGE, "RepoTags": []}

    def find(self, name: str) -> dict[str, Any] | None:
        found = {"Id": OTHER_CONTAINER, "State": {"Status": "created"}}
        return found if name in (OTHER_CONTAINER, *self.made) and self.made else None

    def containers(self, *_filters: object, running: bool = False) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def find_network(self, _name: str) -> None:
        return None

    def create(self, name: str, body: dict[str, Any]) -> str:
        assert body["HostConfig"]["Runtime"] == "livemigrate"
        self.made[name] = OTHER_CONTAINER
        return OTHER_CONTAINER

    def connect(self, *_arguments: object) -> None:
        raise AssertionError("the container has one network")

    def inspect(self, _name: str) -> dict[str, Any]:
        self.marked = self._mark.exists
        raise MigrationError("engine_error", "The engine has no more time.")

    def remove(self, container_id: str) -> None:
        assert container_id == OTHER_CONTAINER
        self.made.clear()


@pytest.fixture
def session(make_session: Callable[..., Session], tmp_path: Path) -> Session:
    """A destination's session to which the spec has come."""
    found = make_session(DESTINATION, engine="runtime", data_root=str(tmp_path))
    image = {"id": IMAGE, "reference": "app:1", "tags": ["app:1"], "digests": []}
    spec = {"inspect": container(), "image": image, "volumes": [], "networks": [], "memory_bytes": 1 << 20}
    Path(found.memory_path("inbox")).mkdir()
    durable.write_json(found.memory_path("inbox", "spec.json"), spec)
    return found


@pytest.fixture
def mark(session: Session) -> Mark:
    return Mark.of(session, OTHER_CONTAINER)


@pytest.fixture
def engine(mark: Mark, session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = Engine(mark)
    creating: Any = found
    with pytest.raises(MigrationError, match="no more time"):
        creation.create(session, creating)
    return found


def test_a_copy_is_marked_before_anything_else_is_done_with_it(engine: Engine) -> None:
    assert engine.marked is True


def test_the_mark_of_a_copy_that_was_never_noted_goes_with_it(engine: Any, session: Session, mark: Mark) -> None:
    assert session.phase == "creating"
    assert Path(mark.directory).is_dir()
    assert destination.refuse(moved.copy(session, engine), "it failed") == REFUSED
    assert engine.made == {}
    assert not Path(mark.directory).exists()
    assert not Path(mark.work).exists()


def test_what_to_ask_of_the_engine_is_found_out_once(engine: Engine) -> None:
    """For the runtime, and for what the host has before; the image then too, and by its reference and its id for the creation."""
    assert engine.asked.count("info") == 2
    assert engine.asked.count("image") == 3
