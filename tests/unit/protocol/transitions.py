# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The terms in which transitions are written.

A *program* is what somebody does who holds the session's lock on a host: the hand-over, the watchdog's settling, the answer to a
command of the channel. It is a row of *steps*; the host may lose its power and the process may be killed between any two of them.
A step is a function that looks at its own host and the wire, and returns what may come of it. It names the function of the code
that it is a model of.

An *event* is the same without a program: the machine, the engine, CRIU, a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Generic, NamedTuple, TypeVar

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import PRESUMED, RUN
from tests.unit.protocol.states import At, Destination, Setting, Source, Wire

Side = TypeVar("Side", Source, Destination)

# Who does something. What the code and its hosts do by themselves is the way forward that has to exist; an operator's recover.yml
# counts only where the documentation asks for it.
STEP, FAULT, PERSON, OPERATOR = "step", "fault", "person", "operator"


# As sessions.TRANSITIONS: role, phase, and the phases that may follow it.
Table = Mapping[str, Mapping[str, Sequence[str]]]


class UndeclaredTransitionError(Exception):
    """The code would be refused by its own table."""


class Outcome(NamedTuple):
    """What may come of a step."""

    side: Any
    wire: Wire
    note: str = ""


@dataclass(frozen=True)
class Here(Generic[Side]):
    """What a step sees: its own host, the wire, and what a packet to the other host would meet."""

    me: Side
    wire: Wire
    peer_power: str
    setting: Setting
    table: Table

    def received(self, message: str) -> bool:
        return message in self.wire.sent

    def sending(self, *messages: str) -> Here[Side]:
        return Here(self.me, self.wire.sending(*messages), self.peer_power, self.setting, self.table)

    # -- how a step ends

    def next(self, note: str = "", **changes: Any) -> Outcome:
        """Go on with the program."""
        here = self._at()
        return self._outcome(At(here.program, here.step + 1), note, changes)

    def back(self, steps: int, note: str = "", **changes: Any) -> Outcome:
        """Do the last steps once more."""
        here = self._at()
        return self._outcome(At(here.program, here.step - steps), note, changes)

    def go(self, program: str, note: str = "", **changes: Any) -> Outcome:
        """Go on with another program, under the same lock."""
        return self._outcome(At(program, 0), note, changes)

    def stop(self, note: str = "", **changes: Any) -> Outcome:
        """Give the lock back; what is unfinished is the watchdog's."""
        return self._outcome(None, note, changes)

    def happens(self, note: str = "", **changes: Any) -> Outcome:
        """For an event: whoever holds the lock goes on holding it."""
        return self._outcome(self.me.at, note, changes)

    def _at(self) -> At:
        if self.me.at is None:
            raise AssertionError("only a program has a next step")
        return self.me.at

    def _outcome(self, at: At | None, note: str, changes: Mapping[str, Any]) -> Outcome:
        return Outcome(self.me._replace(**{"at": at, **changes}), self.wire, note)

    # -- what the code's own table says

    def entering(self, phase: str) -> dict[str, Any]:
        """The change by which a phase is entered, as Session.enter() does it.

        :raises UndeclaredTransitionError: where that would refuse it.
        """
        follows = self.table[self.me.role].get(self.me.phase, ())
        if phase != self.me.phase and phase not in follows:
            raise UndeclaredTransitionError(f"{self.me.role}: {phase} after {self.me.phase}")
        return {"phase": phase}


Act = Callable[[Here[Any]], Sequence[Outcome]]


@dataclass(frozen=True)
class Step:
    """One step of a program, or one event."""

    name: str
    #: the function of the code, "_base.module.function"; empty for what is no code of ours
    models: str
    act: Act
    kind: str = STEP
    #: whether it is one with the step before it, see ``look``
    at_once: bool = False


def step(models: str) -> Callable[[Act], Step]:
    """Make a step of a function."""
    return lambda act: Step(_name(act), models, act)


def look(models: str) -> Callable[[Act], Step]:
    """Make a step of a function that changes nothing on its host, and looks at what only the holder of the lock changes.

    It is one with the step before it, and so is whatever is sent: who is killed between them leaves nothing else behind than who
    is killed after them, because what was sent may never arrive. That spares the explorer nine states of ten.
    """
    return lambda act: Step(_name(act), models, act, at_once=True)


def event(kind: str, models: str = "") -> Callable[[Act], Step]:
    """Make an event of a function."""
    return lambda act: Step(_name(act), models, act, kind)


def _name(act: Act) -> str:
    return act.__name__.replace("_", " ")


def enter(phase: str, models: str, *, sends: Sequence[str] = (), **changes: Any) -> Step:
    """The step that enters a phase: one line of the journal, on the disk when it returns."""

    def act(here: Here[Any]) -> list[Outcome]:
        if not here.me.writable:
            return [here.stop(note="cannot be noted")]
        return [here.sending(*sends).next(**here.entering(phase), **changes)]

    return Step(f"enter {phase}", models, act)


def decide(decision: str, models: str, *, otherwise: str = "") -> Step:
    """The step that decides, unless it has been decided: every process of the host sees it at once.

    Where the disk does not take it, the presumed decision is noted in memory, which a power cut takes back.

    :param otherwise: the program to go on with where another decision is in force, or this one cannot be made.
    """

    def act(here: Here[Any]) -> list[Outcome]:
        if here.me.decision is None:
            if here.me.writable or decision == PRESUMED[here.me.role]:
                return [here.next(decision=decision, decision_on_disk=False)]
            return [here.go(otherwise, note="it cannot be written")]
        if otherwise and here.me.decision != decision:
            return [here.go(otherwise, note=f"{here.me.decision} stands")]
        return [here.next(note=f"{here.me.decision} stands")]

    return Step(f"decide {decision}", models, act)


@step("_session.decision.Decision._flush")
def flush_decision(here: Here[Any]) -> list[Outcome]:
    """Whoever is about to act on a decision has it on the disk first, also one that another process has written.

    A presumed one counts all the same, and who finds GO_SENT asks the destination. Not RUN: nobody knows whether a power cut
    would take it back.
    """
    if here.me.writable:
        return [here.next(decision_on_disk=True)]
    return [here.stop(note="it may not be on the disk")] if here.me.decision == RUN else [here.next()]


@step("_session.decision.Decision._flush")
def flush_decision_to_send_it(here: Here[Any]) -> list[Outcome]:
    """A GO_SENT that may not be on the disk is not sent."""
    if here.me.writable:
        return [here.next(decision_on_disk=True)]
    return [here.go("settle", note="it may not be on the disk")]


def send(message: str, models: str) -> Step:
    """The step that sends something to the other host."""

    def act(here: Here[Any]) -> list[Outcome]:
        return [here.sending(message).next()]

    return Step(f"send {message!r}", models, act, at_once=True)


def or_fail(to: str, program: Sequence[Step]) -> tuple[Step, ...]:
    """The same program, each step of which may fail for whatever reason; another program sees to it then."""

    def failing(inner: Step) -> Step:
        @wraps(inner.act)
        def act(here: Here[Any]) -> list[Outcome]:
            return [*inner.act(here), here.go(to, note="fails")]

        return replace(inner, act=act)

    return tuple(failing(inner) for inner in program)


class Begin(NamedTuple):
    """When somebody may take the lock of a session that nobody holds, and begin a program."""

    program: str
    when: Callable[[Here[Any]], bool]
    kind: str = STEP


class HostModel(NamedTuple):
    """All that one host can do."""

    programs: Mapping[str, tuple[Step, ...]]
    begins: tuple[Begin, ...]
    events: tuple[Step, ...]

    def having(self, program: str, *steps: Step) -> HostModel:
        """The same with other steps in a program."""
        return self._replace(programs={**self.programs, program: steps})

    def with_instead(self, old: Step, *new: Step) -> HostModel:
        """The same with other steps, or none, wherever there is this one."""

        def changed(steps: tuple[Step, ...]) -> tuple[Step, ...]:
            return tuple(step for was in steps for step in (new if was.name == old.name else (was,)))

        return self._replace(
            programs={name: changed(steps) for name, steps in self.programs.items()}, events=changed(self.events)
        )

    def with_swapped(self, program: str, first: str, second: str) -> HostModel:
        """The same with two steps of a program, known by their names, in each other's place."""
        steps = list(self.programs[program])
        names = [step.name for step in steps]
        one, other = names.index(first), names.index(second)
        steps[one], steps[other] = steps[other], steps[one]
        return self.having(program, *steps)
