# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The program that acts for a session: ``settle`` (watchdog), ``serve`` (channel), ``start``; ``open``, ``step`` and ``recover``
for modules.

It is a zip application in the session's directory, see ``_session/agent_package.py``. Exit codes: 0 done or nothing to do, 75 to
be tried again (systemd does), anything else a failure that the journal of systemd tells.
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

# The other imports are within functions: each word through the channel is a start of the agent. All of its code takes 0.2 s of a
# processor to load, what a word needs less than half of that for most.

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
            # Who is stopped, or hangs, keeps the lock for ever.
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
            source.reach(original, _ASK_SECONDS)
            return source.settle(original, timeout=_ASK_SECONDS)
        copy = kind.copy(session)
        copy.reach(_ASK_SECONDS)
        return destination.settle(copy)


def serve(session: Session, command: str) -> int:
    """Answer one call through the channel."""
    from .._channel import durable_content
    from .._channel import server as channel_server

    words: dict[str, t.Callable[[], dict[str, t.Any]]] = {
        "ping": lambda: {"host": boot.host_identity()},
        "verdict": lambda: _verdict(session),
        "bye": lambda: _bye(session),
    }
    talks = {
        "handover": lambda: _hand_over(session),
        durable_content.WORD: lambda: durable_content.converse(session, sys.stdin.buffer, sys.stdout.buffer),
    }
    if command not in (*words, *talks):
        words.update(_of_kind(session).messages(session))
    return channel_server.serve(session, command, words, talks)


def _of_kind(session: Session) -> t.Any:
    from .._subjects import by_kind

    return by_kind.of(session)


def _verdict(session: Session) -> dict[str, t.Any]:
    from . import destination

    return destination.verdict(_of_kind(session).copy(session))


def _bye(session: Session) -> dict[str, t.Any]:
    from . import destination

    copy = _of_kind(session).copy(session)
    copy.reach()
    return destination.bye(copy)


def _hand_over(session: Session) -> t.Callable[[], None] | None:
    from . import destination

    return destination.converse(_of_kind(session).copy(session), sys.stdin.buffer, sys.stdout.buffer)


def step(session: Session, name: str) -> int:
    """Do a step for a module (``_session/step_call.py``): parameters on standard input, what became of it on standard output, as
    JSON."""
    from . import steps

    return _answer(lambda params: steps.run(name, session, params))


def open_half(own: str, *, check_mode: bool) -> int:
    """Open a half of a session for a module, as a step is done.

    :param own: this program's file.
    """
    from . import opening

    return _answer(lambda params: opening.open_half(params, own, check_mode=check_mode))


def recover(name: str) -> int:
    """Do something to sessions after the fact for a module, as a step is done.

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
    except Exception as exc:  # noqa: BLE001 - a defect of ours, told with its traceback by the module
        answer = {"failure": MigrationError.unexpected(exc).as_failure()}
    json.dump(answer, sys.stdout)
    return 0


def main(argv: t.Sequence[str] | None = None) -> int:
    """One of the forms that the usage tells."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if len(words) == 2 and words[0] == "settle":
            try:
                session = Session(words[1])
            except MigrationError as exc:
                # Closed and gone while systemd still had the start in its queue, or cut off in the middle of that.
                sys.stderr.write(exc.message + "\n")
                if exc.code == "session_unknown":
                    from .._session import watchdog

                    sessions.remove_remains(words[1])
                    watchdog.disarm(words[1])
                return 0
            return settle(session)
        if len(words) == 2 and words[0] == "start":
            session = Session(words[1])
            _of_kind(session).start_when_ready(session)
            return 0
        if len(words) == 3 and words[0] == "serve":
            return serve(Session(words[1]), words[2])
        if len(words) == 3 and words[0] == "step":
            return step(Session(words[1]), words[2])
        if words in (["open"], ["open", "--check"]):
            return open_half(sys.argv[0], check_mode=words[1:] == ["--check"])
        if len(words) == 2 and words[0] == "recover":
            return recover(words[1])
    except MigrationError as exc:
        sys.stderr.write(exc.message + "\n")
        return 1
    sys.stderr.write(_USAGE)
    return 2
