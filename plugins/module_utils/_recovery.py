# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Sessions after the fact: what became of them, in words; settling the unfinished; removing what they have kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _criu_failure,
    _destination,
    _names,
    _old_records,
    _printable,
    _source,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import (
    ABORT,
    GO_SENT,
    LEASE_SECONDS,
    RUN,
    SOURCE,
    STATE_ROOT,
    Session,
)

# What a phase in which a session stands still means for the person who reads it.
_STORIES: dict[tuple[str, str], str] = {
    ("source", "opened"): "being prepared; the container runs here untouched",
    ("source", "prepared"): "prepared; the container runs here untouched",
    ("source", "arming"): "about to be frozen; the container runs here",
    ("source", "armed"): "about to be frozen; the container runs here",
    ("source", "freezing"): "frozen here and being dumped",
    ("source", "dumped"): "frozen here, dumped, being sent",
    ("source", "sent"): "frozen here, sent, not yet handed over",
    ("source", "held"): "frozen here, restored and held on {peer}, not yet handed over",
    ("source", "committed"): "moved to {peer}, which has still to be told that this host knows",
    ("source", "aborted"): "not moved to {peer}, which has still to be told; the container stayed here",
    ("destination", "opened"): "announced; nothing has been made here",
    ("destination", "creating"): "being made ready here, not started",
    ("destination", "created"): "made ready here, not started",
    ("destination", "starting"): "being restored here",
    ("destination", "held"): "restored here and held: it has run nothing here",
    ("destination", "run"): "runs here; {peer} has still to be told, or this host to tidy up",
    ("destination", "refused"): "refused here and taken away; {peer} has still to be told",
}


# What is heard of a destination that does not answer; everything else is an answer.
_NO_WORD = frozenset({"destination_unreachable", "program_timeout", "channel_revoked", "channel_closed"})


def story(session: Session) -> str:
    """One sentence about a session."""
    peer = session.facts.get("peer_name") or "the other host"
    phase = session.phase
    if phase == "closed":
        if session.role == SOURCE:
            if session.data("aborted").get("destination_lost"):
                return f"not moved; {peer} was declared lost. Remove the copy there before {peer} runs again"
            return (
                f"moved to {peer}"
                if session.reached("committed")
                else f"not moved to {peer}; the container stayed here"
            )
        return f"moved here from {peer}" if session.decision == RUN else f"refused here; the container stayed on {peer}"
    text = _STORIES[(session.role, phase)].format(peer=peer)
    if session.role == SOURCE and phase not in ("committed", "aborted"):
        if session.decision == GO_SENT:
            text = (
                f"handed over to {peer} and frozen here until {peer} says whether it runs there. If {peer} is gone for good and "
                f"cannot come back by itself, run recover.yml with -e recover_destination_lost={session.id}"
            )
        elif session.decision == ABORT:
            text = "being given up; the container is about to go on here"
    if session.lease_left > 2 * LEASE_SECONDS and phase in ("run", "refused"):
        # Nobody is at work on it: it waits for the other host, see _destination.settle.
        return text
    if session.lease_left > 0:
        return f"{text} (at work, or waiting {session.lease_left:.0f} s for a sign of life)"
    return f"{text} (abandoned)"


def chosen(session: str | None, container: str | None) -> list[Session]:
    """The sessions of this host that a caller means."""
    if session is not None:
        # One that is not here any more has nothing left to do.
        return [found for found in Session.all() if found.id == _names.session_id(session)]
    # An empty name is a mistake, and not the word for all of them.
    name = None if container is None else _names.container_name(container)
    return [found for found in Session.all() if name is None or _is_of(found, name)]


def _is_of(session: Session, name: str) -> bool:
    """Whether a session is about the container that a person calls by its name, its id, or the beginning of that."""
    return session.facts.get("container_name") == name or (
        len(name) >= 12 and session.facts["container_id"].startswith(name)
    )


def stories(session: str | None = None, container: str | None = None) -> list[dict[str, t.Any]]:
    """Summaries of sessions, each with its story."""
    # The journal holds what a container, and the other host, call things.
    return [_printable.data(dict(found.summary(), story=story(found))) for found in chosen(session, container)]


def moved(container: str) -> dict[str, t.Any] | None:
    """Where a container that is not here any more has been moved to by the newest session of its name, or None."""
    name = _names.container_name(container)
    newest = None
    for found in chosen(None, name):
        if found.role == SOURCE and found.reached("committed"):
            newest = found
    if newest is None or Engine().find(name) is not None:
        return None
    told = {
        "peer": newest.facts.get("peer_name"),
        "session": newest.id,
        "container_id": newest.data("committed").get("destination_container_id"),
        "story": story(newest),
    }
    return t.cast("dict[str, t.Any]", _printable.data(told))


def settle(
    *,
    session: str | None,
    container: str | None,
    role: str | None,
    wait: float,
    abandoned: bool,
    peer_settled: bool,
    destination_lost: str | None,
    check_mode: bool,
) -> dict[str, t.Any]:
    """Bring unfinished sessions to their end.

    :param wait: seconds to wait for a live session to be abandoned, and for the destination's word.
    :param abandoned: the caller knows that the session is not alive.
    :param peer_settled: for destination halves: the source knows the outcome.
    :param destination_lost: the id of a session whose destination a person has declared dead.
    :raises MigrationError: ``session_busy`` for one that is alive; what kept one from being settled.
    """
    open_ones = [found for found in chosen(session, container) if not found.ended and role in (None, found.role)]
    failures = []
    if not check_mode:
        for found in open_ones:
            try:
                if not abandoned:
                    _await_abandonment(found, wait)
                _settle_one(found, wait, peer_settled, found.id == destination_lost)
            except MigrationError as exc:
                # One that cannot be settled must not keep the others from it.
                failures.append(exc)
    if failures:
        first = failures[0]
        raise MigrationError(first.code, " ".join(exc.message for exc in failures), sessions=stories(None, container))
    left = [entry for entry in stories(None, container) if session in (None, entry["session"])]
    return {"changed": bool(open_ones), "sessions": left}


def _await_abandonment(session: Session, wait: float) -> None:
    deadline = time.monotonic() + wait
    # Who asks for a session to be settled need not wait as long as the watchdog does where nothing is frozen.
    while session.silence < LEASE_SECONDS and not session.ended:
        if time.monotonic() >= deadline:
            raise MigrationError(
                "session_busy",
                f"Session {session.id} is at work ({story(session)}). Settle it when it has ended or has been abandoned.",
                session=session.id,
            )
        time.sleep(0.2)


def _settle_one(session: Session, wait: float, peer_settled: bool, destination_lost: bool) -> None:
    if not os.path.isdir(session.directory):
        return
    with session.locked(timeout=max(wait, 30), alive=False):
        if session.ended:
            return
        engine = Engine()
        if session.role != SOURCE:
            _destination.settle(session, engine, heard=peer_settled)
            return
        if destination_lost and session.decision == GO_SENT and not session.reached("committed"):
            _override(session, engine)
            return
        _source.settle(session, engine, timeout=min(wait, 30), told=peer_settled)


def _override(session: Session, engine: Engine) -> None:
    """A person has declared the destination dead and fenced. If it answers after all, its word counts and not the person's."""
    try:
        _source.ask(session, timeout=10)
    except MigrationError as exc:
        if exc.code not in _NO_WORD or (exc.code == "program_timeout" and _answers(session)):
            # It lives, and cannot say its word just now: that is for it to say.
            raise
        _source.abort(session, engine, destination_lost=True)
        _source.close(session)
        return
    _source.settle(session, engine)


def _answers(session: Session) -> bool:
    """Whether the destination says anything at all through the channel."""
    with contextlib.suppress(MigrationError):
        return bool(Channel(session).call("ping", timeout=10))
    return False


def clean(*, session: str | None, container: str | None, check_mode: bool) -> dict[str, t.Any]:
    """Remove the old copies that finished sessions have kept on their source. Volumes are left alone.

    The record of a move stays (a few lines without secrets): it is how a later move back knows whose data lies here. It goes
    when it is not needed any more, see ``_old_records.py``. The record of a session that moved nothing goes at once.
    """
    engine = Engine()
    changed = False
    removed: list[str] = []
    for found in chosen(session, container):
        if not found.ended:
            continue
        if found.role == SOURCE and found.reached("committed"):
            old = engine.find(found.facts["container_id"])
            if old is not None and not old["State"]["Running"]:
                removed.append(old["Name"].lstrip("/"))
                changed = True
                if not check_mode:
                    engine.remove(old["Id"])
        elif not found.reached("run"):
            changed = True
            if not check_mode:
                shutil.rmtree(found.directory)
    if not check_mode:
        _old_records.prune(engine)
        if session is None and container is None:
            _criu_failure.prune(STATE_ROOT, 0)
    return {"changed": changed, "removed": removed, "sessions": stories(None, container) if session is None else []}
