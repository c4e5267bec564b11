# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether a destination that a person has declared lost may be taken for that.

Only one to which no connection can be made. A destination that refuses the key, whose agent cannot start or whose sshd is down
is alive: it may have said RUN, and then the copy runs there.
"""

from __future__ import annotations

import socket
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _durable
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import Session

# Seconds for one address, as ssh takes (ConnectTimeout).
_CONNECT_SECONDS = 10.0

_Connect = t.Callable[[t.Any, float], None]


def _connect(found: t.Any, timeout: float) -> None:
    family, kind, protocol, _name, address = found
    with socket.socket(family, kind, protocol) as probe:
        probe.settimeout(timeout)
        probe.connect(address)


def sign_of_life(address: str, port: int, connect: _Connect = _connect) -> str:
    """What a machine at an address does that shows that it is alive; empty where nothing can be reached there.

    ssh tells of the last address alone when a name has several, and does not tell who it was that refused a connection.
    """
    try:
        places = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except OSError:
        return ""
    for found in places:
        try:
            connect(found, _CONNECT_SECONDS)
        except ConnectionRefusedError:
            return f"refuses connections to port {port}"
        except OSError:
            continue
        return f"accepts connections to port {port}"
    return ""


def require(session: Session, failure: MigrationError) -> None:
    """Make sure that a destination which did not say its word cannot be reached at all.

    :param failure: what asking for its word has ended with.
    :raises MigrationError: ``destination_not_lost`` where it is alive, or may be.
    """
    peer = _durable.read_json(session.path("peer.json")) or {}
    address = str(peer.get("address") or "")
    cause = failure.message
    if failure.code == "destination_unreachable" and not failure.details.get("connected", True):
        alive = sign_of_life(address, int(peer["port"]))
        if not alive:
            return
        cause = f"A machine at {address} {alive}."
    raise MigrationError(
        "destination_not_lost",
        f"Session {session.id} stays frozen here, although its destination was declared lost: a destination counts as lost only "
        f"when no connection to it can be made. {cause} Run recover.yml for both hosts: it carries the destination's word to "
        f"this one. If another machine has that address by now, first cut this host off from it (ip route add unreachable "
        f"{address or 'ADDRESS'}), then declare it lost again.",
        session=session.id,
        cause=failure.code,
    )
