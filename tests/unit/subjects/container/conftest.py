# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that stands still on its source, with engines that answer, hang or have gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    # The collection's own code is found only when Ansible's part of the tests has started.
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
    from tests.unit.helpers.engine_socket import Hanging
    from tests.unit.helpers.groups import Group


@pytest.fixture
def running(make_session: Callable[..., Session], group: Group, init: int, tmp_path: Path) -> Session:
    """A session whose freeze has not got anywhere."""
    from ansible_collections.livemigrate.criu.plugins.module_utils._session import timeline

    session = make_session("source", engine="api", data_root=str(tmp_path / "docker"))
    Path(session.memory_path("outbox")).mkdir()
    session.enter("prepared")
    session.enter("arming", policy={"Name": "no"}, pid=init, cgroup=group.path, bytes=0)
    session.enter("armed")
    session.enter("freezing", at=timeline.now())
    return session


@pytest.fixture
def frozen(running: Session, group: Group) -> Session:
    """A session whose container stands still, not dumped yet."""
    group.freeze()
    group.wait_frozen(True, 5)
    return running


@pytest.fixture(params=[False, True], ids=["answers nothing", "answers nothing about a container"])
def hanging(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """The engine of this host hangs: by SIGSTOP, or because of a lock that somebody in it holds."""
    from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import original
    from tests.unit.helpers.engine_socket import hanging_engine

    monkeypatch.setattr(original, "_THAW_SECONDS", 0.5)
    with hanging_engine(tmp_path, monkeypatch, tells_its_version=request.param) as server:
        yield server


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and its restart policy are what they were, and no checkpoint is there."""
    from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import (
        old_copy,
        original,
        restart_policy,
    )

    monkeypatch.setattr(restart_policy, "put", lambda *_arguments: None)
    monkeypatch.setattr(old_copy, "give_name_back", lambda *_arguments: None)
    monkeypatch.setattr(original.Original, "forget", lambda _self: None)
