# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether a destination that a person has declared lost may be treated as lost.

It may only when no connection to it can be made. A destination that refuses the key, whose agent cannot start or whose sshd is
down is alive: it may have decided RUN, and then the copy runs there. So is one whose firewall turns the connection away.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._session.session import Session

# Seconds for one address, as ssh takes (ConnectTimeout).
_CONNECT_SECONDS = 10.0

# Of ip(7) and ipv6(7), for which Python has no names: the level and the option that a socket tells who caused its errors, and
# where the address lies in the sockaddr that says who.
_ORIGINS = {
    socket.AF_INET: (socket.IPPROTO_IP, 11, slice(4, 8)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25, slice(8, 24)),
}
# struct sock_extended_err, which the sockaddr follows: the error, its origin, type, code, and two numbers.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
# Where an error came in a packet, and not from this host's own kernel: SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6.
_BY_PACKET = (2, 3)

_Connect = t.Callable[[t.Any, float], None]


class TurnedAwayError(OSError):
    """The machine itself has refused the connection."""


def _turned_away(probe: socket.socket, address: str) -> bool:
    """Whether an error of a socket came from the machine that it was to be connected to.

    A program gets the same error when a router cannot find the machine, or when nobody in the own network answers for its
    address. The kernel notes who has sent the error: a packet names its sender.
    """
    level, option, place = _ORIGINS[probe.family]
    wanted = ipaddress.ip_address(address.partition("%")[0])
    # What there is has come: an empty queue is not waited for.
    probe.setblocking(False)
    while True:
        try:
            _data, notes, _flags, _destination = probe.recvmsg(512, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return False
        for found, kind, data in notes:
            if (found, kind) == (level, option) and len(data) > _EXTENDED_ERROR.size:
                _number, origin, *_rest = _EXTENDED_ERROR.unpack_from(data)
                sender = data[_EXTENDED_ERROR.size :][place]
                if origin in _BY_PACKET and sender == wanted.packed:
                    return True


def _connect(found: t.Any, timeout: float) -> None:
    """Connect to a place of getaddrinfo(3).

    :raises TurnedAwayError: where a firewall of the machine itself does not let us in.
    :raises OSError: where nobody is there.
    """
    family, kind, protocol, _name, place = found
    with socket.socket(family, kind, protocol) as probe:
        level, option, _slice = _ORIGINS[family]
        probe.setsockopt(level, option, 1)
        probe.settimeout(timeout)
        try:
            probe.connect(place)
        except OSError as exc:
            if _turned_away(probe, place[0]):
                raise TurnedAwayError(exc.errno, exc.strerror) from None
            raise


def sign_of_life(addresses: t.Iterable[str], port: int, connect: _Connect = _connect) -> tuple[str, str]:
    """Find out whether a machine at one of some addresses shows that it is alive.

    ssh reports only the last address when a name has several, and does not report who refused a connection.

    :param addresses: names, or addresses.
    :returns: the address, as numbers, and what the machine does; both empty where nothing can be reached anywhere.
    """
    places: dict[t.Any, t.Any] = {}
    for address in addresses:
        try:
            for found in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
                places.setdefault(found[4], found)
        except (OSError, UnicodeError):
            continue
    for place, found in places.items():
        try:
            connect(found, _CONNECT_SECONDS)
        except (ConnectionRefusedError, TurnedAwayError):
            return place[0], f"refuses connections to port {port}"
        except OSError:
            continue
        return place[0], f"accepts connections to port {port}"
    return "", ""


def require(session: Session, failure: MigrationError) -> None:
    """Make sure that a destination which did not tell its decision cannot be reached at all.

    :param failure: the error with which the request for its decision ended.
    :raises MigrationError: ``destination_not_lost`` where it is alive, or may be.
    """
    peer = durable.read_json(session.path("peer.json")) or {}
    address = str(peer.get("address") or "")
    cause = failure.message
    if failure.code == "destination_unreachable" and not failure.details.get("connected", True):
        # The name may lead to nowhere by now, or to another machine: the addresses are those that it had when the move began.
        address, alive = sign_of_life([address, *peer.get("addresses", [])], int(peer["port"]))
        if not alive:
            return
        cause = f"A machine at {address} {alive}."
    raise MigrationError(
        "destination_not_lost",
        f"Session {session.id} stays frozen here, although its destination was declared lost: a destination counts as lost only "
        f"when no connection to it can be made. {cause} Run recover.yml for both hosts: it carries the destination's decision to "
        f"this one. If another machine has that address by now, first cut this host off from it (ip route add unreachable "
        f"{address or 'ADDRESS'}), then declare it lost again.",
        session=session.id,
        cause=failure.code,
    )
