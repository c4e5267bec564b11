# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source whose engine does not answer: the service goes on as soon as it may, and not before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import source
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import ABORT, GO_SENT, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers import moved
from tests.unit.helpers.groups import Group


@pytest.fixture
def frozen(make_session: Callable[..., Session], group: Group, init: int) -> Session:
    """A session whose container stands still, not dumped yet."""
    session = make_session(SOURCE, engine="api")
    session.enter("prepared")
    session.enter("arming", policy={"Name": "no"}, pid=init, cgroup=group.path, bytes=0)
    session.enter("armed")
    session.enter("freezing", at=0.0)
    group.freeze()
    TaskGroup(group.path).wait_frozen(True, 5)
    return session


def test_what_is_not_decided_goes_on(frozen: Session, group: Group) -> None:
    source.abort_alone(moved.original(frozen), 1)
    assert not group.frozen
    assert frozen.decision == ABORT
    assert frozen.phase == "freezing", "the rest waits for the engine"
    source.abort_alone(moved.original(frozen), 1)


def test_what_is_handed_over_waits_for_the_word(frozen: Session, group: Group) -> None:
    assert frozen.decide(GO_SENT) == GO_SENT
    with pytest.raises(MigrationError):
        source.abort_alone(moved.original(frozen), 0)
    assert group.frozen
