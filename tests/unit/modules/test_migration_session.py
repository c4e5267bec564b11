# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module migration_session: the code that its action plugin gives it, and names that it had before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.livemigrate.criu.plugins.action import migration_session as action
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code, step_call, stories
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


def _run(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the module returns for these arguments, checked as Ansible checks them."""
    results: list[Any] = []

    def run_module(body: Any, argument_spec: dict[str, Any], **_more: Any) -> None:
        checked = ArgumentSpecValidator(argument_spec).validate(arguments)
        assert not checked.error_messages
        results.append(body(checked.validated_parameters, False))

    monkeypatch.setattr(module, "run_module", run_module)
    module.main()
    return results[0]


_DECISION = {"session": "20261123T034500Z-3f9a1c", "decision": "REFUSED", "container_id": None}


@pytest.mark.parametrize(
    ("name", "old", "value"),
    [
        ("ignore_lease", "abandoned", True),
        ("other_half_settled", "peer_settled", True),
        ("destination_decision", "destination_word", _DECISION),
    ],
)
def test_an_option_is_known_by_its_old_name_too(
    name: str, old: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def recover(state: str, params: dict[str, Any], _code: str | None) -> dict[str, Any]:
        assert state == "settled"
        sent.append(params)
        return {}

    monkeypatch.setattr(step_call, "recover", recover)
    monkeypatch.setattr(stories, "unsettled", lambda **_only: [object()])
    for known in (name, old):
        _run({"state": "settled", known: value}, monkeypatch)
    assert sent[0] == sent[1]
    assert sent[0][name] == value


def test_the_decision_is_returned_by_its_old_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"changed": True, "destination_decision": _DECISION}
    monkeypatch.setattr(step_call, "recover", lambda _state, _params, _code: dict(answer))
    assert _run({"state": "decided", "session": "x"}, monkeypatch) == {**answer, "word": _DECISION}


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
