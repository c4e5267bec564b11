# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/protocol.md: phases and decisions as the code has them, steps as the model has them. `make rules` writes it."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    DECISIONS,
    DESTINATION,
    SOURCE,
    TRANSITIONS,
)
from tests.unit.protocol.code import Write, writes
from tests.unit.protocol.faults import PLANTED
from tests.unit.protocol.hosts import hosts
from tests.unit.protocol.invariants import GOALS, INVARIANTS
from tests.unit.protocol.settings import SETTINGS
from tests.unit.protocol.states import Setting
from tests.unit.protocol.transitions import Step

_HEAD = """\
# The protocol of a move

<!-- made by make rules -->

Each host has a half of the session: a journal of phases, and one decision, written once. The source's is `GO_SENT` or `ABORT`,
the destination's `RUN` or `REFUSED`. Until `GO_SENT` the source may give up on its own; after it the destination's decision
counts. The tables of `_session/phases.py` say which phase may follow which. The steps are those of the model in
`tests/unit/protocol/`, which `make test` explores: every state that can be reached when a host loses its power, a process is
killed, a message is lost, late or doubled, dockerd ends, or a person uses docker, between any two steps.
"""

_TITLES = {SOURCE: "The source", DESTINATION: "The destination"}
# With the engine "runtime": in the order in which they are come upon.
_PROGRAMS = {
    SOURCE: ("hand over", "go", "settle", "commit", "abort", "close the other half", "close"),
    DESTINATION: (
        "create",
        "hold",
        "run",
        "decision",
        "decision: RUN",
        "decision: REFUSED",
        "settle",
        "settle: RUN",
        "settle: REFUSED",
        "close",
    ),
}


def _diagram(role: str) -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    [*] --> opened"
    for phase, following in TRANSITIONS[role].items():
        yield from (f"    {phase} --> {after}" for after in following)
        if not following:
            yield f"    {phase} --> [*]"
    yield "```"


def _is_of(role: str, write: Write) -> bool:
    """Both halves have a phase "held"."""
    return write.value != "held" or (write.function.startswith("_migration.handover") == (role == SOURCE))


def _writers(role: str) -> Iterator[str]:
    yield "| what is written | by which functions |"
    yield "|---|---|"
    for value in [*TRANSITIONS[role], *DECISIONS[role]]:
        functions = sorted(f"`{write.function}`" for write in writes() if write.value == value and _is_of(role, write))
        if value == "opened":
            functions = ["`_session.session.Session.open`"]
        yield f"| `{value}` | {', '.join(functions)} |"


def _line(number: int, step: Step) -> str:
    models = ", ".join(f"`{name}`" for name in step.models.split(", "))
    notes = " ".join((step.act.__doc__ or "").split())
    return f"{number}. {step.name} ({models}){': ' + notes if notes else ''}"


def _programs(role: str) -> Iterator[str]:
    model = hosts(Setting())[(SOURCE, DESTINATION).index(role)]
    for name in _PROGRAMS[role]:
        yield f"**{name}**"
        yield ""
        yield from (_line(number, step) for number, step in enumerate(model.programs[name], 1))
        yield ""


def _promises() -> Iterator[str]:
    yield "## What it promises"
    yield ""
    yield from (f"* {promise.promise[0].upper()}{promise.promise[1:]}." for promise in (*INVARIANTS, *GOALS))
    yield ""
    yield f"Explored: {'; '.join(SETTINGS)}."
    yield "What a person can do that nothing on these hosts could prevent is left out; `hosts.py` says what that is."
    yield ""
    yield "## What would break it"
    yield ""
    yield "Each of these is planted in a copy of the model by `faults.py`, and found."
    yield ""
    yield "| fault | the promise that it breaks |"
    yield "|---|---|"
    yield from (f"| {planted.what} | {planted.breaks} |" for planted in PLANTED)


def text() -> str:
    """The whole page."""
    lines = [_HEAD]
    for role in (SOURCE, DESTINATION):
        lines += [f"## {_TITLES[role]}", "", *_diagram(role), "", *_writers(role), ""]
        lines += ["What is done under the session's lock, with the engine `runtime`:", "", *_programs(role)]
    return "\n".join([*lines, *_promises()]) + "\n"
