# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container before there is a session about it: what is noted of it, and what the destination is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import left_data
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import examine
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.found import Found
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.keeper import Keeper
from tests.unit.docker.spec.samples import container
from tests.unit.helpers.support import CONTAINER

MakeSession = Callable[..., Session]
PARAMS = {"container": "web", "engine": "runtime", "bind_mounts": [], "ignore_rules": ["host_network"]}


class Engine:
    """An engine that has been asked for the container already."""

    def find(self, _name: str) -> None:
        raise AssertionError("it has been looked at")

    inspect = find

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": "/docker"}

    def containers(self, *_filters: object, running: bool = False) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def find_image(self, reference: str) -> dict[str, Any]:
        return {"Id": reference, "RepoTags": ["app:1"], "RepoDigests": []}

    def find_network(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Driver": "bridge"}


def _found(tmp_path: Path) -> Found:
    bind = {"Type": "bind", "Source": str(tmp_path), "Destination": "/data", "RW": True, "Mode": "", "Propagation": ""}
    inspect = container(Id=CONTAINER, Name="/web", mounts=[bind], host={"Binds": [f"{tmp_path}:/data"]})
    # Of this very process: its files are looked at where they are.
    inspect["State"]["Pid"] = os.getpid()
    keeper: Any = Engine()
    return Found(Keeper(keeper), inspect)


def test_what_a_session_notes_of_it(tmp_path: Path) -> None:
    found = _found(tmp_path)
    assert (found.id, found.name) == (CONTAINER, "web")
    assert found.facts({**PARAMS, "bind_mounts": [str(tmp_path)]}) == {
        "container_id": CONTAINER,
        "container_name": "web",
        "engine": "runtime",
        "data_root": "/docker",
        "volumes": [str(tmp_path)],
        "left_data": {str(tmp_path): left_data.note(str(tmp_path))},
        "ignore_rules": ["host_network"],
    }
    with pytest.raises(MigrationError) as caught:
        found.facts({**PARAMS, "bind_mounts": ["/elsewhere"]})
    assert caught.value.code == "bind_mount_unknown"


def test_what_the_destination_gets(tmp_path: Path, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_of_container, "checkpoint_bytes", lambda _inspect: 77)
    found = _found(tmp_path)
    facts = found.facts({**PARAMS, "bind_mounts": [str(tmp_path)]})
    del facts["container_id"], facts["container_name"]
    session = make_session(**facts, ancestry=["b" * 64])
    outbox = Path(session.memory_path("outbox"))
    outbox.mkdir()
    found.describe(session)
    reported = json.loads((outbox / "spec.json").read_text())
    assert reported["inspect"]["Id"] == CONTAINER
    [mount] = reported["volumes"]
    assert (mount["path"], mount["travels"]) == (str(tmp_path), True)
    assert reported["networks"] == [{"Name": "bridge", "Driver": "bridge"}]
    assert (reported["ancestry"], reported["memory_bytes"], reported["ignore_rules"]) == (
        ["b" * 64],
        77,
        ["host_network"],
    )


def test_it_is_examined_as_it_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def require_movable(_engine: object, inspect: dict[str, Any], *, called: str, ignore_rules: Any) -> None:
        asked.append((inspect["Id"], called))
        assert ignore_rules == ["host_network"]

    monkeypatch.setattr(examine, "require_movable", require_movable)
    _found(tmp_path).require_movable(PARAMS)
    assert asked == [(CONTAINER, "web")]
