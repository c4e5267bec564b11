# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The destination: it restores the copy, lets it run or refuses it, and sends its decision.

Its RUN or REFUSED, written once, is what the source waits for. With the engine "runtime" a restored copy is held until RUN is on
the disk; with "api" it runs from its restore on.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import REFUSED, RUN
from tests.unit.protocol.states import (
    CONSUMED,
    CREATED,
    CUT,
    ENDED,
    HELD,
    MARKED,
    NONE,
    OWN,
    RESTORING,
    RUNS,
    Destination,
)
from tests.unit.protocol.transitions import (
    OPERATOR,
    Begin,
    Here,
    HostModel,
    Outcome,
    Step,
    decide,
    enter,
    flush_decision,
    look,
    or_fail,
    send,
    step,
)

Outcomes = list[Outcome]
At = Here[Destination]

# It runs; and it does so by a `docker start` that is done.
THAWED: dict[str, Any] = {"copy": RUNS, "has_run": True}
RUNNING: dict[str, Any] = {**THAWED, "start_pending": False, "known": True}


def with_dockerd(here: At, **changes: Any) -> Outcomes:
    """Go on where the engine answers; else the watchdog tries again later."""
    answers = [] if here.me.copy == CUT or here.me.hangs else [here.next(**changes)]
    return [*answers, here.stop(note="dockerd does not answer")]


# -- making room, restoring ------------------------------------------------------------------------------------------


@step("_subjects.container.creation.create")
def create_the_copy(here: At) -> Outcomes:
    """Without a restart policy, and marked: the shim starts it from its checkpoint or not at all."""
    marked = MARKED if here.setting.engine == "runtime" else NONE
    if marked and not here.me.writable:
        return []
    return [here.next(copy=CREATED, mark=marked)]


@look("_migration.destination._require_undecided")
def see_that_nothing_is_decided(here: At) -> Outcomes:
    """And that this host has not been rebooted: one that has may have sent a REFUSED that was on no disk."""
    if not here.me.this_boot:
        return [here.stop(note="this host has been rebooted")]
    if here.me.decision is not None:
        return [here.stop(note=f"{here.me.decision} stands")]
    if here.me.phase not in ("created", "starting"):
        return [here.stop(note="it was restored already"), here.go("refuse", note="it was restored already")]
    return [here.next()]


@step("_engines.runtime.hold")
def have_it_restored(here: At) -> Outcomes:
    """The `docker start` that has waited for the checkpoint goes on."""
    return [here.next(copy=RESTORING, start_pending=True)] if here.me.copy == CREATED else []


@step("_engines.runtime.hold")
def see_that_it_is_held(here: At) -> Outcomes:
    return [here.next()] if here.me.copy == HELD else []


@step("_engines.runtime._await_note")
def see_that_docker_has_noted_it(here: At) -> Outcomes:
    """It counts as held only then. The next dockerd would kill a copy that it does not know, or take its network away."""
    return [here.next()] if here.me.known else []


@step("_engines.runtime.hold")
def wait_for_the_files_to_be_on_the_disk(here: At) -> Outcomes:
    """What was durable on the source is durable here before RUN can be decided."""
    return [here.next(files_on_disk=True)]


@step("_engines.api.start")
def flush_the_files(here: At) -> Outcomes:
    return [here.next(files_on_disk=True)]


@step("_engines.api.start")
def start_it_from_the_checkpoint(here: At) -> Outcomes:
    return [here.next(copy=RESTORING)] if here.me.copy == CREATED else []


@step("_engines.api.prove")
def see_that_it_runs(here: At) -> Outcomes:
    return [here.next()] if here.me.copy == RUNS else []


# -- RUN ---------------------------------------------------------------------------------------------------------------


@look("_engines.runtime.run")
def see_that_it_may_run(here: At) -> Outcomes:
    """It is held, and Docker answers to a ping."""
    may = here.me.decision is None and here.me.phase == "held" and here.me.copy == HELD and not here.me.hangs
    return [*([here.next()] if may else []), here.go("decision")]


@step("_engines.runtime._let_go")
def write_the_tombstone(here: At) -> Outcomes:
    """From here on the shim is runc for this container. Where the disk takes no change it is written later."""
    return [here.next(**({"mark": CONSUMED} if here.me.writable else {}))]


@step("_engines.runtime._thaw")
def thaw_the_copy(here: At) -> Outcomes:
    """Nobody else is needed for that."""
    return [here.next(**(THAWED if here.me.copy == HELD else {}))]


@look("_engines.runtime._let_go")
def see_that_the_tombstone_is_written(here: At) -> Outcomes:
    """It runs in any case. The session goes on only with a tombstone."""
    return [here.next() if here.me.mark == CONSUMED else here.stop(note="it could not be written")]


@step("_subjects.container.copy.Copy.finish")
def give_it_its_restart_policy(here: At) -> Outcomes:
    if here.me.copy == RUNS and not here.me.known:
        # The next dockerd would start it by that, and so kill it.
        return [here.stop(note="it runs unknown to Docker")]
    return with_dockerd(here, policy=OWN)


@step("_subjects.container.copy.Copy.hand_to_keeper")
def start_it_if_it_has_ended(here: At) -> Outcomes:
    """One that ended between RUN and its restart policy, with the host or with dockerd: do what Docker would have done."""
    if here.me.copy == RUNS and not here.me.known:
        # A start would kill it.
        return [here.stop(note="it runs unknown to Docker")]
    ended = here.me.copy == ENDED and not here.me.handed_to_docker
    return with_dockerd(here, **(RUNNING if ended else {}))


@step("_migration.destination._hand_to_keeper_once")
def note_that_docker_answers_for_it(here: At) -> Outcomes:
    return [here.next(handed_to_docker=True) if here.me.writable else here.stop(note="it cannot be noted")]


# -- REFUSED -----------------------------------------------------------------------------------------------------------


@step("_subjects.container.copy.Copy.end")
def end_the_copy(here: At) -> Outcomes:
    """The decision is written before, so that nobody starts it meanwhile, and sent after."""
    reached = (HELD, RUNS) if here.setting.engine == "api" else (RESTORING, HELD, RUNS)
    return [here.next(copy=ENDED if here.me.copy in reached else here.me.copy, start_pending=False, known=False)]


@step("_subjects.container.copy.Copy.take_away")
def take_the_copy_away(here: At) -> Outcomes:
    # The engine answers nothing about a container that it is still starting.
    if here.me.copy == RESTORING:
        return []
    return with_dockerd(here, copy=NONE, mark=NONE) if here.me.writable else [here.stop(note="its mark stays")]


@look("_session.session.Session.locked")
def give_the_lock_back(here: At) -> Outcomes:
    return [here.stop()]


# -- the decision ------------------------------------------------------------------------------------------------------


@look("_migration.destination._decision_on_held_copy")
def see_whether_it_is_noted(here: At) -> Outcomes:
    """A phase is entered when what it names has been done: the decision can be sent at once."""
    if here.me.phase in ("run", "refused", "closed"):
        return [here.sending(str(here.me.decision)).stop(note=f"sends {here.me.decision}")]
    return [here.next()]


@look("_migration.destination._decide")
def see_whether_the_engine_is_needed(here: At) -> Outcomes:
    return with_dockerd(here)


@step("_engines.api.decide_interrupted")
def see_whether_it_has_run(here: At) -> Outcomes:
    """One that was started and runs may have answered clients: it is RUN, though nobody had decided so."""
    if here.me.decision is not None or here.me.phase != "starting" or not here.me.this_boot:
        return [here.next()]
    if here.me.copy == RESTORING:
        # The engine answers when it has started it.
        return []
    if here.me.copy != RUNS:
        return [here.next()]
    if here.me.writable:
        return [here.next(decision=RUN, decision_on_disk=False)]
    return [here.stop(note="RUN cannot be written")]


def by_decision(run: str, refused: str) -> Step:
    """Go on as has been decided."""

    @look("_migration.destination._decision_on_held_copy")
    def see_what_is_decided(here: At) -> Outcomes:
        return [here.go(run if here.me.decision == RUN else refused)]

    return see_what_is_decided


# -- the end of the session --------------------------------------------------------------------------------------------


@look("_migration.destination.settle")
def see_whether_it_is_closed(here: At) -> Outcomes:
    return [here.go("close again")] if here.me.phase == "closed" else [here.next()]


def end(*, source_knows: bool) -> Step:
    """Close where the source knows the outcome or has nothing to ask; else the decision stays to be asked for."""

    @look("_migration.destination.settle")
    def see_whether_it_may_be_closed(here: At) -> Outcomes:
        # A source that does not know that this host is ready can never have handed over.
        if source_knows or not here.wire.key or not here.received("created"):
            return [here.go("close for the source" if source_knows else "close")]
        return [here.stop(note="stays to be asked")]

    return see_whether_it_may_be_closed


@step("_channel.server.revoke")
def revoke_the_key(here: At) -> Outcomes:
    return [Outcome(here.next().side, here.wire._replace(key=False))]


@step("_session.watchdog.disarm")
def disarm(here: At) -> Outcomes:
    """Last: the watchdog finishes what is cut off before."""
    return [here.next(watched=not here.me.writable)]


_LET_GO_RUNTIME = (write_the_tombstone, thaw_the_copy, see_that_the_tombstone_is_written)
_FINISH = (give_it_its_restart_policy, start_it_if_it_has_ended, note_that_docker_answers_for_it)
_CLOSE = (revoke_the_key, enter("closed", "_session.session.Session.close"), disarm)


def _create() -> tuple[Step, ...]:
    making = (
        enter("creating", "_subjects.container.creation.create"),
        create_the_copy,
        enter("created", "_subjects.container.creation.create", sends=["created"]),
    )
    return (*or_fail("refuse", making), give_the_lock_back)


def _ends(let_go: tuple[Step, ...], settling: tuple[Step, ...], *, source_knows: bool) -> dict[str, tuple[Step, ...]]:
    """The watchdog's settling, or the same on the source's command to close it."""
    name = "source is done" if source_knows else "settle"
    return {
        name: (
            see_whether_it_is_closed,
            see_whether_the_engine_is_needed,
            *settling,
            by_decision(f"{name}: RUN", f"{name}: REFUSED"),
        ),
        f"{name}: RUN": (*let_go, *_FINISH, end(source_knows=source_knows)),
        f"{name}: REFUSED": (
            end_the_copy,
            take_the_copy_away,
            enter("refused", "_migration.destination.refuse", this_boot=True),
            end(source_knows=source_knows),
        ),
    }


def _programs(
    let_go: tuple[Step, ...], settling: tuple[Step, ...], refusal: tuple[Step, ...]
) -> dict[str, tuple[Step, ...]]:
    return {
        "create": _create(),
        "refuse": (
            decide(REFUSED, "_migration.destination._or_refused", otherwise="give up"),
            flush_decision,
            end_the_copy,
            take_the_copy_away,
            enter("refused", "_migration.destination.refuse", this_boot=True),
            give_the_lock_back,
        ),
        "give up": (give_the_lock_back,),
        "decision: RUN": (*let_go, send(RUN, "_migration.destination._decision_answer"), give_the_lock_back),
        "decision: REFUSED": (*refusal, send(REFUSED, "_migration.destination._decision_answer"), give_the_lock_back),
        **_ends(let_go, settling, source_knows=False),
        **_ends(let_go, settling, source_knows=True),
        "close": (*_CLOSE, give_the_lock_back),
        "close for the source": (*_CLOSE, send("closed", "_migration.destination.source_is_done"), give_the_lock_back),
        "close again": (disarm, give_the_lock_back),
    }


def _runtime() -> dict[str, tuple[Step, ...]]:
    let_go = (*_LET_GO_RUNTIME, enter("run", "_engines.runtime._let_go"))
    hold = (
        enter("starting", "_engines.runtime.hold"),
        have_it_restored,
        see_that_it_is_held,
        see_that_docker_has_noted_it,
        wait_for_the_files_to_be_on_the_disk,
        enter("held", "_engines.runtime.hold", sends=["held"]),
    )
    return {
        **_programs(let_go, (decide(REFUSED, "_migration.destination.refuse"), flush_decision), (end_the_copy,)),
        "hold": (see_that_nothing_is_decided, *or_fail("refuse", hold), give_the_lock_back),
        "run": (
            see_that_it_may_run,
            decide(RUN, "_engines.runtime.run", otherwise="decision"),
            flush_decision,
            *let_go,
            send(RUN, "_migration.destination._decision_answer"),
            give_the_lock_back,
        ),
        "decision": (
            see_whether_it_is_noted,
            decide(REFUSED, "_migration.destination._decision_on_held_copy"),
            flush_decision,
            by_decision("decision: RUN", "decision: REFUSED"),
        ),
    }


def _api() -> dict[str, tuple[Step, ...]]:
    let_go = (enter("run", "_engines.api.let_go"),)
    deciding = (see_whether_it_has_run, decide(REFUSED, "_migration.destination.refuse"), flush_decision)
    refusal = (end_the_copy, take_the_copy_away, enter("refused", "_migration.destination.refuse", this_boot=True))
    start = (
        flush_the_files,
        enter("starting", "_engines.api.start"),
        start_it_from_the_checkpoint,
        see_that_it_runs,
    )
    return {
        **_programs(let_go, deciding, refusal),
        "start": (
            see_that_nothing_is_decided,
            *or_fail("refuse", start),
            decide(RUN, "_engines.api.start", otherwise="refuse"),
            flush_decision,
            enter("run", "_engines.api.start"),
            *_FINISH[:1],
            give_the_lock_back,
        ),
        "decision": (
            see_whether_it_is_noted,
            see_whether_the_engine_is_needed,
            *deciding,
            by_decision("decision: RUN", "decision: REFUSED"),
        ),
    }


def _open(here: At) -> bool:
    return here.me.phase != "closed"


_BEGINS = (
    Begin("create", lambda here: here.me.phase == "opened" and here.me.decision is None),
    # The source asks whenever it has no answer, and as often: with its key that may arrive at any moment.
    Begin("decision", lambda here: here.wire.key and _open(here)),
    # recover.yml needs no key, and asks a half that is closed as well.
    Begin("decision", lambda here: here.setting.operator, OPERATOR),
    Begin("source is done", lambda here: here.received("close") and here.wire.key and _open(here)),
    Begin("settle", lambda here: here.me.watched),
)
_BEGINS_RUNTIME = (
    Begin("hold", lambda here: here.received("hold") and _open(here)),
    Begin("run", lambda here: here.received("run") and _open(here)),
)
_BEGINS_API = (Begin("start", lambda here: here.received("go") and _open(here)),)


def destination(engine: str) -> HostModel:
    """All that the destination does by itself; see ``hosts.py`` for what happens to it."""
    if engine == "api":
        return HostModel(_api(), _BEGINS + _BEGINS_API, ())
    return HostModel(_runtime(), _BEGINS + _BEGINS_RUNTIME, ())
