# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module migration_session gets from its action plugin: the code of this very collection, where an agent may be made."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.action import migration_session as action
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code, step_call
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.modules import migration_session as module
from tests.unit.helpers.support import MODULE_UTILS, OTHER_CONTAINER, bring_to


def _given(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the module is called with when a task has these arguments."""
    task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False, environment=None)
    connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/nowhere"))
    plugin = action.ActionModule(
        task=task,
        connection=connection,
        play_context=SimpleNamespace(check_mode=False),
        loader=None,
        templar=None,
        shared_loader_obj=None,
    )
    called: list[dict[str, Any]] = []

    def execute(**keywords: Any) -> dict[str, Any]:
        called.append(keywords)
        return {"changed": True, "session": "the module's"}

    monkeypatch.setattr(plugin, "_execute_module", execute)
    result = plugin.run(task_vars={})
    assert (result["changed"], result["session"]) == (True, "the module's")
    (call,) = called
    assert call["module_name"] == "livemigrate.criu.migration_session"
    assert call["wrap_async"] is False
    return dict(call["module_args"])


@pytest.mark.parametrize("state", ["opened", "settled", "decided", "cleaned"])
def test_where_an_agent_may_be_made_its_code_is_sent(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _given({"state": state, "session": "x", "agent_code": "somebody else's"}, monkeypatch)
    assert agent_code.unpack(given.pop("agent_code")) == agent_code.of_directory(str(MODULE_UTILS))
    assert given == {"state": state, "session": "x"}


@pytest.mark.parametrize("arguments", [{}, {"state": "inspected"}, {"state": "handed_over", "session": "x"}])
def test_elsewhere_it_is_not(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _given({**arguments, "agent_code": "somebody else's"}, monkeypatch) == arguments


def test_a_watchdog_that_settles_it_at_this_moment_is_no_failure(
    make_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bring_to(make_session(), "sent")

    def settled(*_arguments: object) -> dict[str, Any]:
        session.decide("GO_SENT")
        session.enter("committed", destination_container_id=OTHER_CONTAINER, gap=1.5)
        raise MigrationError("session_over", "It has been brought to its end meanwhile.")

    monkeypatch.setattr(step_call, "call", settled)
    params = {"state": "committed", "peer": None, "wait": 5}
    assert module._step(session, params) == {"changed": True, "outcome": "RUN", "gap": 1.5}
    monkeypatch.setattr(step_call, "call", lambda *_arguments: pytest.fail("it was asked"))
    session.close(keep=True)
    assert module._step(session, params)["outcome"] == "RUN"
