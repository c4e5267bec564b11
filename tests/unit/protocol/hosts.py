# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens to the two hosts: power, the Docker Engine, CRIU, the shim, and people."""

from __future__ import annotations

from typing import Any

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import ABORT
from tests.unit.protocol.destination import RUNNING, destination
from tests.unit.protocol.source import SETTLED, running, source
from tests.unit.protocol.states import (
    CONSUMED,
    CREATED,
    CUT,
    DOWN,
    ENDED,
    FROZEN,
    GONE,
    HELD,
    NONE,
    OWN,
    RESTORING,
    RUNS,
    STOPPED,
    UP,
    Destination,
    Setting,
    Source,
)
from tests.unit.protocol.transitions import FAULT, OPERATOR, PERSON, STEP, Here, HostModel, Outcome, Step, event

Outcomes = list[Outcome]

# -- both --------------------------------------------------------------------------------------------------------------


@event(FAULT)
def whoever_holds_the_lock_is_killed(here: Here[Source]) -> Outcomes:
    return [here.happens(at=None)] if here.me.power == UP and here.me.at is not None else []


def _without_power(here: Here[Source] | Here[Destination], **changes: Any) -> Outcomes:
    """Whatever is not on the disk may be lost, and may be not."""
    common = {"power": DOWN, "at": None, "decision_on_disk": True, **changes}
    lost = [] if here.me.decision_on_disk else [here.happens("a decision is lost", **common, decision=None)]
    return [here.happens(**common), *lost]


def _disk_fails(here: Here[Source] | Here[Destination], *, may: bool) -> Outcomes:
    return [here.happens(writable=False)] if may and here.me.power == UP and here.me.writable else []


@event(FAULT)
def the_disk_takes_no_change_any_more_source(here: Here[Source]) -> Outcomes:
    """It is remounted read-only, it is full, or every flush fails. Docker's own disk is another one."""
    return _disk_fails(here, may=here.setting.source_disk_fails)


@event(FAULT)
def the_disk_takes_no_change_any_more_destination(here: Here[Destination]) -> Outcomes:
    return _disk_fails(here, may=here.setting.destination_disk_fails)


@event(OPERATOR)
def the_disk_can_be_written_again(here: Here[Source]) -> Outcomes:
    may = here.setting.disks_are_mended and here.me.power == UP and not here.me.writable
    return [here.happens(writable=True)] if may else []


# -- the source --------------------------------------------------------------------------------------------------------


@event(FAULT)
def power_cut_source(here: Here[Source]) -> Outcomes:
    if here.me.power != UP or not here.setting.source_power_cuts:
        return []
    container = here.me.container if here.me.container == ENDED else CUT
    matters = here.me.phase not in ("opened", "prepared", *SETTLED)
    return _without_power(here, container=container, policy=here.me.policy_on_disk, this_boot=not matters)


@event(STEP)
def boot_source(here: Here[Source]) -> Outcomes:
    return [here.happens(power=UP)] if here.me.power == DOWN else []


@event(FAULT)
def dockerd_ends_source(here: Here[Source]) -> Outcomes:
    """Without live-restore it lets a paused container go on, and kills it."""
    if here.me.power != UP or here.setting.live_restore or here.me.container in (ENDED, CUT):
        return []
    return [here.happens(container=CUT)]


@event(STEP)
def dockerd_starts_source(here: Here[Source]) -> Outcomes:
    """After a boot or by itself: it goes by the restart policy."""
    if here.me.power != UP or here.me.container != CUT:
        return []
    return [here.happens(**(running(here.me) if here.me.policy == OWN else {"container": ENDED}))]


@event(FAULT)
def dockerd_hangs_source(here: Here[Source]) -> Outcomes:
    """By SIGSTOP, or because of a lock that somebody in it holds."""
    return [here.happens(hangs=True)] if here.setting.dockerd_hangs and not here.me.hangs else []


@event(STEP)
def dockerd_that_hangs_is_restarted_source(here: Here[Source]) -> Outcomes:
    """Where that ends its containers, it is what an operator does. Else the service must go on without it."""
    if here.me.power != UP or here.setting.live_restore or not here.me.hangs:
        return []
    container = here.me.container if here.me.container in (ENDED, CUT) else CUT
    return [here.happens(hangs=False, container=container)]


@event(STEP)
def the_kernel_writes_the_policy_to_the_disk(here: Here[Source]) -> Outcomes:
    if here.me.power != UP or here.me.policy == here.me.policy_on_disk:
        return []
    return [here.happens(policy_on_disk=here.me.policy)]


@event(PERSON)
def docker_unpause(here: Here[Source]) -> Outcomes:
    if not (here.setting.people):
        return []
    if here.me.container == FROZEN:
        return [here.happens(**running(here.me))]
    return [here.happens(container=STOPPED)] if here.me.container == HELD else []


@event(PERSON)
def docker_stop(here: Here[Source]) -> Outcomes:
    """Of the frozen one. Who stops it when all is settled wants it to stand."""
    frozen = here.me.container in (FROZEN, HELD, STOPPED)
    return [here.happens(container=ENDED)] if here.setting.people and frozen else []


@event(PERSON)
def docker_start(here: Here[Source]) -> Outcomes:
    """As long as the source is its own master: nothing on this host could keep a person from it later.

    Who has just stopped it takes longer for that than the source from its look to its decision.
    """
    may = here.setting.people and here.me.decision in (None, ABORT) and not _at_work(here.me, "go")
    return [here.happens(**running(here.me))] if may and here.me.container == ENDED else []


@event(PERSON)
def docker_update_restart(here: Here[Source]) -> Outcomes:
    """Not between two steps of a commit, which takes milliseconds. And where the source is rebooted after that, undecided, its
    dockerd does what it was told to: nothing could keep it from that.
    """
    frozen = here.me.container in (FROZEN, HELD, STOPPED)
    may = here.setting.supervisor and frozen and not _at_work(here.me, "commit")
    return [here.happens(policy=OWN, policy_on_disk=OWN)] if may and here.me.policy != OWN else []


def _at_work(me: Source | Destination, program: str) -> bool:
    return me.at is not None and me.at.program == program


@event(STEP)
def a_supervisor_starts_it_by_its_name(here: Here[Source]) -> Outcomes:
    """At once, and again and again. After a boot of the host nothing of ours could keep it from that."""
    may = here.setting.supervisor and here.me.this_boot
    return [here.happens(**running(here.me))] if may and here.me.container == ENDED and here.me.name == OWN else []


# -- the destination ---------------------------------------------------------------------------------------------------


@event(FAULT)
def power_cut_destination(here: Here[Destination]) -> Outcomes:
    if here.me.power != UP or not here.setting.destination_power_cuts:
        return []
    copy = CUT if here.me.copy in (RESTORING, HELD, RUNS) else here.me.copy
    # One that has been restored is not restored once more; with the engine "api" one that runs is looked at again.
    # And a REFUSED that is on the disk is not lost.
    tracked = here.setting.engine == "api" or here.setting.destination_disk_fails
    matters = tracked and here.me.phase in ("opened", "creating", "created", "starting")
    this_boot = here.me.this_boot and not matters
    return _without_power(here, copy=copy, start_pending=False, known=False, this_boot=this_boot)


@event(STEP)
def boot_destination(here: Here[Destination]) -> Outcomes:
    return [here.happens(power=UP)] if here.me.power == DOWN else []


@event(FAULT)
def the_destination_is_lost_with_its_disk(here: Here[Destination]) -> Outcomes:
    if not here.setting.destination_dies or here.me.power == GONE:
        return []
    return [here.happens(power=GONE, at=None, copy=NONE, start_pending=False, known=False)]


@event(FAULT)
def dockerd_ends_destination(here: Here[Destination]) -> Outcomes:
    """A `docker start` that it is in dies with it, and the copy where live-restore is off. The next one goes by what is noted."""
    if here.me.power != UP or here.me.copy not in (RESTORING, HELD, RUNS):
        return []
    dies = [here.happens(start_pending=False, known=False, copy=CUT)]
    if not here.setting.live_restore:
        return dies
    if here.me.copy == RUNS and not here.me.known:
        return [here.happens("its network goes as that of a stale sandbox", start_pending=False, lost=True)]
    survives = [here.happens(start_pending=False)] if here.me.start_pending else []
    return survives + (dies if here.me.copy == RESTORING else [])


@event(STEP)
def dockerd_starts_destination(here: Here[Destination]) -> Outcomes:
    """After a boot or by itself: it goes by the restart policy."""
    if here.me.power != UP or here.me.copy != CUT:
        return []
    restarts = here.me.policy == OWN and shim_lets_start(here)
    return [here.happens(**(RUNNING if restarts else {"copy": ENDED}))]


def shim_lets_start(here: Here[Destination]) -> bool:
    """Whether a start by anybody else than a session is one: the shim refuses a marked copy without a tombstone."""
    return here.setting.engine == "api" or here.me.mark == CONSUMED


@event(STEP)
def criu_is_done(here: Here[Destination]) -> Outcomes:
    if here.me.copy != RESTORING:
        return []
    restored = RUNNING if here.setting.engine == "api" else {"copy": HELD}
    return [here.happens(**restored), here.happens("fails", copy=ENDED, start_pending=False)]


@event(STEP)
def docker_notes_that_it_runs(here: Here[Destination]) -> Outcomes:
    """The shim's `start` leaves the copy held, so that this comes before anything of it runs."""
    noted = here.me.copy == HELD and here.me.start_pending and not here.me.hangs
    return [here.happens(known=True, start_pending=False)] if noted else []


@event(FAULT)
def dockerd_hangs_destination(here: Here[Destination]) -> Outcomes:
    may = here.setting.destination_dockerd_hangs and here.me.power == UP and not here.me.hangs
    return [here.happens(hangs=True)] if may else []


@event(FAULT)
def the_shim_is_killed(here: Here[Destination]) -> Outcomes:
    """In a `docker start`, which fails: dockerd ends what it has begun."""
    if not (here.me.start_pending and here.me.copy in (HELD, RUNS)):
        return []
    return [here.happens(copy=ENDED, start_pending=False, lost=here.me.copy == RUNS)]


@event(FAULT)
def the_key_is_lost(here: Here[Destination]) -> Outcomes:
    """Its day is over, or somebody has taken it out of authorized_keys."""
    if not (here.setting.key_loss and here.wire.key):
        return []
    return [Outcome(here.me, here.wire._replace(key=False))]


@event(PERSON)
def docker_kill_copy(here: Here[Destination]) -> Outcomes:
    """Of the held one. Who stops one that runs wants it to stand."""
    may = here.setting.people and here.me.decision is None and not _at_work(here.me, "run")
    return (
        [here.happens(copy=ENDED, start_pending=False, known=False)]
        if may and here.me.copy in (RESTORING, HELD)
        else []
    )


@event(PERSON)
def docker_start_copy(here: Here[Destination]) -> Outcomes:
    may = here.setting.people and here.setting.engine == "runtime" and shim_lets_start(here)
    return [here.happens(**RUNNING)] if may and here.me.copy in (CREATED, ENDED) else []


SOURCE_EVENTS: tuple[Step, ...] = (
    whoever_holds_the_lock_is_killed,
    the_disk_takes_no_change_any_more_source,
    the_disk_can_be_written_again,
    power_cut_source,
    boot_source,
    dockerd_ends_source,
    dockerd_starts_source,
    dockerd_hangs_source,
    dockerd_that_hangs_is_restarted_source,
    the_kernel_writes_the_policy_to_the_disk,
    docker_unpause,
    docker_stop,
    docker_start,
    docker_update_restart,
    a_supervisor_starts_it_by_its_name,
)
DESTINATION_EVENTS: tuple[Step, ...] = (
    whoever_holds_the_lock_is_killed,
    the_disk_takes_no_change_any_more_destination,
    the_disk_can_be_written_again,
    power_cut_destination,
    boot_destination,
    the_destination_is_lost_with_its_disk,
    dockerd_ends_destination,
    dockerd_starts_destination,
    criu_is_done,
    docker_notes_that_it_runs,
    dockerd_hangs_destination,
    the_shim_is_killed,
    the_key_is_lost,
    docker_kill_copy,
    docker_start_copy,
)


def hosts(setting: Setting) -> tuple[HostModel, HostModel]:
    """The source and the destination, with all that happens to them."""
    return (
        source(setting.engine)._replace(events=SOURCE_EVENTS),
        destination(setting.engine)._replace(events=DESTINATION_EVENTS),
    )
