# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the model knows of the two hosts: a state is a value, and every fault, person and step makes another value of it.

Only what decides something is kept. Time is not: a lease may be over at any moment, and a message may arrive at any moment after
it was sent, any number of times, or never. That is more than the network can do, so that nothing is hidden by it. Nor is whether
dockerd is up: it may fail to answer at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE

# A host: at work; without power, and booting some day; or lost with its disk.
UP, DOWN, GONE = "up", "down", "gone"

# The container on the source, and its copy on the destination.
RUNS = "runs"
# Ended for good; ended with the host or with dockerd, which goes by the restart policy when it comes back.
ENDED, CUT = "ended", "cut"
# On the source: frozen; frozen, dumped, and a SIGSTOP queued for each task; thawed by somebody, and stopped by that SIGSTOP.
FROZEN, HELD, STOPPED = "frozen", "held", "stopped"
# On the destination, which has HELD as well (restored, and no task has run): not there; created; being restored by CRIU.
NONE, CREATED, RESTORING = "none", "created", "restoring"

# A restart policy: what the user has given the container, or "no".
OWN, NO = "own", "no"
# The name of the container on the source: its own, or NAME-moved-SESSION.
MOVED = "moved"
# The mark of a copy that must not be started afresh, and the tombstone that lets its tasks go.
MARKED, CONSUMED = "marked", "consumed"


class At(NamedTuple):
    """Who holds the session's lock on a host stands before this step of this program."""

    program: str
    step: int


class Source(NamedTuple):
    """The source host and its half of the session."""

    power: str = UP
    #: as the journal on its disk has it
    phase: str = "opened"
    decision: str | None = None
    #: whether a power cut leaves the decision there: link() shows it to every process before it is on the disk, and it may be
    #: noted in memory only
    decision_on_disk: bool = True
    #: whether the disk of the session takes changes
    writable: bool = True
    container: str = RUNS
    #: whether the host has not been rebooted since the phase "arming", until the session is settled
    this_boot: bool = True
    policy: str = OWN
    policy_on_disk: str = OWN
    name: str = OWN
    #: whether it has run an instruction that its checkpoint does not know of
    ran_since_dump: bool = False
    #: whether a note says which tasks the dump has stopped
    stops_noted: bool = False
    #: whether the disk has a checkpoint from which a container that has ended is brought back (engine "api")
    checkpoint: bool = False
    #: whether it was brought back from a checkpoint that does not know all that it has run
    rolled_back: bool = False
    #: whether the watchdog looks after this session
    watched: bool = True
    #: whether dockerd takes calls and answers none about the container, for good
    hangs: bool = False
    at: At | None = None

    @property
    def role(self) -> str:
        return SOURCE


class Destination(NamedTuple):
    """The destination host and its half of the session."""

    power: str = UP
    phase: str = "opened"
    decision: str | None = None
    decision_on_disk: bool = True
    writable: bool = True
    copy: str = NONE
    mark: str = NONE
    #: whether Docker is still in its `docker start` of the copy
    start_pending: bool = False
    #: whether Docker has noted that the copy runs
    known: bool = False
    #: whether a copy that ran has been ended, or cut off from its network, by a Docker that did not know that it ran
    lost: bool = False
    #: whether dockerd takes calls and answers none, for good
    hangs: bool = False
    #: whether the host has not been rebooted before a copy was held, until the session is settled
    this_boot: bool = True
    policy: str = NO
    #: whether Docker answers for the copy from now on, by its own restart policy
    handed_to_docker: bool = False
    #: whether the files that came by rsync are on the disk
    files_on_disk: bool = False
    #: whether the copy has run an instruction
    has_run: bool = False
    watched: bool = True
    at: At | None = None

    @property
    def role(self) -> str:
        return DESTINATION


class Wire(NamedTuple):
    """What is between the hosts."""

    #: every message that was ever sent
    sent: frozenset[str] = frozenset()
    #: whether the destination lets the session's key in
    key: bool = True

    def sending(self, *messages: str) -> Wire:
        return self._replace(sent=self.sent.union(messages))


class State(NamedTuple):
    """All of it."""

    source: Source = Source()
    destination: Destination = Destination()
    wire: Wire = Wire()


@dataclass(frozen=True)
class Setting:
    """What may happen in a run of the explorer besides kills: each makes more states."""

    engine: str = "runtime"
    source_power_cuts: bool = True
    destination_power_cuts: bool = True
    #: dockerd leaves its containers alone when it ends
    live_restore: bool = True
    #: dockerd on the source may hang, and nobody does anything about it
    dockerd_hangs: bool = False
    #: the same on the destination, with the engine "runtime"
    destination_dockerd_hangs: bool = False
    #: somebody uses docker on either container
    people: bool = False
    #: something on the source starts the container by its name as soon as it has ended (a systemd unit, cron, autoheal)
    supervisor: bool = False
    #: the key is taken out of authorized_keys, or its day is over
    key_loss: bool = False
    #: the destination may be lost for good
    destination_dies: bool = False
    #: the disk of the session may take no change any more: it is read-only, full or broken
    source_disk_fails: bool = False
    destination_disk_fails: bool = False
    #: such a disk may take changes again
    disks_are_mended: bool = False
    #: recover.yml is run, for both hosts, and with recover_destination_lost
    operator: bool = False
