# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last look at a container on its own host: by the rules of the preflight, all or those whose answer may have changed."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import finding, judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import ERROR
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import examine
from tests.unit.docker.spec.samples import container


class Looked:
    """What was read of the container, and what of it a rule is told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def of_inspect(self, _engine: object, inspect: dict[str, Any], **how: Any) -> dict[str, Any]:
        self.asked.append({"id": inspect["Id"], **how})
        return {**_sound(inspect), **self.facts}


def _sound(inspect: dict[str, Any]) -> dict[str, Any]:
    """A container with which nothing is wrong, as far as these rules are told."""
    return {"found": True, "name": "one", "inspect": inspect, "processes": None}


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    found = Looked()
    monkeypatch.setattr(facts_of_container, "of_inspect", found.of_inspect)
    monkeypatch.setattr(TaskGroup, "of_container", lambda _inspect: None)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the rules that are asked; each finds something."""
    ids: list[str] = []

    def findings(_case: object, ignored: Any, rules: Any) -> list[Any]:
        ids.extend(rule.id for rule in rules if rule.id not in ignored)
        return []

    monkeypatch.setattr(finding, "findings", findings)
    return ids


ENGINE: Engine = object()  # type: ignore[assignment]


def test_all_errors_are_asked_before_a_session_and_the_volatile_ones_before_the_freeze(
    looked: Looked, asked: list[str]
) -> None:
    del looked
    examine.examine(ENGINE, container())
    every = {rule.id for rule in judge.rules() if rule.severity == ERROR}
    assert set(asked) == every
    asked.clear()
    examine.examine(ENGINE, container(), volatile=True)
    assert set(asked) == {rule.id for rule in judge.rules() if rule.severity == ERROR and rule.volatile}
    assert 0 < len(asked) < len(every)


def test_rules_that_the_user_does_not_heed_are_not_asked(looked: Looked, asked: list[str]) -> None:
    del looked
    ignored = [rule.id for rule in judge.rules()][:3]
    examine.examine(ENGINE, container(), ignore_rules=ignored)
    assert not set(asked) & set(ignored)


@pytest.mark.parametrize(("ignored", "patient"), [((), True), (("exec_session_running",), False)])
def test_nobody_waits_for_what_nobody_asks_about(
    ignored: tuple[str, ...], patient: bool, looked: Looked, asked: list[str]
) -> None:
    """Just before the freeze, which has patience of its own."""
    del asked
    examine.examine(ENGINE, container(), ignore_rules=ignored)
    [how] = looked.asked
    # The engine is not asked for the container once more: what was told of it is what is judged.
    assert how == {"id": container()["Id"], "sizes": False, "lasting": False, "patient": patient}


def test_what_stands_in_the_way_is_reported_all_at_once(looked: Looked) -> None:
    inspect = container(host={"AutoRemove": True, "PidMode": "host"})
    looked.facts = {"inspect": inspect}
    found = examine.examine(ENGINE, inspect)
    assert len(found) >= 2
    with pytest.raises(MigrationError) as caught:
        examine.require_movable(ENGINE, inspect, called="web")
    assert caught.value.code == "cannot_move"
    assert caught.value.message.startswith("Container web cannot be moved: ")
    for one in found:
        assert f"[{one.rule}]" in caught.value.message
    examine.require_movable(ENGINE, inspect, called="web", ignore_rules=[one.rule for one in found])


def test_one_that_does_not_run_has_nothing_to_move() -> None:
    stopped = container(State={"Status": "exited", "Running": False, "Pid": 0})
    with pytest.raises(MigrationError) as caught:
        examine.examine(ENGINE, stopped)
    assert caught.value.code == "container_not_running"
