# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two engines by name: each has what the sessions call, and a session meets the one it was opened with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import api as engine_api
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import by_name as engines
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

MakeSession = Callable[..., Session]

MODULES = {engines.API: engine_api, engines.RUNTIME: engine_runtime}
CALLS = [
    name
    for name, value in vars(engines.EngineFunctions).items()
    if inspect.isfunction(value) and not name.startswith("_")
]


def _parameters(function: Any) -> list[tuple[str, Any, Any, Any]]:
    return [
        (parameter.name, parameter.kind, parameter.default, parameter.annotation)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]


def test_there_is_something_to_compare() -> None:
    assert {"dump", "seal", "receive", "arm", "let_go", "discard"} <= set(CALLS)


@pytest.mark.parametrize("engine", MODULES)
@pytest.mark.parametrize("call", CALLS)
def test_both_have_every_call_with_the_same_parameters(call: str, engine: str) -> None:
    """mypy compares them, too; this is what the interpreter on a host finds."""
    wanted = getattr(engines.EngineFunctions, call)
    actual = getattr(MODULES[engine], call)
    assert inspect.isfunction(actual)
    assert actual.__module__ == MODULES[engine].__name__
    assert _parameters(actual) == _parameters(wanted)
    if inspect.signature(wanted).return_annotation != "t.Any":
        assert inspect.signature(actual).return_annotation == inspect.signature(wanted).return_annotation


@pytest.mark.parametrize("role", ["source", DESTINATION])
def test_a_session_meets_its_own_engine(role: str, make_session: MakeSession) -> None:
    for number, (engine, module) in enumerate(MODULES.items()):
        session = make_session(role, container=f"{number:064x}", engine=engine)
        assert engines.functions_of(session) is module
        engines.require(session, engine)


def test_a_session_of_before_there_were_two_is_of_the_first(make_session: MakeSession) -> None:
    session = make_session()
    assert "engine" not in session.facts
    assert engines.functions_of(session) is engine_api
    engines.require(session, engines.API)


@pytest.mark.parametrize(("has", "wants"), [("api", "runtime"), ("runtime", "api")])
def test_a_step_of_the_other_engine_is_refused(has: str, wants: str, make_session: MakeSession) -> None:
    session = make_session(engine=has)
    with pytest.raises(MigrationError) as caught:
        engines.require(session, wants)
    assert caught.value.code == "wrong_engine"
    assert session.id in caught.value.message
    assert f"opened with the engine {has}" in caught.value.message
    assert f"belongs to {wants}" in caught.value.message
