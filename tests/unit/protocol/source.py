# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source: it freezes the container, hands it over, and in the end kills its copy or lets it go on.

Until GO_SENT is decided it may give up on its own. After it only the destination's decision counts.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import ABORT, GO_SENT, REFUSED, RUN
from tests.unit.protocol.states import (
    CUT,
    ENDED,
    FROZEN,
    GONE,
    HELD,
    MOVED,
    NO,
    OWN,
    RUNS,
    STOPPED,
    UP,
    Source,
)
from tests.unit.protocol.transitions import (
    OPERATOR,
    Begin,
    Here,
    HostModel,
    Outcome,
    decide,
    enter,
    flush_decision,
    flush_decision_to_send_it,
    look,
    or_fail,
    send,
    step,
)

Outcomes = list[Outcome]
At = Here[Source]

SETTLED = ("committed", "aborted", "closed")
NOT_DUMPED = ("opened", "prepared", "arming", "armed", "freezing")


def running(me: Source) -> dict[str, Any]:
    """The change by which the container runs here."""
    return {"container": RUNS, "ran_since_dump": me.phase not in NOT_DUMPED}


# -- freezing, dumping, handing over ---------------------------------------------------------------------------------


@look("_subjects.container.original.Original.make_ready")
def see_that_it_can_be_moved(here: At) -> Outcomes:
    return [here.next()] if here.me.container == RUNS else []


@step("_subjects.container.original.Original.put_aside")
def put_the_restart_policy_aside(here: At) -> Outcomes:
    """Else the engine would start the image afresh beside the copy as soon as the old copy is killed, or at the next boot."""
    return [] if here.me.container == CUT else [here.next(policy=NO, policy_on_disk=NO)]


@step("_subjects.container.original.Original.stop")
def pause(here: At) -> Outcomes:
    if here.me.container != RUNS:
        return []
    return [here.next(container=FROZEN), here.back(1, note="a process of docker exec is in the way")]


@step("_subjects.container.original.Original.dump")
def dump_and_note_the_stops(here: At) -> Outcomes:
    """A SIGSTOP that was delivered is found by this note alone."""
    return [here.next(stops_noted=True)] if here.me.container == FROZEN else []


@step("_host.tasks.TaskGroup.queue_stops")
def queue_a_sigstop(here: At) -> Outcomes:
    """One waits for each frozen task: a thaw by somebody else runs no code, and is seen afterwards."""
    return [here.next(container=HELD)] if here.me.container == FROZEN else []


@step("_engines.api.seal")
def write_the_checkpoint_out(here: At) -> Outcomes:
    """A reboot finds it beside files of the same moment."""
    if here.setting.engine == "api" and not here.me.writable:
        return []
    return [here.next(checkpoint=here.setting.engine == "api")] if here.me.container in (FROZEN, HELD, STOPPED) else []


@step("_migration.handover._send")
def receive_that_it_is_held(here: At) -> Outcomes:
    return [here.next()] if here.received("held") else []


@look("_subjects.container.original.Original.require_not_run_since_dump")
def see_that_it_is_frozen_still(here: At) -> Outcomes:
    """A checkpoint of tasks that have run since is not used."""
    return [here.next()] if here.me.container == HELD else [here.go("settle", note="somebody has thawed it")]


@look("_migration.handover.hand_over")
def go_on_to_the_decision(here: At) -> Outcomes:
    return [here.go("go")]


@step("_migration.handover.hand_over")
def receive_the_decision(here: At) -> Outcomes:
    if here.received(RUN):
        return [here.go("commit", note="RUN"), here.go("settle", note="the answer is lost")]
    return [here.go("settle", note="REFUSED, or no answer")]


@look("_session.session.Session.locked")
def give_the_lock_back(here: At) -> Outcomes:
    return [here.stop()]


FREEZE_AND_DUMP = (
    see_that_it_can_be_moved,
    # Intents first: undoing has to know of a thing half done.
    enter("arming", "_migration.freeze.freeze", this_boot=True),
    put_the_restart_policy_aside,
    enter("armed", "_migration.freeze.freeze"),
    enter("freezing", "_migration.freeze.freeze"),
    pause,
    dump_and_note_the_stops,
    queue_a_sigstop,
    write_the_checkpoint_out,
    enter("dumped", "_migration.source.dump"),
)
GO = (
    see_that_it_is_frozen_still,
    decide(GO_SENT, "_migration.source.go", otherwise="settle"),
    flush_decision_to_send_it,
)

# -- settling ----------------------------------------------------------------------------------------------------------


@look("_migration.source.settle")
def look_how_far_it_is(here: At) -> Outcomes:
    if here.me.phase == "closed":
        return [here.go("close again")]
    return [here.go("close the other half") if here.me.phase in SETTLED else here.next()]


@look("_migration.source.settle")
def see_who_decides(here: At) -> Outcomes:
    """An ABORT is the source's own; after GO_SENT the destination is asked."""
    return _goes_on_here(here) if here.me.decision == ABORT else [here.next()]


def _goes_on_here(here: At) -> Outcomes:
    """Where dockerd does not answer, a frozen service need not wait for that."""
    if here.me.hangs:
        # It is there, as far as anybody can tell.
        return [here.go("abort")]
    answers = [] if here.me.container == CUT else [here.go("abort")]
    return [*answers, here.go("abort without dockerd", note="dockerd does not answer")]


@look("_migration.source.ask_decision")
def ask_for_the_decision(here: At) -> Outcomes:
    return [*([here.next()] if here.wire.key else []), here.stop(note="not reached; the watchdog tries again")]


@step("_migration.source.settle")
def receive_the_answer(here: At) -> Outcomes:
    return [*_as_answered(here), here.stop(note="no answer; the watchdog tries again")]


def _as_answered(here: At) -> Outcomes:
    commits = [here.go("commit", note=RUN)] if here.received(RUN) else []
    return commits + (_goes_on_here(here) if here.received(REFUSED) else [])


@look("_migration.recovery._declare_lost")
def see_whether_it_is_lost(here: At) -> Outcomes:
    """A person has declared the destination lost. It counts as that only where no connection to it can be made."""
    if here.peer_power == GONE:
        return [here.go("abort", note="no connection can be made")]
    return [here.go("ask", note="it can be reached"), here.stop(note="destination_not_lost")]


@step("_migration.recovery._settle_one")
def take_the_decision_that_recover_yml_carries(here: At) -> Outcomes:
    """It reaches both hosts where the channel's key is gone."""
    return [*_as_answered(here), here.stop(note="no decision yet")]


@step("_engines.api.give_up_checkpoint")
def give_the_checkpoint_up(here: At) -> Outcomes:
    """Before a task runs on: it does not know what follows. Where the session's disk does not take that, the images go."""
    is_there = here.me.this_boot and here.me.container not in (ENDED, CUT)
    return [here.next(checkpoint=here.me.checkpoint and not is_there)]


def _goes_on(me: Source) -> dict[str, Any]:
    """A thaw of what is frozen. Of one that somebody else has thawed the stops have to be taken back as well."""
    frozen = me.container in (FROZEN, HELD) or (me.container == STOPPED and me.stops_noted)
    return running(me) if me.this_boot and frozen else {}


@step("_subjects.container.original.Original.go_on_alone")
def thaw_without_dockerd(here: At) -> Outcomes:
    """The service goes on; the rest of the abort waits for the engine."""
    return [here.stop(**_goes_on(here.me))]


# -- the container goes on here ----------------------------------------------------------------------------------------


def with_dockerd(here: At, **changes: Any) -> Outcomes:
    """Go on where the engine answers; else the watchdog tries again later."""
    return [*_answered(here, **changes), here.stop(note="dockerd does not answer")]


def _answered(here: At, **changes: Any) -> Outcomes:
    return [] if here.me.container == CUT or here.me.hangs else [here.next(**changes)]


@step("_subjects.container.original.Original.thaw")
def thaw(here: At) -> Outcomes:
    """Where dockerd does not answer, or refuses, the tasks go on without it."""
    goes_on = _goes_on(here.me)
    return [*_answered(here, **goes_on), here.stop("dockerd does not answer", **goes_on)]


@step("_subjects.container.original.Original.go_on")
def give_the_name_back(here: At) -> Outcomes:
    """Of one whose destination decided RUN and was lost before the old copy had been killed."""
    return with_dockerd(here, name=OWN)


@step("_subjects.container.original.Original.go_on")
def put_the_policy_back(here: At) -> Outcomes:
    """Before the look: what ends the container from here on (a restart of dockerd) starts it again by this policy."""
    return with_dockerd(here, policy=OWN, policy_on_disk=OWN)


@step("_subjects.container.original.Original.go_on")
def start_it_if_it_has_ended(here: At) -> Outcomes:
    """A reboot ends it, and so does a restart of dockerd without live-restore."""
    if here.me.container != ENDED or here.me.phase in ("opened", "prepared"):
        return with_dockerd(here)
    afresh = with_dockerd(here, **running(here.me))
    if not here.me.checkpoint or here.me.phase in NOT_DUMPED:
        return afresh
    # It is used once, whether that succeeds or not.
    spent = {**running(here.me), "checkpoint": False}
    return [*_answered(here, **spent, rolled_back=here.me.ran_since_dump), *_answered(here, **spent), *afresh[1:]]


@look("_migration.source.settle")
def go_on_to_close_the_other_half(here: At) -> Outcomes:
    return [here.go("close the other half")]


# -- the old copy is ended ---------------------------------------------------------------------------------------------


@step("_subjects.container.old_copy.end")
def rename_the_old_copy(here: At) -> Outcomes:
    """First all that could start it again is taken from it. Units and scripts start it by its name."""
    return with_dockerd(here, name=MOVED)


@step("_subjects.container.old_copy.end")
def take_its_restart_policy(here: At) -> Outcomes:
    """It was put aside before the freeze; somebody may have set one since."""
    return with_dockerd(here, policy=NO, policy_on_disk=NO)


@step("_subjects.container.old_copy.end")
def kill_the_old_copy(here: At) -> Outcomes:
    """By its cgroup. dockerd restarts what ends like that, if the policy says so."""
    if here.me.container == ENDED:
        return [here.next()]
    if here.me.policy == OWN:
        return [here.next(note="dockerd restarts it", **running(here.me))]
    return [here.next(container=ENDED)]


@step("_subjects.container.old_copy.end")
def see_that_it_has_ended(here: At) -> Outcomes:
    if here.me.container == ENDED:
        return [here.next()]
    return [here.stop(note="it runs again: the watchdog ends it")]


# -- the end of the session --------------------------------------------------------------------------------------------


@look("_migration.source.close_destination_half")
def send_close(here: At) -> Outcomes:
    if here.peer_power == GONE or not here.wire.key:
        return [here.go("close", note="nobody can come in to ask"), here.stop()]
    return [here.sending("close").next(), here.stop(note="not reached; later")]


@step("_migration.source.close_destination_half")
def receive_that_it_is_closed(here: At) -> Outcomes:
    if here.received("closed") or not here.wire.key:
        return [here.go("close"), here.stop(note="the answer is lost; later")]
    return [here.stop(note="no answer; later")]


@step("_session.watchdog.disarm")
def disarm(here: At) -> Outcomes:
    """Last: the watchdog finishes what is cut off before."""
    return [here.stop(watched=not here.me.writable)]


_HAND_OVER = (
    *FREEZE_AND_DUMP,
    enter("sent", "_migration.handover._send"),
    send("hold", "_migration.handover._send"),
    receive_that_it_is_held,
    enter("held", "_migration.handover._send"),
    go_on_to_the_decision,
)
_COMMON = {
    "prepare": (enter("prepared", "_migration.source.prepared"), give_the_lock_back),
    "settle": (
        look_how_far_it_is,
        decide(ABORT, "_migration.source._goes_on_here"),
        flush_decision,
        see_who_decides,
        ask_for_the_decision,
        receive_the_answer,
    ),
    "ask": (ask_for_the_decision, receive_the_answer),
    "abort without dockerd": (give_the_checkpoint_up, thaw_without_dockerd),
    "recover.yml": (take_the_decision_that_recover_yml_carries,),
    "declared lost": (see_whether_it_is_lost,),
    "abort": (
        give_the_checkpoint_up,
        thaw,
        give_the_name_back,
        put_the_policy_back,
        start_it_if_it_has_ended,
        enter("aborted", "_migration.source.abort", this_boot=True),
        go_on_to_close_the_other_half,
    ),
    "commit": (
        rename_the_old_copy,
        take_its_restart_policy,
        kill_the_old_copy,
        see_that_it_has_ended,
        enter("committed", "_migration.source.commit", this_boot=True),
        go_on_to_close_the_other_half,
    ),
    "close the other half": (send_close, receive_that_it_is_closed),
    "close": (enter("closed", "_session.session.Session.close"), disarm),
    "close again": (disarm,),
}
# The whole of the frozen time is one step of Ansible with the engine "runtime".
_RUNTIME = {
    **_COMMON,
    "hand over": or_fail("settle", _HAND_OVER),
    "go": (*GO, send("run", "_migration.handover.hand_over"), receive_the_decision),
}
# With the engine "api" the playbook goes from step to step; a control node that dies begins none of them any more.
_API = {
    **_COMMON,
    "freeze and dump": (*or_fail("settle", FREEZE_AND_DUMP), give_the_lock_back),
    "send": (*or_fail("settle", [enter("sent", "_migration.source.send_checkpoint")]), give_the_lock_back),
    "go": (*GO, send("go", "_migration.steps.run"), give_the_lock_back),
}


def _undecided(here: At) -> bool:
    return here.me.decision == GO_SENT and here.me.phase not in SETTLED


_BEGINS = (
    Begin("prepare", lambda here: here.me.phase == "opened" and here.received("created")),
    Begin("settle", lambda here: here.me.watched),
    Begin("recover.yml", lambda here: here.setting.operator and _undecided(here), OPERATOR),
    # Of one that is only without power somebody has said what is not true; that is not promised.
    Begin(
        "declared lost",
        lambda here: here.setting.operator and _undecided(here) and here.peer_power in (UP, GONE),
        OPERATOR,
    ),
)
_BEGINS_RUNTIME = (Begin("hand over", lambda here: here.me.phase == "prepared" and here.me.decision is None),)
_BEGINS_API = (
    Begin("freeze and dump", lambda here: here.me.phase == "prepared" and here.me.decision is None),
    Begin("send", lambda here: here.me.phase == "dumped" and here.me.decision is None),
    Begin("go", lambda here: here.me.phase == "sent" and here.me.decision is None),
)


def source(engine: str) -> HostModel:
    """All that the source does by itself; see ``hosts.py`` for what happens to it."""
    if engine == "api":
        return HostModel(_API, _BEGINS + _BEGINS_API, ())
    return HostModel(_RUNTIME, _BEGINS + _BEGINS_RUNTIME, ())
