# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Sessions after the fact: what became of them, in words; settling the unfinished; removing what they have kept."""

from __future__ import annotations

import os
import shutil
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _criu_failure,
    _destination,
    _destination_lost,
    _names,
    _old_copy,
    _old_records,
    _printable,
    _source,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import (
    ABORT,
    DECISIONS,
    DESTINATION,
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

# Seconds in which a destination that was declared lost is asked for its word. More than ssh takes for an attempt to connect, so
# that it is ssh which tells what became of that.
_LOST_SECONDS = 20.0


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
        if session.decision == RUN:
            return f"moved here from {peer}"
        told = f"refused here; the container stayed on {peer}"
        unheard = _old_records.is_unheard(session)
        return f"{told}, which may have to be told still (recover.yml, for both hosts)" if unheard else told
    text = _STORIES[(session.role, phase)].format(peer=peer)
    if session.role == SOURCE and phase not in ("committed", "aborted"):
        if session.decision == GO_SENT:
            text = (
                f"handed over to {peer} and frozen here until {peer} says whether it runs there. recover.yml for both hosts "
                f"carries its word. If {peer} is gone for good and cannot come back by itself, run recover.yml with -e "
                f"recover_destination_lost={session.id}"
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
    """Summaries of sessions, each with its story, and whether it is a refusal that waits for its source to hear it."""
    # The journal holds what a container, and the other host, call things.
    return [
        _printable.data(dict(found.summary(), story=story(found), unheard=_old_records.is_unheard(found)))
        for found in chosen(session, container)
    ]


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
    destination_word: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """Bring unfinished sessions to their end.

    :param wait: seconds to wait for a live session to be abandoned, and for the destination's word.
    :param abandoned: the caller knows that the session is not alive.
    :param peer_settled: for destination halves: the source knows the outcome.
    :param destination_lost: the id of a session whose destination a person has declared dead.
    :param destination_word: what :func:`word` told on the destination, carried here.
    :raises MigrationError: ``session_busy`` for one that is alive; what kept one from being settled.
    """
    open_ones = [
        found
        for found in chosen(session, container)
        if role in (None, found.role) and (not found.ended or (peer_settled and _old_records.is_unheard(found)))
    ]
    _require_word(destination_word)
    failures = []
    if not check_mode:
        for found in open_ones:
            try:
                if not abandoned:
                    _await_abandonment(found, wait)
                carried = destination_word if destination_word and destination_word["session"] == found.id else None
                _settle_one(found, wait, peer_settled, found.id == destination_lost, carried)
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


def _require_word(carried: t.Mapping[str, t.Any] | None) -> None:
    """Refuse what is no word of a destination, before anything is done because of it.

    :raises MigrationError: ``invalid_word``, ``invalid_session``, ``invalid_id``.
    """
    if carried is None:
        return
    _names.session_id(carried["session"])
    if carried["decision"] not in DECISIONS[DESTINATION]:
        raise MigrationError("invalid_word", f"{carried['decision']!r} is no word of a destination (RUN or REFUSED).")
    if carried["decision"] == RUN:
        _names.container_id(carried.get("container_id") or "")


def _settle_one(
    session: Session, wait: float, peer_settled: bool, destination_lost: bool, carried: t.Mapping[str, t.Any] | None
) -> None:
    if not os.path.isdir(session.directory):
        return
    with session.locked(timeout=max(wait, 30), alive=False):
        if session.ended and not (peer_settled and _old_records.is_unheard(session)):
            return
        engine = Engine()
        if session.role != SOURCE:
            _destination.settle(session, engine, heard=peer_settled)
            return
        if destination_lost and not carried and session.decision == GO_SENT and not session.reached("committed"):
            _override(session, engine)
            return
        _source.settle(session, engine, timeout=min(wait, 30), told=peer_settled, word=carried)


def _override(session: Session, engine: Engine) -> None:
    """A person has declared the destination dead and fenced. If it is alive after all, its word counts and not the person's.

    :raises MigrationError: ``destination_not_lost``.
    """
    # What is said through a connection that stands, to a host that has lost its power, ends in a time-out, which tells nothing.
    Channel(session).hang_up()
    try:
        _source.ask(session, timeout=_LOST_SECONDS)
    except MigrationError as exc:
        _destination_lost.require(session, exc)
        _source.abort(session, engine, destination_lost=True)
        _source.close(session)
        return
    _source.settle(session, engine)


def word(session: str) -> dict[str, t.Any]:
    """The word of the destination's half of a session, decided now if it has not been, for who carries it to the source.

    :raises MigrationError: ``session_unknown``, ``not_a_destination``; when it cannot be told now.
    """
    return _destination.word(Session(session))


def clean(*, session: str | None, container: str | None, check_mode: bool) -> dict[str, t.Any]:
    """Remove the old copies that finished sessions have kept on their source. Volumes are left alone.

    The record of a move stays (a few lines without secrets): it is how a later move back knows whose data lies here. It goes
    when it is not needed any more, see ``_old_records.py``. The record of a session that moved nothing goes at once, but for a
    refusal of which the source has not heard: that one goes only when a person names the session.

    :raises MigrationError: ``old_copy_in_use`` for old copies that somebody has started again or renamed, when all else is done.
    """
    engine = Engine()
    changed = False
    removed: list[str] = []
    failures: list[MigrationError] = []
    for found in chosen(session, container):
        if not found.ended:
            continue
        if found.role == SOURCE and found.reached("committed"):
            try:
                removed += _remove_old_copy(found, engine, check_mode)
            except MigrationError as exc:
                # One that must stay keeps no other from being removed.
                failures.append(exc)
        elif not found.reached("run") and (session is not None or not _old_records.is_unheard(found)):
            changed = True
            if not check_mode:
                shutil.rmtree(found.directory)
    if not check_mode:
        _old_records.prune(engine)
        if session is None and container is None:
            _criu_failure.prune(STATE_ROOT, 0)
    if failures:
        told = f"Removed: {', '.join(removed)}. " if removed and not check_mode else ""
        raise MigrationError(failures[0].code, told + " ".join(exc.message for exc in failures), removed=removed)
    return {
        "changed": changed or bool(removed),
        "removed": removed,
        "sessions": stories(None, container) if session is None else [],
    }


def _remove_old_copy(session: Session, engine: Engine, check_mode: bool) -> list[str]:
    """Remove the old copy that a move has left here; returns its name, if it is there."""
    old = engine.find(session.facts["container_id"])
    if old is None:
        return []
    if check_mode:
        _old_copy.require_unused(session, old)
    else:
        _old_copy.remove(session, engine, old)
    return [str(old["Name"]).lstrip("/")]
