# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The network fence: while a container stands still, its kernel does not speak for it.

The kernel of a frozen container still acknowledges data and accepts connections, on behalf of a copy that may never read
them. So its network namespace is closed in both directions, IPv4, IPv6 and ARP, by nftables tables that are made and taken
away in one transaction. Nothing is lost by that: what is not acknowledged is sent again, to whichever copy lives on.

A table needs no device, so it is there before Docker makes the interface (on the destination, from before CRIU connects
the sockets again: see ``livemigrate-network`` of the role ``checkpointing``), and it ends with its namespace. Loopback is
closed as well: CRIU puts the two ends of a connection back one after the other, and an end that speaks before the other
is there would be reset. Only CRIU's own packets pass, which carry a mark, and the announcement of an address by the engine
(in IPv6; that of IPv4 leaves through a packet socket, which no table sees).

The order, and why:

* source: ``NEW`` (a client's SYN is dropped, and sent again by its kernel), wait until the programs have accepted what was
  waiting and the clients have got what was said last (``network_sockets.drain``), freeze, ``ALL``, dump. If it were closed before
  the freeze, programs would see it: sendto(2) fails with EPERM where a packet is dropped on its way out. What comes in
  between the freeze and the close is acknowledged, but it is in the sockets' queues and travels.
* abort: lift, then thaw, for the same reason; then announce, because a switch may have learned the copy's place.
* the source after RUN, address kept: :meth:`Fence.reset` for the connections that CRIU leaves behind
  (``left_behind`` in ``_network/sockets.py``), then kill behind the closed fence; the namespace takes both with it.
* the source after RUN, address changed: :meth:`Fence.reset` for all, then kill; clients connect again at once.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._base.command import Runner, run
from .._base.errors import MigrationError
from .sockets import Socket

# One name for all sessions: a container is in one session at a time, and what an older one left behind is replaced.
TABLE = "livemigrate"

# No new connections to the container. Nothing in, nothing out. Out go only TCP resets.
NEW, ALL, RESET = "new", "all", "reset"

_LOOK_SECONDS = 0.1
# The connections that one call of ss(8) gets.
_AT_ONCE = 50

# soccr/soccr.h of CRIU: the packets by which it brings a connection into a closing state.
_CRIU_MARK = "0xc114"

# Before all that the container's own rules may do, connection tracking (-200) and defragmentation (-400) included.
_HOOK = "type filter hook {hook} priority -450; policy {policy};"

# Whatever lies there is removed. `destroy` would do the same with one command, but needs Linux 6.3 and nft 1.0.7.
LIFT = "".join(f"{verb} table {family} {TABLE}\n" for family in ("inet", "arp") for verb in ("add", "delete"))

_FROM_CRIU = f"meta mark {_CRIU_MARK} accept"
# Docker from 28 on announces the addresses of an interface that it makes, and fails where it may not: sendmsg(2) says EPERM.
# No answer to anybody: those do not go to all nodes.
_ANNOUNCEMENTS = "icmpv6 type nd-neighbor-advert ip6 daddr ff02::1 accept"
# A SYN alone: the acknowledgement that ends a handshake which has begun still passes. Loopback is the container itself.
_NO_NEW = 'iifname != "lo" tcp flags & (syn | ack) == syn drop'
# Neighbours have to be found for a reset to leave.
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
_RESETS = "tcp flags & rst == rst accept"

# Chains: family, hook, policy, statements.
_CHAINS: dict[str, tuple[tuple[str, str, str, tuple[str, ...]], ...]] = {
    NEW: (("inet", "prerouting", "accept", (_NO_NEW,)),),
    ALL: (
        ("inet", "prerouting", "drop", (_FROM_CRIU,)),
        ("inet", "output", "drop", (_FROM_CRIU, _ANNOUNCEMENTS)),
        ("arp", "input", "drop", ()),
        ("arp", "output", "drop", ()),
    ),
    RESET: (
        ("inet", "prerouting", "drop", (_NEIGHBOURS,)),
        ("inet", "output", "drop", (_RESETS, _NEIGHBOURS)),
    ),
}


def rules(level: str) -> str:
    """The text for ``nft -f`` that brings the fence to a level in one transaction, whatever it was before.

    :param level: :data:`NEW`, :data:`ALL` or :data:`RESET`.
    """
    lines = [LIFT]
    for family in ("inet", "arp"):
        chains = [chain for chain in _CHAINS[level] if chain[0] == family]
        if chains:
            lines.append(f"table {family} {TABLE} {{\n")
            for _family, hook, policy, statements in chains:
                body = "".join(f"    {statement}\n" for statement in statements)
                # The chain's name tells the level to whoever lists the tables, level() included.
                lines.append(f"  chain {level}_{hook} {{\n    {_HOOK.format(hook=hook, policy=policy)}\n{body}  }}\n")
            lines.append("}\n")
    return "".join(lines)


def refusal(inspect: t.Mapping[str, t.Any], strangers: t.Sequence[int] = ()) -> str | None:
    """Why a container's network cannot be closed without closing somebody else's; None where it can.

    :param inspect: the container's inspect data.
    :param strangers: processes in its network namespace that are not its own, see :func:`strangers`.
    """
    mode = str((inspect.get("HostConfig") or {}).get("NetworkMode") or "")
    if mode == "host":
        return "it uses its host's network"
    if mode.startswith("container:"):
        return "it uses the network of another container"
    if strangers:
        numbers = ", ".join(str(pid) for pid in strangers[:5])
        return f"its network namespace is shared with processes that are not its own ({numbers})"
    return None


def strangers(pid: int, own: t.Container[int]) -> list[int]:
    """The processes that are in a container's network namespace without being the container's.

    :param pid: a process of the container.
    :param own: all processes of it, as ``TaskGroup.pids`` gives them.
    """
    wanted, found = os.stat(f"/proc/{pid}/ns/net"), []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in own:
            # It may end while we look.
            with contextlib.suppress(OSError):
                other = os.stat(f"/proc/{name}/ns/net")
                if (other.st_dev, other.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(name))
    return sorted(found)


def lasting_strangers(pid: int, own: t.Callable[[], t.Container[int]], seconds: float = 1.0) -> list[int]:
    """Strangers that stay: not those of a health check or a tool that looks, nor a process that was made while we looked.

    :param own: tells all processes of the container as they are at that moment.
    :param seconds: for how long who is there is watched; not at all where nobody is.
    """
    deadline = time.monotonic() + seconds
    found = strangers(pid, own())
    while found and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        now = strangers(pid, own())
        found = [one for one in found if one in now]
    return found


class Fence(t.NamedTuple):
    """The fence around one network namespace. Plain data: it goes into the journal, so that it can be lifted after a crash."""

    pid: int
    """A process in the namespace, as this host numbers it."""
    namespace: str
    """Which namespace that is, as the kernel names it: ``net:[4026532281]``."""

    @classmethod
    def of(cls, pid: int) -> Fence:
        """The fence around the namespace of a process.

        :raises MigrationError: ``process_gone``; ``network_shared`` for the network of the host itself.
        """
        namespace = _namespace(pid)
        if namespace is None:
            raise MigrationError("process_gone", f"Process {pid} has ended.", pid=pid)
        if namespace in (_namespace(1), _namespace(os.getpid())):
            raise MigrationError(
                "network_shared", f"Process {pid} uses the network of the host; that is not closed.", pid=pid
            )
        return cls(pid, namespace)

    @property
    def exists(self) -> bool:
        """Whether the process is still there, and in that namespace; else there is nothing to lift."""
        return _namespace(self.pid) == self.namespace

    def set(self, level: str, runner: Runner = run) -> None:
        """Bring the fence to a level, at once and as a whole. May be repeated.

        :param level: :data:`NEW`, :data:`ALL` or :data:`RESET`.
        :raises MigrationError: ``fence_failed``; ``program_missing`` where nft or nsenter is not installed.
        """
        if not self.exists:
            # Its number may be another's by now, whose network is none of our business.
            raise MigrationError(
                "process_gone", f"Process {self.pid} has ended, or is in another network by now.", pid=self.pid
            )
        self._nft(rules(level), runner)

    def lift(self, runner: Runner = run) -> None:
        """Take the fence away. May be repeated; fine where the namespace is gone.

        :raises MigrationError: as :meth:`set`.
        """
        if self.exists:
            self._nft(LIFT, runner)

    def level(self, runner: Runner = run) -> str | None:
        """To which level the fence is closed; None where it is open.

        :raises MigrationError: ``fence_failed``.
        """
        done = runner([*self._enter(), "nft", "list", "chains", "inet"])
        if done.rc != 0:
            raise MigrationError("fence_failed", f"Cannot look at the container's fence: {done.output}", rc=done.rc)
        return level_of(done.stdout)

    def reset(self, connections: t.Sequence[Socket] | None = None, runner: Runner = run) -> int:
        """Reset TCP connections that do not live on, and let nothing out but these resets. The fence stays closed.

        Without it their clients wait for answers that never come: what they sent was acknowledged. Only after RUN.

        :param connections: those to reset: what ``sockets.left_behind`` saw after the close, where the address is kept.
            All where it is not.
        :returns: how many were reset; 0 where the kernel cannot do that (no CONFIG_INET_DIAG_DESTROY).
        :raises MigrationError: as :meth:`set`.
        """
        if connections is not None and not connections:
            # It may have been left open for resets by one who was cut off.
            self.set(ALL, runner)
            return 0
        self.set(RESET, runner)
        try:
            return self.destroy(connections, runner)
        finally:
            # A task that is killed with unread data in a socket makes its kernel send a reset, for a connection that lives on.
            self.set(ALL, runner)

    def destroy(self, connections: t.Sequence[Socket] | None = None, runner: Runner = run) -> int:
        """End TCP connections on this side; whether the other end hears of it is for the fence to say.

        :param connections: as for :meth:`reset`.
        :returns: how many were ended.
        """
        if connections is not None and not connections:
            return 0
        argv = [*self._enter(), "ss", "-K", "-t", "-H", "-n", "state", "connected"]
        if connections is None:
            chosen: list[list[str]] = [[]]
        else:
            # An argument has a length at most, and so has the kernel's filter.
            parts = (connections[start : start + _AT_ONCE] for start in range(0, len(connections), _AT_ONCE))
            chosen = [[" or ".join(map(_filter, part))] for part in parts]
        ended = 0
        for command in chosen:
            done = runner([*argv, *command])
            ended += len(done.stdout.splitlines()) if done.rc == 0 else 0
        return ended

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def _nft(self, text: str, runner: Runner) -> None:
        done = runner([*self._enter(), "nft", "-f", "-"], text=text)
        if done.rc != 0:
            raise MigrationError(
                "fence_failed",
                f"Cannot change who may speak for the container on the network: {done.output}",
                rc=done.rc,
            )


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def _filter(connection: Socket) -> str:
    """An expression of ss(8) for one connection."""
    peer = str(connection.peer)
    # A socket of IPv6 that speaks IPv4 is listed under the mapped address.
    peers = f"dst [{peer}]" if connection.peer.version == 6 else f"( dst {peer} or dst [::ffff:{peer}] )"
    return f"( sport = {connection.port} and dport = {connection.peer_port} and {peers} )"


def level_of(listing: str) -> str | None:
    """The level of a fence, from what ``nft list chains inet`` says; None for no fence."""
    table = ""
    for line in listing.splitlines():
        fields = line.split()
        if fields[:1] == ["table"]:
            table = fields[2]
        elif fields[:1] == ["chain"] and table == TABLE:
            return fields[1].partition("_")[0]
    return None
