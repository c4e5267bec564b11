# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the protocol promises, as something that can be asked of every state."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import REFUSED, RUN
from tests.unit.protocol.states import ENDED, GONE, NO, OWN, RUNS, UP, Setting, State
from tests.unit.protocol.transitions import OPERATOR, STEP

NEVER_TWO = "never two copies run"
ONE_HISTORY = "nothing that has run is undone"
FILES_DURABLE = "files are on the destination's disk before RUN"
MEMORY_KEPT = "memory is lost only where that is declared"
AS_BEFORE = "a container that stays is as it was"
OLD_COPY_DOWN = "dockerd never starts the old copy"
SERVICE_RUNS = "the service runs in the end"
CLOSED = "every session is closed in the end, and the service runs"


class Invariant(NamedTuple):
    """What holds in every state."""

    promise: str
    holds: Callable[[State, Setting], bool]


class Goal(NamedTuple):
    """What can be reached from every state by moves of these kinds: no fault, and nobody's hand."""

    promise: str
    is_met: Callable[[State, Setting], bool]
    kinds: frozenset[str] = frozenset({STEP})


def _original_runs(state: State) -> bool:
    return state.source.power == UP and state.source.container == RUNS


def _copy_runs(state: State) -> bool:
    return state.destination.power == UP and state.destination.copy == RUNS


def _never_two(state: State, _setting: Setting) -> bool:
    return not (_original_runs(state) and _copy_runs(state))


def _one_history(state: State, setting: Setting) -> bool:
    """What has run after the dump on one host is acknowledged there, and is never gone because the other has run as well."""
    there = state.destination
    if state.source.rolled_back and not (setting.people or setting.supervisor):
        return False
    if there.power == GONE:
        # Declared lost by a person, with all that it had done.
        return True
    undecided = there.decision is None
    refused = there.decision == REFUSED or (undecided and (not there.this_boot or there.phase in ("refused", "closed")))
    if setting.engine == "api" and refused:
        # What this engine cannot promise: its copy runs before it is proved (docs/decisions/0007).
        return True
    return not (state.source.ran_since_dump and there.has_run)


def _files_durable(state: State, _setting: Setting) -> bool:
    return state.destination.decision != RUN or state.destination.files_on_disk


def _memory_kept(state: State, setting: Setting) -> bool:
    """Until RUN the source's memory is the only one that counts.

    A power cut takes it, a dockerd without live-restore, and a person: nothing else does. After RUN the same is true of the copy.
    """
    if state.destination.lost:
        return False
    declared = setting.people or not setting.live_restore or not state.source.this_boot
    return declared or state.destination.decision == RUN or state.source.container != ENDED


def _as_before(state: State, setting: Setting) -> bool:
    """A source that was given its container back has it as it was: its name, its restart policy, also after a reboot."""
    here = state.source
    if here.phase != "aborted" or setting.people or setting.supervisor:
        return True
    return (here.name, here.policy, here.policy_on_disk) == (OWN, OWN, OWN)


def _old_copy_stays_down(state: State, _setting: Setting) -> bool:
    """No dockerd that starts, after whatever, starts the old copy beside the new one."""
    here = state.source
    return here.phase != "committed" or (here.policy, here.policy_on_disk) == (NO, NO)


INVARIANTS = (
    Invariant(NEVER_TWO, _never_two),
    Invariant(ONE_HISTORY, _one_history),
    Invariant(FILES_DURABLE, _files_durable),
    Invariant(MEMORY_KEPT, _memory_kept),
    Invariant(AS_BEFORE, _as_before),
    Invariant(OLD_COPY_DOWN, _old_copy_stays_down),
)


def _service_runs(state: State, _setting: Setting) -> bool:
    """On exactly one host. One that has moved to a host which is lost has gone with it."""
    there = state.destination
    moved = there.power == GONE and state.source.phase in ("committed", "closed")
    # A RUN that may be on a disk that takes no change may neither be given out nor taken back: it is not known what a power cut
    # would leave. Who has flushed it goes on without the disk; who comes after him cannot know that he has.
    waits = there.decision == RUN and not there.writable
    return _original_runs(state) != _copy_runs(state) or moved or waits


def _all_closed(state: State, setting: Setting) -> bool:
    there = state.destination
    closed = there.power == GONE or (there.phase == "closed" and not there.watched)
    here = state.source
    return closed and here.phase == "closed" and not here.watched and _service_runs(state, setting)


# Each contains the one before it.
GOALS = (
    Goal(SERVICE_RUNS, _service_runs),
    Goal(CLOSED, _all_closed),
)
# Where the destination is lost for good, or the key is, an operator runs recover.yml.
GOALS_WITH_OPERATOR = tuple(goal._replace(kinds=frozenset({STEP, OPERATOR})) for goal in GOALS)


def goals(setting: Setting) -> tuple[Goal, ...]:
    """What must be reachable in a setting."""
    if setting.dockerd_hangs:
        # What is left to do of a session needs it.
        return GOALS_WITH_OPERATOR[:1] if setting.operator else GOALS[:1]
    if setting.source_disk_fails or setting.destination_disk_fails:
        # What is left to do of a session is noted on that disk. The service need not wait for it.
        return GOALS_WITH_OPERATOR if setting.disks_are_mended else GOALS[:1]
    return GOALS_WITH_OPERATOR if setting.operator else GOALS
