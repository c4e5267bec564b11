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

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import TRANSITIONS
from tests.unit.protocol.hosts import hosts
from tests.unit.protocol.invariants import Goal, Invariant
from tests.unit.protocol.states import DOWN, GONE, UP, Setting, State
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
    """One durable write of the model: which function of the code has written which value, in which phase."""

    role: str
    phase: str
    value: str
    models: str


# What a host and the wire become, by number (see ``_Numbers``), whether that counts for the goals: and what it was.
Moves = dict[tuple[int, int, bool], str]

# A state is one number: those of the source, the destination and the wire, each in so many bits. Such numbers are hashed faster
# than tuples.
_BITS = 20
_MASK = (1 << _BITS) - 1
_POWERS = {UP: 0, DOWN: 1, GONE: 2}
# What to put the other host's number to: the states that follow, and whether that counts.
_Ahead = list[tuple[int, bool]]


def _key(source: int, destination: int, wire: int) -> int:
    return source << 2 * _BITS | destination << _BITS | wire


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
        self._views: dict[tuple[str, int, int, str], Moves] = {}
        first = State()
        self._states = [
            _key(
                self._sides["source"].of(first.source),
                self._sides["destination"].of(first.destination),
                self._wires.of(first.wire),
            )
        ]
        # From which state each was reached first.
        self._from = array("l", [-1])
        # How each state can be reached by what counts for the goals.
        self._back: list[list[int]] = [[]]
        self._kinds = frozenset().union(*(goal.kinds for goal in goals))
        with _no_garbage():
            self.finding = self._explore(invariants)
            self.finding = self.finding or self._first_unreachable(goals)

    def __len__(self) -> int:
        return len(self._states)

    def state(self, number: int) -> State:
        source, destination, wire = self._parts(number)
        return State(
            self._sides["source"].values[source],
            self._sides["destination"].values[destination],
            self._wires.values[wire],
        )

    def _parts(self, number: int) -> tuple[int, int, int]:
        """The numbers of the source, the destination and the wire in a state."""
        key = self._states[number]
        return key >> 2 * _BITS, key >> _BITS & _MASK, key & _MASK

    # -- forwards

    def _explore(self, invariants: Sequence[Invariant]) -> Finding | None:
        states, numbers = self._states, {self._states[0]: 0}
        judged: set[int] = set()
        ahead: tuple[dict[int, _Ahead], dict[int, _Ahead]] = ({}, {})
        # The loop goes on over what is appended to it.
        for number, key in enumerate(states):
            if key >> _BITS not in judged:
                # What an invariant forbids is a matter of the hosts alone.
                judged.add(key >> _BITS)
                state = self.state(number)
                for invariant in invariants:
                    if not invariant.holds(state, self.model.setting):
                        return self._tell(invariant.promise, number)
            try:
                of_source, of_destination = self._ahead(number, ahead)
            except UndeclaredTransitionError as exc:
                return self._tell(f"the code's own table refuses {exc}", number)
            here = key & _MASK << _BITS
            for following, counts in of_source:
                self._reach(following | here, counts, number, numbers)
            here = key >> 2 * _BITS << 2 * _BITS
            for following, counts in of_destination:
                self._reach(following | here, counts, number, numbers)
            self.transitions += len(of_source) + len(of_destination)
        return None

    def _reach(self, key: int, counts: bool, before: int, numbers: dict[int, int]) -> None:
        after = numbers.setdefault(key, len(self._states))
        if after == len(self._states):
            self._states.append(key)
            self._from.append(before)
            self._back.append([])
        if counts:
            self._back[after].append(before)

    def _ahead(self, number: int, known: tuple[dict[int, _Ahead], dict[int, _Ahead]]) -> tuple[_Ahead, _Ahead]:
        """What the source can become, and what the destination can."""
        source, destination, wire = self._parts(number)
        powers = self._powers(source, destination)
        view = source << _BITS | wire, destination << _BITS | wire
        views = (view[0] << 2 | _POWERS[powers[1]], view[1] << 2 | _POWERS[powers[0]])
        if views[0] not in known[0]:
            known[0][views[0]] = [
                (_key(side, 0, after), counts) for side, after, counts in self._moves("source", source, wire, powers[1])
            ]
        if views[1] not in known[1]:
            known[1][views[1]] = [
                (_key(0, side, after), counts)
                for side, after, counts in self._moves("destination", destination, wire, powers[0])
            ]
        return known[0][views[0]], known[1][views[1]]

    def _powers(self, source: int, destination: int) -> tuple[str, str]:
        return self._sides["source"].values[source].power, self._sides["destination"].values[destination].power

    def _moves(self, role: str, side: int, wire: int, peer_power: str) -> Moves:
        """What a host can become, and the wire with it; of moves that come to the same the label is that of the first."""
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
            moves = self._views[view] = {}
            for label, kind, outcome in self._all(self._hosts[role], here):
                move = (self._sides[role].of(outcome.side), self._wires.of(outcome.wire), kind in self._kinds)
                if move[:2] != (side, wire):
                    moves.setdefault(move, f"{role}: {label}")
        return moves

    def _label_of(self, before: int, after: int) -> str:
        """What leads from one state to the next."""
        source, destination, wire = self._parts(before)
        powers = self._powers(source, destination)
        ways = {
            _key(side, destination, wire): label
            for (side, wire, _counts), label in self._moves("source", source, wire, powers[1]).items()
        } | {
            _key(source, side, wire): label
            for (side, wire, _counts), label in self._moves("destination", destination, wire, powers[0]).items()
        }
        return ways[self._states[after]]

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

    def _first_unreachable(self, goals: Sequence[Goal]) -> Finding | None:
        """The weakest goal that is out of reach. Each contains the one before it, so one look at the last mostly does."""
        if not goals or self._seek(goals[-1]) is None:
            return None
        return next(filter(None, map(self._seek, goals)))

    def _seek(self, goal: Goal) -> Finding | None:
        """A state from which the goal cannot be reached by what happens without faults and people."""
        met: dict[int, bool] = {}
        reached = []
        for number, key in enumerate(self._states):
            if key >> _BITS not in met:
                met[key >> _BITS] = goal.is_met(self.state(number), self.model.setting)
            reached.append(met[key >> _BITS])
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
            way.append(self._label_of(before, at))
            at = before
        return Finding(what, self.state(number), tuple(reversed(way)))


def _label(step: Step, outcome: Outcome) -> str:
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{step.name}{note}" + (f"  [{step.models}]" if step.models else "")
