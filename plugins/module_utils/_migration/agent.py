# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The program that acts for a session: ``settle`` (watchdog), ``serve`` (channel), ``start``; ``open``, ``step`` and ``recover``
for modules.

It is a zip application in the session's directory, see ``_session/agent_package.py``. Its exit code is 0 when it is done or has
nothing to do. It is 75 when it has to be tried again, which systemd does. Any other code is a failure; the journal of systemd
shows it.
"""

from __future__ import annotations

import json
import sys
import typing as t

from .._base.errors import MigrationError
from .._host import boot
from .._session import phases
from .._session import session as sessions
from .._session.session import Session

# The other imports are within functions: each command through the channel is a start of the agent. All of its code takes 0.2 s
# of a processor to load, what a command needs less than half of that for most.

TRY_AGAIN = 75

_USAGE = (
    "usage: agent settle SESSION | start SESSION | serve SESSION COMMAND | step SESSION NAME | open [--check] | "
    "recover NAME\n"
)

# Seconds that one attempt waits for the other host. Short, so that a person's recover.yml gets its turn in between.
_ASK_SECONDS = 10


def settle(session: Session) -> int:
    """Settle a session that shows no sign of life any more."""
    if session.lease_left > 0:
        return 0
    # Now: the end of the session takes this program's own file away, and nothing can be imported any more.
    from .._session import stories as session_stories

    try:
        try:
            outcome = _settle(session)
        except MigrationError as exc:
            # A process that is stopped, or hangs, keeps the lock for ever.
            if exc.code != "session_locked" or not session.end_holder():
                raise
            outcome = _settle(session)
    except (MigrationError, OSError) as exc:
        sys.stderr.write(f"session {session.id} cannot be settled yet: {exc}" + "\n")
        return TRY_AGAIN
    if outcome is not None:
        sys.stdout.write(" ".join([f"session {session.id}: {outcome}", *session_stories.left(session)]) + "\n")
    return 0


def _settle(session: Session) -> str | None:
    from .._session import watchdog
    from .._subjects import by_kind
    from . import destination, source

    with session.locked(timeout=1, alive=False):
        # The attempt itself is no sign of life. One that began before this one got the lock is.
        if session.ended:
            # Its closing was cut off at the very end.
            session.close_again()
            watchdog.disarm(session.id)
            return None
        if session.lease_left > 0:
            return None
        kind = by_kind.of(session)
        if session.role == phases.SOURCE:
            original = kind.original(session)
            source.reach(original, source.KEEPER_SECONDS)
            return source.settle(original, timeout=_ASK_SECONDS)
        copy = kind.copy(session)
        destination.reach(copy, source.KEEPER_SECONDS)
        return destination.settle(copy)


def serve(session: Session, request: str) -> int:
    """Answer one request through the channel."""
    from .._channel import durable_content
    from .._channel import server as channel_server

    commands: dict[str, t.Callable[[], dict[str, t.Any]]] = {
        "ping": lambda: {"host": boot.host_identity()},
        "decision": lambda: _decision(session),
        "close": lambda: _close(session),
    }
    conversations = {
        "handover": lambda: _serve_handover(session),
        durable_content.COMMAND: lambda: durable_content.serve_transfer(session, sys.stdin.buffer, sys.stdout.buffer),
    }
    if request not in (*commands, *conversations):
        commands.update(_of_kind(session).commands(session))
    return channel_server.serve(session, request, commands, conversations)


def _of_kind(session: Session) -> t.Any:
    from .._subjects import by_kind

    return by_kind.of(session)


def _decision(session: Session) -> dict[str, t.Any]:
    from . import destination

    return destination.make_decision(_of_kind(session).copy(session))


def _close(session: Session) -> dict[str, t.Any]:
    from . import destination

    copy = _of_kind(session).copy(session)
    copy.reach()
    return destination.source_is_done(copy)


def _serve_handover(session: Session) -> t.Callable[[], None] | None:
    from . import destination

    return destination.serve_handover(_of_kind(session).copy(session), sys.stdin.buffer, sys.stdout.buffer)


def step(session: Session, name: str) -> int:
    """Do a step for a module (``_session/step_call.py``). It reads the parameters from standard input and writes the result to
    standard output, both as JSON."""
    from . import steps

    return _answer(lambda params: steps.run(name, session, params))


def open_half(own: str, *, check_mode: bool) -> int:
    """Open a half of a session for a module, with input and output like those of a step.

    :param own: this program's file.
    """
    from . import opening

    return _answer(lambda params: opening.open_half(params, own, check_mode=check_mode))


def recover(name: str) -> int:
    """Settle, decide or clean sessions for a module, with input and output like those of a step.

    :param name: see ``_migration/recovery.py``.
    """
    from . import recovery

    return _answer(lambda params: recovery.act(name, params))


def _answer(work: t.Callable[[dict[str, t.Any]], dict[str, t.Any]]) -> int:
    params = json.load(sys.stdin)
    try:
        answer = {"result": work(params)}
    except MigrationError as exc:
        answer = {"failure": exc.as_failure()}
    except Exception as exc:  # noqa: BLE001 - a defect of ours, which the module reports with its traceback
        answer = {"failure": MigrationError.unexpected(exc).as_failure()}
    json.dump(answer, sys.stdout)
    return 0


def main(argv: t.Sequence[str] | None = None) -> int:
    """Run one of the commands that the usage lists."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if len(arguments) == 2 and arguments[0] == "settle":
            try:
                session = Session(arguments[1])
            except MigrationError as exc:
                # The session was closed while systemd still had this start in its queue, or its closing was cut off.
                sys.stderr.write(exc.message + "\n")
                if exc.code == "session_unknown":
                    from .._session import watchdog

                    sessions.remove_remains(arguments[1])
                    watchdog.disarm(arguments[1])
                return 0
            return settle(session)
        if len(arguments) == 2 and arguments[0] == "start":
            session = Session(arguments[1])
            _of_kind(session).start_when_ready(session)
            return 0
        if len(arguments) == 3 and arguments[0] == "serve":
            return serve(Session(arguments[1]), arguments[2])
        if len(arguments) == 3 and arguments[0] == "step":
            return step(Session(arguments[1]), arguments[2])
        if arguments in (["open"], ["open", "--check"]):
            return open_half(sys.argv[0], check_mode=arguments[1:] == ["--check"])
        if len(arguments) == 2 and arguments[0] == "recover":
            return recover(arguments[1])
    except MigrationError as exc:
        sys.stderr.write(exc.message + "\n")
        return 1
    sys.stderr.write(_USAGE)
    return 2
