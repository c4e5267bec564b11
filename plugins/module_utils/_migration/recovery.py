# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Sessions after the fact: settling the unfinished; removing what the others have kept. ``_session/stories.py`` finds and tells
them."""

from __future__ import annotations

import os
import shutil
import time
import typing as t

from .._base import valid_names
from .._base.errors import MigrationError
from .._channel.client import Channel
from .._channel.destination_lost import require
from .._criu import failure as criu_failure
from .._session import stories as session_stories
from .._session.phases import DECISIONS, DESTINATION, GO_SENT, RUN, SOURCE
from .._session.session import FIRST_KIND, LEASE_SECONDS, STATE_ROOT, Session, id_key
from .._subjects import by_kind
from .._subjects.subject import Original
from . import destination, source

# Seconds in which a destination that was declared lost is asked for its word. More than ssh takes for an attempt to connect, so
# that it is ssh which tells what became of that.
_LOST_SECONDS = 20.0
# Seconds that the keeper of what is moved has to answer, before it is left to itself.
_KEEPER_SECONDS = 10.0


def act(name: str, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Do what a module is asked for.

    :param name: the state of ``migration_session``: ``settled``, ``decided`` or ``cleaned``.
    :param params: of :func:`settle`, :func:`word` or :func:`clean`.
    :returns: what the module returns.
    :raises MigrationError: as those do.
    """
    if name == "settled":
        return settle(**params)
    if name == "decided":
        return {"changed": True, "word": word(**params)}
    if name == "cleaned":
        return clean(**params)
    raise MigrationError("unknown_step", f"The agent knows nothing called {name!r} to be done to sessions.")


def settle(
    *,
    session: str | None,
    name: str | None,
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
    open_ones = session_stories.unsettled(session, name, role, peer_settled=peer_settled)
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
        raise MigrationError(
            first.code, " ".join(exc.message for exc in failures), sessions=session_stories.stories(None, name)
        )
    left = [entry for entry in session_stories.stories(None, name) if session in (None, entry["session"])]
    return {"changed": bool(open_ones), "sessions": left}


def _await_abandonment(session: Session, wait: float) -> None:
    deadline = time.monotonic() + wait
    # Who asks for a session to be settled need not wait as long as the watchdog does where nothing is frozen.
    while session.silence < LEASE_SECONDS and not session.ended:
        if time.monotonic() >= deadline:
            raise MigrationError(
                "session_busy",
                f"Session {session.id} is at work ({session_stories.story(session)}). Settle it when it has ended or has been "
                "abandoned.",
                session=session.id,
            )
        time.sleep(0.2)


def _require_word(carried: t.Mapping[str, t.Any] | None) -> None:
    """Refuse what is no word of a destination, before anything is done because of it.

    :raises MigrationError: ``invalid_word``, ``invalid_session``, ``invalid_id``.
    """
    if carried is None:
        return
    identity = valid_names.session_id(carried["session"])
    if carried["decision"] not in DECISIONS[DESTINATION]:
        raise MigrationError("invalid_word", f"{carried['decision']!r} is no word of a destination (RUN or REFUSED).")
    if carried["decision"] == RUN:
        # Of a session that is not here the word is not used.
        kind = next((one.kind for one in Session.all() if one.id == identity), FIRST_KIND)
        valid_names.subject_id(kind, carried.get(id_key(kind)) or "")


def _settle_one(
    session: Session, wait: float, peer_settled: bool, destination_lost: bool, carried: t.Mapping[str, t.Any] | None
) -> None:
    if not os.path.isdir(session.directory):
        return
    with session.locked(timeout=max(wait, 30), alive=False):
        if session.ended and not (peer_settled and session_stories.is_unheard(session)):
            return
        kind = by_kind.of(session)
        if session.role != SOURCE:
            copy = kind.copy(session)
            copy.reach(_KEEPER_SECONDS)
            destination.settle(copy, heard=peer_settled)
            return
        original = kind.original(session)
        source.reach(original, _KEEPER_SECONDS)
        over = session.reached("aborted") or session.reached("committed")
        if destination_lost and not carried and session.decision == GO_SENT and not over:
            _override(original)
            return
        # Where it belongs is settled, or is this host's alone to say: one that is lost need not be told, and a
        # destination that comes back settles its half by itself.
        told = peer_settled or (destination_lost and not carried)
        source.settle(original, timeout=min(wait, 30), told=told, word=carried)


def _override(original: Original) -> None:
    """A person has declared the destination dead and fenced. If it is alive after all, its word counts and not the person's.

    :raises MigrationError: ``destination_not_lost``.
    """
    session = original.session
    # What is said through a connection that stands, to a host that has lost its power, ends in a time-out, which tells nothing.
    Channel(session).hang_up()
    try:
        source.ask(session, timeout=_LOST_SECONDS)
    except MigrationError as exc:
        require(session, exc)
        source.abort(original, destination_lost=True)
        source.close(session)
        return
    source.settle(original)


def word(session: str) -> dict[str, t.Any]:
    """The word of the destination's half of a session, decided now if it has not been, for who carries it to the source.

    :raises MigrationError: ``session_unknown``, ``not_a_destination``; when it cannot be told now.
    """
    found = Session(session)
    return destination.word(by_kind.of(found), found)


def clean(*, session: str | None, name: str | None, check_mode: bool) -> dict[str, t.Any]:
    """Remove the old copies that finished sessions have kept on their source. Data is left alone.

    The record of a move stays (a few lines without secrets): it is how a later move back knows whose data lies here. It goes when
    it is not needed any more, which its kind knows. The record of a session that moved nothing goes at once, but for a refusal of
    which the source has not heard, and for a destination that was declared lost, where a copy may have to be removed: these go
    only when a person names the session.

    :raises MigrationError: ``old_copy_in_use`` for old copies that somebody has started again or renamed, when all else is done.
    """
    kinds = by_kind.all_of_them()
    for kind in kinds.values():
        kind.reach()
    changed = False
    removed: list[str] = []
    failures: list[MigrationError] = []
    for found in session_stories.chosen(session, name):
        if not found.ended:
            continue
        if found.role == SOURCE and found.reached("committed"):
            try:
                kind = kinds.get(found.kind) or by_kind.of(found)
                removed += kind.remove_old_copy(found, check_mode=check_mode)
            except MigrationError as exc:
                # One that must stay keeps no other from being removed.
                failures.append(exc)
        elif not found.reached("run") and (session is not None or not session_stories.must_be_told(found)):
            changed = True
            if not check_mode:
                shutil.rmtree(found.directory)
    if not check_mode:
        for kind in kinds.values():
            kind.tidy()
        if session is None and name is None:
            criu_failure.prune(STATE_ROOT, 0)
    if failures:
        told = f"Removed: {', '.join(removed)}. " if removed and not check_mode else ""
        raise MigrationError(failures[0].code, told + " ".join(exc.message for exc in failures), removed=removed)
    return {
        "changed": changed or bool(removed),
        "removed": removed,
        "sessions": session_stories.stories(None, name) if session is None else [],
    }
