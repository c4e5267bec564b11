# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What is done with a container's connections, step by step: they are judged, fenced in, kept or closed, reported and
announced.

The parts know nothing of sessions: ``_network/fence.py`` (who may speak), ``_network/sockets.py`` (what is open),
``_preflight/rules/network.py`` (what a move would break), ``_network/announce.py`` (where an address is from now on). Here they
meet the steps of a migration. The plan is made while the container runs and noted in the journal with ``prepared``, so that
whoever settles a session after a crash lifts the same fence.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
import typing as t

from .._base.errors import MigrationError
from .._channel.client import Channel
from .._criu import options as criu_options
from .._criu import self_test_note
from .._docker import runc
from .._host.tasks import TaskGroup
from .._network import fence as network_fence
from .._network import sockets as network_sockets
from .._network.addresses import NO_ADDRESSES, Addresses
from .._network.announce import Announcer
from .._network.fence import Fence
from .._network.sockets import Address, Socket
from .._preflight.facts import network as facts_of_network
from .._preflight.finding import ERROR, RULES, WARNING, Case, findings, refuse
from .._preflight.rules import network as rules_network
from .._session.session import Session

Inspect = t.Mapping[str, t.Any]

# Seconds between two looks: a connection that is there in both is no request that comes and goes.
_LASTING_SECONDS = 2.0
# Seconds for programs to accept what is waiting, with new connections kept out. Nothing stands still meanwhile.
_DRAIN_SECONDS = 0.2
# The announcement is repeated, because nobody acknowledges one.
_REPEAT_SECONDS = 1.0


class Plan(t.NamedTuple):
    """What was decided about a container's network while it ran."""

    fence: Fence | None
    """None where its network namespace is not its own."""
    after: Addresses
    """Which addresses it keeps."""
    addresses: tuple[str, ...]
    """Its addresses on the source: CRIU makes sockets anew only where they exist."""
    skip_lock: bool
    """Whether CRIU can leave the locking of the network to the fence."""

    def as_data(self) -> dict[str, t.Any]:
        """For the journal."""
        return {
            "fence": self.fence._asdict() if self.fence else None,
            "after": self.after.as_data(),
            "addresses": list(self.addresses),
            "skip_lock": self.skip_lock,
        }

    @classmethod
    def of(cls, session: Session) -> Plan:
        """The plan that a session noted; one without a fence for a session that never came so far."""
        data = session.data("prepared")
        fence = data.get("fence")
        return cls(
            Fence(**fence) if fence else None,
            Addresses.parse(data.get("after", {})),
            tuple(data.get("addresses", ())),
            bool(data.get("skip_lock")),
        )


# -- on the source, while the container runs ----------------------------------------------------------------------


def make_plan(session: Session, inspect: Inspect, *, keeps: bool, close_connections: bool) -> tuple[Plan, list[str]]:
    """Judge what the move would break of the container's connections, and decide what is kept.

    :param keeps: whether this host's part of the engine can dump connections at all.
    :param close_connections: whether the user takes it that connections which cannot be kept are closed.
    :returns: the plan, and what a person should know.
    :raises MigrationError: ``cannot_move`` with all findings.
    """
    group = TaskGroup.of_container(inspect)
    init = int(inspect["State"]["Pid"])
    criu = {"criu": {"version": runc.criu_version()}, "self_test": self_test_note.read()}
    skip_lock = criu_options.can_skip_network_lock(criu)
    ignored = session.facts.get("ignore_rules", ())
    subject = f"Container {session.facts['container_name']}"
    strangers = []
    if network_fence.refusal(inspect) is None:
        strangers = network_fence.lasting_strangers(init, group.pids)
        # Closing it would cut them off, and they would go on in the namespace of a container that has left.
        shared = [RULES["network_strangers"]]
        refuse(subject, findings(Case(container={"strangers": strangers}), ignored, shared))
    why = network_fence.refusal(inspect, strangers)
    if why is not None:
        warning = (
            f"Its network is not closed while it stands still, because {why}: connections are closed, and what clients send in "
            "that time may be lost."
        )
        return Plan(None, NO_ADDRESSES, (), skip_lock), [warning]
    # What the copy, which is created and not started, has asked for.
    answer = Channel(session).call("addresses")
    after = Addresses.parse(answer)
    if not keeps or not answer["keeps"]:
        after = after._replace(reachable=frozenset())
    with contextlib.suppress(OSError):
        after = after.and_made_inside(facts_of_network.look(init, inspect)["addresses"])
    pids = [init, *group.pids()]
    sockets = network_sockets.look(pids)

    def view(connections: t.Sequence[Socket]) -> rules_network.View:
        return rules_network.View(sockets, tuple(connections), after, close_connections)

    connections: list[Socket] = []
    if rules_network.judge(view(sockets.connections), ERROR, ignored):
        # Perhaps over something that is just coming and going.
        time.sleep(_LASTING_SECONDS)
        before, sockets = sockets, network_sockets.look(pids)
        connections = network_sockets.lasting(before, sockets)
    refuse(subject, rules_network.judge(view(connections), ERROR, ignored))
    addresses = tuple(sorted(str(one) for one in sockets.own_addresses if not _is_local(one)))
    plan = Plan(Fence.of(init), after, addresses, skip_lock)
    judged = rules_network.judge(view(sockets.connections), WARNING, ignored)
    return plan, [f"{finding.message} {finding.remedy}" for finding in judged]


def _is_local(address: Address) -> bool:
    return address.is_loopback or address.is_link_local


# -- on the source, around the frozen time ------------------------------------------------------------------------


def keep_new_ones_out(plan: Plan) -> None:
    """Before the freeze: no new connections, and those that wait for a program are accepted by it. The rest goes on."""
    if plan.fence is not None:
        plan.fence.set(network_fence.NEW)
        network_sockets.drain(plan.fence.pid, _DRAIN_SECONDS)


def close(plan: Plan) -> None:
    """After the freeze: the kernel says nothing for the container any more."""
    if plan.fence is not None:
        plan.fence.set(network_fence.ALL)


def reopen(plan: Plan) -> None:
    """Before a thaw: a program must not meet a closed fence. May be repeated."""
    if plan.fence is not None:
        plan.fence.lift()


class Outlook(t.NamedTuple):
    """What becomes of the connections that a frozen container has."""

    kept: int
    """Those that go on."""
    closed: int
    """Those that are reset: the others, and those that no program has accepted."""

    @property
    def established(self) -> bool:
        """Whether CRIU has to dump connections. Where none goes on they are closed, which needs no network at all."""
        return self.kept > 0


def outlook(plan: Plan, pid: int) -> Outlook:
    """Look at the connections of a frozen container.

    :param pid: a process of it.
    """
    if plan.fence is None:
        return Outlook(0, 0)
    open_ones = [socket for socket in network_sockets.look_at_tcp(pid) if socket.is_connection]
    kept = sum(1 for socket in open_ones if plan.after.keep(socket))
    return Outlook(kept, len(open_ones) - kept + len(network_sockets.left_behind(pid)))


def tell_clients(plan: Plan) -> int:
    """After RUN, before the old copy is killed: reset what does not live on, behind a fence that stays closed.

    Without it their clients wait for answers that never come: what they sent was acknowledged.

    :returns: how many connections were reset.
    """
    if plan.fence is None or not plan.fence.exists:
        return 0
    if not plan.after.reachable:
        return plan.fence.reset()
    inet = network_sockets.look_at_tcp(plan.fence.pid)
    lost = [socket for socket in inet if socket.is_connection and not plan.after.keep(socket)]
    return plan.fence.reset([*lost, *network_sockets.left_behind(plan.fence.pid)])


def announce_again(plan: Plan) -> None:
    """After a thaw: a switch may have learned the place of the copy, whose engine announces the address by itself."""
    if plan.fence is not None and plan.after.reachable and plan.fence.exists:
        with contextlib.suppress(MigrationError), Announcer(plan.fence.pid) as announcer:
            announcer.send()


# -- on the destination -------------------------------------------------------------------------------------------


class Arrangement(t.NamedTuple):
    """What the destination has to know of the container's network before it makes its sockets anew."""

    fenced: bool
    """Whether the container's network is its own, so that it is closed until the decision."""
    established: bool
    """Whether the dump holds connections."""
    addresses: tuple[str, ...]
    """Those of the container on the source."""
    after: Addresses
    """Which of them it keeps."""

    @classmethod
    def of(cls, plan: Plan, *, established: bool) -> Arrangement:
        """What the source says."""
        return cls(plan.fence is not None, established, plan.addresses, plan.after)

    def as_data(self) -> dict[str, t.Any]:
        """As plain data, for the conversation between the hosts."""
        return {**self._asdict(), "addresses": list(self.addresses), "after": self.after.as_data()}

    @classmethod
    def parse(cls, data: t.Mapping[str, t.Any]) -> Arrangement:
        """Read what the other host has sent. It becomes arguments of commands, so it has to consist of addresses.

        :raises ValueError: for anything else.
        """
        return cls(
            bool(data["fenced"]),
            bool(data["established"]),
            tuple(str(ipaddress.ip_address(one)) for one in data["addresses"]),
            Addresses.parse(data["after"]),
        )

    def end_what_stays_behind(self, init: int) -> None:
        """Tell the programs of a held copy which of its connections are over. The source informs the other end, after RUN.

        :param init: a process of the copy.
        """
        if not self.fenced or not self.established:
            return
        inet = network_sockets.look_at_tcp(init)
        Fence.of(init).destroy([socket for socket in inet if socket.is_connection and not self.after.keep(socket)])


def announcer(session: Session, init: int) -> Announcer | None:
    """What a copy has to announce, ready to be sent; None where nobody looks for it at its old address, or it has no way to."""
    if Addresses.parse(session.data("created").get("addresses", {})).reachable:
        with contextlib.suppress(MigrationError):
            return Announcer(init)
    return None


def let_speak(init: int, ready: Announcer | None) -> None:
    """After RUN: tell where the copy is, and see to it that its fence is open, should it not have opened before."""
    if ready is not None:
        ready.send()
    with contextlib.suppress(MigrationError):
        Fence.of(init).lift()


def repeat(ready: Announcer | None) -> None:
    """Tell it once more some time after, and be done with it."""
    if ready is not None:
        with ready:
            time.sleep(_REPEAT_SECONDS)
            ready.send()
