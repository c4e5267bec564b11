# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model is one of this code: no phase, no decision and no place that writes one is in the code and not in the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    DECISIONS,
    DESTINATION,
    SOURCE,
    TRANSITIONS,
)
from tests.unit.protocol import code
from tests.unit.protocol.explorer import Explorer, Model, Written
from tests.unit.protocol.states import Setting
from tests.unit.protocol.transitions import Table

ENGINES = ("runtime", "api")


@cache
def _written() -> frozenset[Written]:
    """All that the model writes, with both engines."""
    found: set[Written] = set()
    for engine in ENGINES:
        found |= Explorer(Model.of(Setting(engine=engine, source_power_cuts=False))).written
    return frozenset(found)


def _missing(table: Table, decisions: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """What the code's tables name and the model never does: ``phase -> phase``, or a decision, by role."""
    done = {(one.role, f"{one.phase} -> {one.value}") for one in _written()} | {
        (one.role, one.value) for one in _written()
    }
    # Once for each attempt: the journal tells two of them apart, a state of the model does not.
    done.add((SOURCE, "freezing -> freezing"))
    wanted = {(role, f"{phase} -> {after}") for role in table for phase in table[role] for after in table[role][phase]}
    wanted |= {(role, decision) for role in decisions for decision in decisions[role]}
    return wanted - done


def test_every_transition_and_decision_of_the_code_is_modelled() -> None:
    assert _missing(TRANSITIONS, DECISIONS) == set()


def test_a_new_phase_or_decision_is_missed() -> None:
    table = copy.deepcopy(TRANSITIONS)
    table[DESTINATION]["held"] += ("verified",)
    table[DESTINATION]["verified"] = ("run", "refused")
    new = {"held -> verified", "verified -> run", "verified -> refused", "LATER"}
    decisions = {SOURCE: DECISIONS[SOURCE], DESTINATION: (*DECISIONS[DESTINATION], "LATER")}
    assert _missing(table, decisions) == {(DESTINATION, decision) for decision in new}


@pytest.mark.parametrize(
    ("role", "phase", "after"), [(SOURCE, "held", "aborted"), (DESTINATION, "starting", "refused")]
)
def test_a_transition_that_the_table_does_not_declare_is_found(role: str, phase: str, after: str) -> None:
    table = copy.deepcopy(TRANSITIONS)
    table[role][phase] = tuple(other for other in table[role][phase] if other != after)
    finding = Explorer(replace(Model.of(Setting()), table=table)).finding
    assert finding is not None
    assert finding.what == f"the code's own table refuses {role}: {after} after {phase}"


def test_every_place_that_writes_is_modelled_and_writes_what_the_model_says() -> None:
    modelled = {code.Write(name, one.value) for one in _written() for name in one.models.split(", ")}
    assert modelled == code.writes()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_functions_that_the_model_names_exist(engine: str) -> None:
    model = Model.of(Setting(engine=engine))
    programs = [*model.source.programs.values(), *model.destination.programs.values()]
    named = {name for program in programs for step in program for name in step.models.split(", ")}
    assert named <= code.functions()
    assert len(named) > 20
