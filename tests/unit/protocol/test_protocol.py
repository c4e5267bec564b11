# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protocol keeps its promises in every state that can be reached, and the model finds each fault that is planted in it."""

from __future__ import annotations

import pytest

from tests.unit.protocol.explorer import Explorer, Model
from tests.unit.protocol.faults import PLANTED, Planted
from tests.unit.protocol.invariants import GOALS, INVARIANTS, goals
from tests.unit.protocol.settings import SETTINGS


@pytest.mark.parametrize("name", SETTINGS)
def test_the_protocol_keeps_its_promises(name: str) -> None:
    setting = SETTINGS[name]
    explorer = Explorer(Model.of(setting), INVARIANTS, goals(setting))
    print(f"{name}: {len(explorer)} states, {explorer.transitions} transitions")
    assert explorer.finding is None, f"\n{explorer.finding}"
    assert len(explorer) > 10_000, "something keeps the model from going on"


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.what)
def test_a_planted_fault_is_found(planted: Planted) -> None:
    explorer = Explorer(planted.plant(Model.of(planted.setting)), INVARIANTS, goals(planted.setting))
    assert explorer.finding is not None, "not found"
    print(explorer.finding)
    assert explorer.finding.what == planted.breaks


def test_every_promise_is_broken_by_some_fault() -> None:
    promises = {invariant.promise for invariant in INVARIANTS} | {goal.promise for goal in GOALS}
    assert {planted.breaks for planted in PLANTED} == promises
