# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All states that can be reached, breadth first, and the shortest way to one that must not be.

What a host does depends on itself, the wire, and whether a packet would reach the other. So the moves of a host are worked out
once for each of these views and not once for each state of both: hundreds of thousands of states are made of some thousand views.
"""

from __future__ import annotations

import gc
from array import array
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ansible_collections.livemigrate.criu.plugins.module_utils._session import TRANSITIONS
from tests.unit.protocol.hosts import hosts
from tests.unit.protocol.invariants import Goal, Invariant
from tests.unit.protocol.states import UP, Setting, State
from tests.unit.protocol.transitions import STEP, Here, HostModel, Outcome, Step, Table, UndeclaredTransitionError


@dataclass(frozen=True)
class Model:
    """Two hosts in a setting, and the table by which the code enters its phases."""

    setting: Setting
    source: HostModel
    destination: HostModel
    table: Table = field(default_factory=lambda: TRANSITIONS)

    @classmethod
    def of(cls, setting: Setting) -> Model:
        return cls(setting, *hosts(setting))


class Written(NamedTuple):
    """One durable write of the model: which function of the code has written which word, in which phase."""

    role: str
    phase: str
    word: str
    models: str


class Move(NamedTuple):
    """One transition of one host; the values are numbers, see ``_Numbers``."""

    label: str
    kind: str
    side: int
    wire: int


class Finding(NamedTuple):
    """What must not be, and the shortest way to it."""

    what: str
    state: State
    way: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:2}. {label}" for number, label in enumerate(self.way, 1))
        return f"{self.what}\n{steps}\n  {self.state.source}\n  {self.state.destination}\n  {self.state.wire}"


class _Numbers:
    """A number for each value, because tuples of numbers are compared and hashed quickly."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._of: dict[Hashable, int] = {}

    def of(self, value: Hashable) -> int:
        number = self._of.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Nothing that is made here refers to itself; looking for such things among millions of tuples takes most of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Explorer:
    """All states of a model; it stops at the first one that an invariant forbids."""

    def __init__(self, model: Model, invariants: Sequence[Invariant] = (), goals: Sequence[Goal] = ()) -> None:
        self.model = model
        self.written: set[Written] = set()
        self.transitions = 0
        self._hosts = {"source": model.source, "destination": model.destination}
        self._sides = {"source": _Numbers(), "destination": _Numbers()}
        self._wires = _Numbers()
        self._views: dict[tuple[str, int, int, str], list[Move]] = {}
        first = State()
        numbered = (
            self._sides["source"].of(first.source),
            self._sides["destination"].of(first.destination),
            self._wires.of(first.wire),
        )
        self._states: list[tuple[int, int, int]] = [numbered]
        # From which state each was reached first.
        self._from = array("l", [-1])
        # How each state can be reached by what counts for the goals.
        self._back: list[list[int]] = [[]]
        self._kinds = frozenset().union(*(goal.kinds for goal in goals))
        with _no_garbage():
            self.finding = self._explore(invariants)
            for goal in goals:
                self.finding = self.finding or self._seek(goal)

    def __len__(self) -> int:
        return len(self._states)

    def state(self, number: int) -> State:
        source, destination, wire = self._states[number]
        return State(
            self._sides["source"].values[source],
            self._sides["destination"].values[destination],
            self._wires.values[wire],
        )

    # -- forwards

    def _explore(self, invariants: Sequence[Invariant]) -> Finding | None:
        numbers = {self._states[0]: 0}
        judged: set[tuple[int, int]] = set()
        for number, (source, destination, wire) in enumerate(self._states):
            if (source, destination) not in judged:
                # What an invariant forbids is a matter of the hosts alone.
                judged.add((source, destination))
                state = self.state(number)
                for invariant in invariants:
                    if not invariant.holds(state, self.model.setting):
                        return self._tell(invariant.promise, number)
            try:
                following = self._following(source, destination, wire)
            except UndeclaredTransitionError as exc:
                return self._tell(f"the code's own table refuses {exc}", number)
            for state_after, _label, kind in following:
                after = numbers.setdefault(state_after, len(self._states))
                if after == len(self._states):
                    # The loop goes on over what is appended here.
                    self._states.append(state_after)
                    self._from.append(number)
                    self._back.append([])
                if kind in self._kinds:
                    self._back[after].append(number)
            self.transitions += len(following)
        return None

    def _following(self, source: int, destination: int, wire: int) -> list[tuple[tuple[int, int, int], str, str]]:
        powers = {
            "source": self._sides["destination"].values[destination].power,
            "destination": self._sides["source"].values[source].power,
        }
        found = [
            ((move.side, destination, move.wire), move.label, move.kind)
            for move in self._moves("source", source, wire, powers["source"])
        ]
        found += [
            ((source, move.side, move.wire), move.label, move.kind)
            for move in self._moves("destination", destination, wire, powers["destination"])
        ]
        return found

    def _moves(self, role: str, side: int, wire: int, peer_power: str) -> list[Move]:
        view = (role, side, wire, peer_power)
        moves = self._views.get(view)
        if moves is None:
            here: Here[Any] = Here(
                self._sides[role].values[side],
                self._wires.values[wire],
                peer_power,
                self.model.setting,
                self.model.table,
            )
            moves = self._views[view] = [
                Move(f"{role}: {label}", kind, self._sides[role].of(outcome.side), self._wires.of(outcome.wire))
                for label, kind, outcome in self._all(self._hosts[role], here)
            ]
        return moves

    def _all(self, host: HostModel, here: Here[Any]) -> Iterator[tuple[str, str, Outcome]]:
        """All that a host may do, or that may happen to it."""
        for event in host.events:
            for outcome in event.act(here):
                yield _label(event, outcome), event.kind, outcome
        if here.me.power != UP:
            return
        if here.me.at is not None:
            for label, outcome in self._steps(host, here):
                yield label, STEP, outcome
            return
        for begin in host.begins:
            if begin.when(here):
                begun = replace(here, me=here.go(begin.program).side)
                for label, outcome in self._steps(host, begun):
                    yield label, begin.kind, outcome

    def _steps(self, host: HostModel, here: Here[Any]) -> Iterator[tuple[str, Outcome]]:
        """The next step of a program, and what is one with it."""
        program, number = here.me.at
        step = host.programs[program][number]
        for outcome in step.act(here):
            self._note(step, here, outcome)
            label = f"{program}: {_label(step, outcome)}"
            after = outcome.side.at
            if after is not None and host.programs[after.program][after.step].at_once:
                beyond = replace(here, me=outcome.side, wire=outcome.wire)
                for further, last in self._steps(host, beyond):
                    yield f"{label}; {further}", last
            else:
                yield label, outcome

    def _note(self, step: Step, here: Here[Any], outcome: Outcome) -> None:
        after = outcome.side
        for before, now in ((here.me.phase, after.phase), (here.me.decision, after.decision)):
            if now != before:
                self.written.add(Written(here.me.role, here.me.phase, now, step.models))

    # -- backwards

    def _seek(self, goal: Goal) -> Finding | None:
        """A state from which the goal cannot be reached by what happens without faults and people."""
        met: dict[tuple[int, int], bool] = {}
        reached = []
        for number, (source, destination, _wire) in enumerate(self._states):
            if (source, destination) not in met:
                met[source, destination] = goal.is_met(self.state(number), self.model.setting)
            reached.append(met[source, destination])
        queue = deque(number for number, is_met in enumerate(reached) if is_met)
        while queue:
            for before in self._back[queue.popleft()]:
                if not reached[before]:
                    reached[before] = True
                    queue.append(before)
        return None if all(reached) else self._tell(goal.promise, reached.index(False))

    def _tell(self, what: str, number: int) -> Finding:
        way, at = [], number
        while at > 0:
            before = self._from[at]
            way.append(
                next(
                    label for state, label, _kind in self._following(*self._states[before]) if state == self._states[at]
                )
            )
            at = before
        return Finding(what, self.state(number), tuple(reversed(way)))


def _label(step: Step, outcome: Outcome) -> str:
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{step.name}{note}" + (f"  [{step.models}]" if step.models else "")
