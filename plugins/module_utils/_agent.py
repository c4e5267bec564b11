# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The program that acts for a session when no Ansible task does: ``settle`` (watchdog, boot) and ``serve`` (channel).

It is a zip application in the session's directory, see ``_agent_package.py``. Exit codes: 0 done or nothing to do, 75 to be
tried again (systemd does), anything else a failure that the journal of systemd tells.
"""

from __future__ import annotations

import sys
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _channel_server, _destination, _source
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import SOURCE, Session

TRY_AGAIN = 75


def settle(session: Session) -> int:
    """Settle a session that shows no sign of life any more."""
    if session.ended or session.lease_left > 0:
        return 0
    try:
        # Two steps never work on a session at once; a live one renews the lease while it holds the lock.
        with session.locked(timeout=1):
            side = _source if session.role == SOURCE else _destination
            outcome = side.settle(session, Engine())
    except MigrationError as exc:
        print(f"session {session.id} cannot be settled yet: {exc.message}", file=sys.stderr)
        return TRY_AGAIN
    print(f"session {session.id} settled: {outcome}")
    return 0


def serve(session: Session, command: str) -> int:
    """Answer one call through the channel."""
    words: t.Dict[str, t.Callable[[], t.Dict[str, t.Any]]] = {
        "ping": lambda: {"host": _source.host_identity()},
        "image-load": lambda: _destination.load_image(session, Engine(), sys.stdin.buffer),
        "verdict": lambda: _destination.verdict(session, Engine()),
        "bye": lambda: _destination.bye(session, Engine()),
    }
    return _channel_server.serve(session, command, words)


def main(argv: t.Optional[t.Sequence[str]] = None) -> int:
    """``settle SESSION`` or ``serve SESSION COMMAND``."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if len(words) == 2 and words[0] == "settle":
            try:
                session = Session(words[1])
            except MigrationError as exc:
                # Closed and gone while systemd still had the start in its queue.
                print(exc.message, file=sys.stderr)
                return 0
            return settle(session)
        if len(words) == 3 and words[0] == "serve":
            return serve(Session(words[1]), words[2])
    except MigrationError as exc:
        print(exc.message, file=sys.stderr)
        return 1
    print("usage: agent settle SESSION | serve SESSION COMMAND", file=sys.stderr)
    return 2
