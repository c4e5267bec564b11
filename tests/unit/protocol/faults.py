# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults planted in copies of the protocol: the explorer has to find each. A model that finds nothing proves nothing else.

Several are what the code did once. Read them as the reasons for the order of things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    ABORT,
    GO_SENT,
    REFUSED,
    RUN,
)
from tests.unit.protocol import destination, hosts, source
from tests.unit.protocol.explorer import Model
from tests.unit.protocol.invariants import (
    AS_BEFORE,
    CLOSED,
    FILES_DURABLE,
    MEMORY_KEPT,
    NEVER_TWO,
    OLD_COPY_DOWN,
    ONE_HISTORY,
    SERVICE_RUNS,
)
from tests.unit.protocol.states import (
    CONSUMED,
    CREATED,
    CUT,
    ENDED,
    FROZEN,
    HELD,
    NO,
    RUNS,
    STOPPED,
    UP,
    Destination,
    Setting,
    Source,
)
from tests.unit.protocol.transitions import (
    PERSON,
    STEP,
    Here,
    HostModel,
    Outcome,
    Step,
    event,
    flush_decision,
    flush_decision_to_send_it,
    look,
    send,
    step,
)

_QUIET = Setting(source_power_cuts=False, destination_power_cuts=False)
_SOURCE_CUTS = Setting(destination_power_cuts=False)
_DESTINATION_CUTS = Setting(source_power_cuts=False)
_NO_LIVE_RESTORE = replace(_QUIET, live_restore=False)
_PEOPLE = replace(_QUIET, people=True)
_SUPERVISOR = replace(_QUIET, supervisor=True)
_HANGS = replace(_QUIET, dockerd_hangs=True)


_SOURCE_DISK = replace(_QUIET, source_disk_fails=True)
_DESTINATION_DISK = replace(_QUIET, destination_disk_fails=True)


class Planted(NamedTuple):
    """A fault, the smallest setting in which it shows, and the promise that it breaks."""

    what: str
    setting: Setting
    breaks: str
    plant: Callable[[Model], Model]


def _in_source(change: Callable[[HostModel], HostModel]) -> Callable[[Model], Model]:
    return lambda model: replace(model, source=change(model.source))


def _in_destination(change: Callable[[HostModel], HostModel]) -> Callable[[Model], Model]:
    return lambda model: replace(model, destination=change(model.destination))


# -- who decides -------------------------------------------------------------------------------------------------------


def _silence_means(program: str) -> Callable[[Model], Model]:
    @step("")
    def receive_the_answer_or_silence(here: Here[Source]) -> list[Outcome]:
        return [*source.receive_the_answer.act(here), here.go(program, note="silence")]

    return _in_source(lambda host: host.with_instead(source.receive_the_answer, receive_the_answer_or_silence))


@look("")
def _lost_when_a_call_fails(here: Here[Source]) -> list[Outcome]:
    outcomes = source.see_whether_it_is_lost.act(here)
    return [*outcomes, here.go("abort", note="Permission denied")] if here.peer_power == UP else list(outcomes)


@step("")
def _go_unlooked(here: Here[Source]) -> list[Outcome]:
    return [here.next()]


# -- what is on the disk before it is sent -----------------------------------------------------------------------------


def _go_unflushed(host: HostModel) -> HostModel:
    return host.with_swapped("go", flush_decision_to_send_it.name, "send 'run'")


def _run_unflushed(host: HostModel) -> HostModel:
    steps = [one for one in host.programs["run"] if one.name != "send 'RUN'"]
    names = [one.name for one in steps]
    steps.insert(names.index(flush_decision.name), send(RUN, ""))
    return host.having("run", *steps)


def _read_unflushed(host: HostModel) -> HostModel:
    return host.having("decision", *(one for one in host.programs["decision"] if one is not flush_decision))


def _refused_undecided(host: HostModel) -> HostModel:
    """It sends REFUSED as soon as it is asked and has not decided RUN."""

    @step("")
    def send_refused_unless_run(here: Here[Destination]) -> list[Outcome]:
        return [here.next() if here.me.decision == RUN else here.sending(REFUSED).next()]

    first, *others = host.programs["decision"]
    return host.having("decision", first, send_refused_unless_run, *others)


def _tombstone_undecided(host: HostModel) -> HostModel:
    return host.with_swapped("run", f"decide {RUN}", destination.write_the_tombstone.name)


def _thawed_undecided(host: HostModel) -> HostModel:
    return host.with_swapped("run", f"decide {RUN}", destination.thaw_the_copy.name)


@step("")
def _policy_unflushed(here: Here[Source]) -> list[Outcome]:
    return [here.next(policy=NO)]


# -- what comes first --------------------------------------------------------------------------------------------------


def _commit(*steps: Step) -> Callable[[Model], Model]:
    def change(host: HostModel) -> HostModel:
        return host.having("commit", *steps, *host.programs["commit"][4:])

    return _in_source(change)


def _close_after_disarming(host: HostModel) -> HostModel:
    @step("")
    def disarm_first(here: Here[Source]) -> list[Outcome]:
        return [here.next(watched=False)]

    closing = host.programs["close"][0]
    return host.having("close", disarm_first, closing, source.give_the_lock_back)


def _refused_before_the_deed(host: HostModel) -> HostModel:
    return host.having("decision: REFUSED", send(REFUSED, ""), *host.programs["decision: REFUSED"])


# -- what is not done --------------------------------------------------------------------------------------------------


@step("")
def _no_sigstop(here: Here[Source]) -> list[Outcome]:
    return [here.next()] if here.me.container == FROZEN else []


@step("")
def _dump_without_a_note(here: Here[Source]) -> list[Outcome]:
    return [here.next()] if here.me.container == FROZEN else []


@step("")
def _carried_through_dockerd(here: Here[Source]) -> list[Outcome]:
    """Where the engine does not answer, the channel is asked for the decision that recover.yml carries."""
    return [here.go("ask")] if here.me.hangs else list(source.take_the_decision_that_recover_yml_carries.act(here))


@look("")
def _frozen_is_enough(here: Here[Source]) -> list[Outcome]:
    return [here.next()] if here.me.container in (FROZEN, HELD) else [here.go("settle")]


@step("_subjects.container.original.Original.thaw")
def _thaw_by_dockerd_alone(here: Here[Source]) -> list[Outcome]:
    frozen = here.me.this_boot and here.me.container in (FROZEN, HELD, STOPPED)
    return source.with_dockerd(here, **(source.running(here.me) if frozen else {}))


@event(PERSON)
def _docker_start_copy_unrefused(here: Here[Destination]) -> list[Outcome]:
    may = here.me.power == UP and here.me.copy in (CREATED, ENDED)
    return [here.happens(**destination.RUNNING)] if may else []


# -- a disk that takes no change -----------------------------------------------------------------------------------------


def _decide_in_memory(decision: str) -> Step:
    """Whatever it is, and whether or not a power cut takes it back."""

    @step("")
    def act(here: Here[Any]) -> list[Outcome]:
        return [here.next(decision=here.me.decision or decision, decision_on_disk=False)]

    return replace(act, name=f"decide {decision}")


def _decide_on_disk_only(decision: str) -> Step:
    @step("")
    def act(here: Here[Any]) -> list[Outcome]:
        if here.me.decision is None and not here.me.writable:
            return [here.stop()]
        return [here.next(decision=here.me.decision or decision)]

    return replace(act, name=f"decide {decision}")


@step("")
def _flush_or_not(here: Here[Any]) -> list[Outcome]:
    return [here.next(decision_on_disk=here.me.writable or here.me.decision_on_disk)]


@step("")
def _tombstone_in_memory(here: Here[Destination]) -> list[Outcome]:
    return [here.next(mark=CONSUMED)]


def _anything_in_memory(decision: str, flush: Step) -> Callable[[HostModel], HostModel]:
    def change(host: HostModel) -> HostModel:
        for one in (_decide_in_memory(decision), replace(_flush_or_not, name=flush.name)):
            host = host.with_instead(one, one)
        return host

    return change


def _run_in_memory(host: HostModel) -> HostModel:
    return _anything_in_memory(RUN, flush_decision)(host).with_instead(
        destination.write_the_tombstone, _tombstone_in_memory
    )


@step("")
def _unflushed_run_is_refused(here: Here[Destination]) -> list[Outcome]:
    """RUN that cannot be flushed is taken for one that is not there."""
    if here.me.writable or here.me.decision != RUN:
        return list(flush_decision.act(here))
    return [here.go("decision: REFUSED")]


@step("")
def _checkpoint_stays(here: Here[Source]) -> list[Outcome]:
    is_there = here.me.this_boot and here.me.container not in (ENDED, CUT)
    return [here.next(checkpoint=here.me.checkpoint and not (is_there and here.me.writable))]


def _restored_after_a_reboot(host: HostModel) -> HostModel:
    @look("")
    def see(here: Here[Destination]) -> list[Outcome]:
        if here.me.decision is not None or here.me.phase not in ("created", "starting"):
            return [here.stop()]
        return [here.next()]

    return host.with_instead(destination.see_that_nothing_is_decided, see)


# -- what Docker notes of a held copy ------------------------------------------------------------------------------------


@event(STEP)
def _docker_notes_it_after_the_thaw(here: Here[Destination]) -> list[Outcome]:
    """As long as the shim's `start` waited for the decision."""
    noted = here.me.copy == RUNS and here.me.start_pending
    return [here.happens(known=True, start_pending=False)] if noted else []


@event(PERSON)
def _docker_unpause_copy(here: Here[Destination]) -> list[Outcome]:
    return [here.happens(**destination.THAWED)] if here.me.copy == HELD and here.me.known else []


def _without(host_of: Callable[..., Callable[[Model], Model]], *steps: Step) -> Callable[[Model], Model]:
    def change(host: HostModel) -> HostModel:
        for one in steps:
            host = host.with_instead(one)
        return host

    return host_of(change)


PLANTED = (
    Planted("the source takes silence for REFUSED", _QUIET, NEVER_TWO, _silence_means("abort")),
    Planted("the source takes silence for RUN", _QUIET, MEMORY_KEPT, _silence_means("commit")),
    Planted(
        "any call that fails counts as a lost destination",
        replace(_QUIET, operator=True),
        NEVER_TWO,
        _in_source(lambda host: host.with_instead(source.see_whether_it_is_lost, _lost_when_a_call_fails)),
    ),
    Planted("GO_SENT is sent before it is on the disk", _SOURCE_CUTS, NEVER_TWO, _in_source(_go_unflushed)),
    Planted("RUN is sent before it is on the disk", _DESTINATION_CUTS, MEMORY_KEPT, _in_destination(_run_unflushed)),
    Planted(
        "a RUN that another process has decided is given out unflushed",
        _DESTINATION_CUTS,
        MEMORY_KEPT,
        _in_destination(_read_unflushed),
    ),
    Planted("REFUSED is sent before it is decided", _QUIET, NEVER_TWO, _in_destination(_refused_undecided)),
    Planted(
        "REFUSED is sent before the copy is dead",
        replace(_QUIET, engine="api"),
        NEVER_TWO,
        _in_destination(_refused_before_the_deed),
    ),
    Planted("the copy is thawed before RUN is decided", _QUIET, ONE_HISTORY, _in_destination(_thawed_undecided)),
    Planted(
        "the tombstone is written before RUN is decided", _PEOPLE, NEVER_TWO, _in_destination(_tombstone_undecided)
    ),
    Planted(
        "files are not waited for before held",
        _QUIET,
        FILES_DURABLE,
        _without(_in_destination, destination.wait_for_the_files_to_be_on_the_disk),
    ),
    Planted(
        "docker update is not on the disk when it answers",
        _SOURCE_CUTS,
        NEVER_TWO,
        _in_source(lambda host: host.with_instead(source.put_the_restart_policy_aside, _policy_unflushed)),
    ),
    Planted(
        "the old copy is killed before it is renamed",
        _SUPERVISOR,
        NEVER_TWO,
        _commit(
            source.kill_the_old_copy,
            source.see_that_it_has_ended,
            source.rename_the_old_copy,
            source.take_its_restart_policy,
        ),
    ),
    Planted(
        "the old copy is killed with a restart policy",
        _SUPERVISOR,
        NEVER_TWO,
        _commit(
            source.rename_the_old_copy,
            source.kill_the_old_copy,
            source.take_its_restart_policy,
            source.see_that_it_has_ended,
        ),
    ),
    Planted(
        "the old copy keeps a restart policy",
        _SUPERVISOR,
        NEVER_TWO,
        _without(_in_source, source.take_its_restart_policy),
    ),
    Planted(
        "an abort looks before the policy is back",
        _NO_LIVE_RESTORE,
        SERVICE_RUNS,
        _in_source(
            lambda host: host.with_swapped(
                "abort", source.put_the_policy_back.name, source.start_it_if_it_has_ended.name
            )
        ),
    ),
    Planted(
        "a copy that ended before it had its restart policy stays down",
        _NO_LIVE_RESTORE,
        SERVICE_RUNS,
        _without(_in_destination, destination.start_it_if_it_has_ended),
    ),
    Planted(
        "an abort leaves the restart policy aside",
        _QUIET,
        AS_BEFORE,
        _without(_in_source, source.put_the_policy_back),
    ),
    Planted(
        "an abort keeps the name of the old copy",
        replace(_QUIET, destination_dies=True, operator=True),
        AS_BEFORE,
        _without(_in_source, source.give_the_name_back),
    ),
    Planted(
        "the old copy's restart policy is not on the disk when it is killed",
        _SUPERVISOR,
        OLD_COPY_DOWN,
        _in_source(lambda host: host.with_instead(source.take_its_restart_policy, _policy_unflushed)),
    ),
    Planted(
        "the watchdog is disarmed before the session is closed", _QUIET, CLOSED, _in_source(_close_after_disarming)
    ),
    Planted(
        "no SIGSTOP waits behind the dump",
        _PEOPLE,
        NEVER_TWO,
        _in_source(
            lambda host: host.with_instead(source.queue_a_sigstop, _no_sigstop).with_instead(
                source.see_that_it_is_frozen_still, _frozen_is_enough
            )
        ),
    ),
    Planted(
        "GO_SENT without a look whether it is frozen still",
        _PEOPLE,
        NEVER_TWO,
        _in_source(lambda host: host.with_instead(source.see_that_it_is_frozen_still, _go_unlooked)),
    ),
    Planted(
        "a thaw waits for a dockerd that hangs",
        _HANGS,
        SERVICE_RUNS,
        _in_source(lambda host: host.with_instead(source.thaw, _thaw_by_dockerd_alone)),
    ),
    Planted(
        "a container that was let go is brought back from its checkpoint",
        replace(_HANGS, engine="api", live_restore=False),
        ONE_HISTORY,
        _without(_in_source, source.give_the_checkpoint_up),
    ),
    Planted(
        "stops are noted only when the dump is complete",
        _PEOPLE,
        SERVICE_RUNS,
        _in_source(lambda host: host.with_instead(source.dump_and_note_the_stops, _dump_without_a_note)),
    ),
    Planted(
        "a carried decision waits for a dockerd that hangs",
        replace(_HANGS, key_loss=True, operator=True),
        SERVICE_RUNS,
        _in_source(
            lambda host: host.with_instead(source.take_the_decision_that_recover_yml_carries, _carried_through_dockerd)
        ),
    ),
    Planted(
        "an ABORT counts only when it is on the disk",
        _SOURCE_DISK,
        SERVICE_RUNS,
        _in_source(lambda host: host.with_instead(_decide_on_disk_only(ABORT), _decide_on_disk_only(ABORT))),
    ),
    Planted(
        "a REFUSED counts only when it is on the disk",
        _DESTINATION_DISK,
        SERVICE_RUNS,
        _in_destination(lambda host: host.with_instead(_decide_on_disk_only(REFUSED), _decide_on_disk_only(REFUSED))),
    ),
    Planted(
        "GO_SENT counts in memory",
        replace(_SOURCE_DISK, source_power_cuts=True),
        NEVER_TWO,
        _in_source(_anything_in_memory(GO_SENT, flush_decision_to_send_it)),
    ),
    Planted(
        "RUN is answered although it could not be written",
        replace(_DESTINATION_DISK, destination_power_cuts=True),
        ONE_HISTORY,
        _in_destination(_run_in_memory),
    ),
    Planted(
        "a RUN that cannot be flushed is taken for REFUSED",
        replace(_DESTINATION_DISK, destination_power_cuts=True, disks_are_mended=True),
        ONE_HISTORY,
        _in_destination(lambda host: host.with_instead(flush_decision, _unflushed_run_is_refused)),
    ),
    Planted(
        "a copy is started on a destination that has been rebooted since it refused in memory",
        replace(_DESTINATION_DISK, destination_power_cuts=True, disks_are_mended=True),
        NEVER_TWO,
        _in_destination(_restored_after_a_reboot),
    ),
    Planted(
        "the checkpoint stays where the disk takes no note that it is given up",
        replace(_SOURCE_DISK, engine="api", live_restore=False),
        ONE_HISTORY,
        _in_source(lambda host: host.with_instead(source.give_the_checkpoint_up, _checkpoint_stays)),
    ),
    Planted(
        "Docker notes that the copy runs when it does",
        _QUIET,
        MEMORY_KEPT,
        _in_destination(
            lambda host: host.with_instead(
                hosts.docker_notes_that_it_runs, _docker_notes_it_after_the_thaw
            ).with_instead(destination.see_that_docker_has_noted_it)
        ),
    ),
    Planted(
        "RUN does not wait for Docker's note",
        _QUIET,
        MEMORY_KEPT,
        _without(_in_destination, destination.see_that_docker_has_noted_it),
    ),
    Planted(
        "the shim lets Docker thaw a held copy",
        _PEOPLE,
        NEVER_TWO,
        _in_destination(lambda host: host._replace(events=(*host.events, _docker_unpause_copy))),
    ),
    Planted(
        "the shim starts a marked copy afresh",
        _PEOPLE,
        NEVER_TWO,
        _in_destination(lambda host: host.with_instead(hosts.docker_start_copy, _docker_start_copy_unrefused)),
    ),
)
