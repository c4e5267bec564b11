# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Settle sessions that are unfinished, and remove what finished ones have kept. ``_session/stories.py`` finds and describes
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
from .._session.session import FIRST_KIND, LEASE_SECONDS, LOCK_SECONDS, STATE_ROOT, Session, id_key
from .._subjects import by_kind
from . import destination, source

# Seconds in which a destination that was declared lost is asked for its decision. More than ssh takes for an attempt to connect,
# so that it is ssh which tells what became of that.
_LOST_SECONDS = 20.0


def act(name: str, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Do what a module is asked for.

    :param name: the state of ``migration_session``: ``settled``, ``decided`` or ``cleaned``.
    :param params: of :func:`settle`, :func:`decide` or :func:`clean`.
    :returns: what the module returns.
    :raises MigrationError: as those do.
    """
    if name == "settled":
        return settle(**params)
    if name == "decided":
        return {"changed": True, "destination_decision": decide(**params)}
    if name == "cleaned":
        return clean(**params)
    raise MigrationError("unknown_step", f"The agent knows nothing called {name!r} to be done to sessions.")


def settle(
    *,
    session: str | None,
    name: str | None,
    role: str | None,
    wait: float,
    ignore_lease: bool,
    other_half_settled: bool,
    destination_lost: str | None,
    check_mode: bool,
    destination_decision: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """Bring unfinished sessions to their end.

    :param wait: seconds to wait for the lease of a session to run out, and for the destination's decision.
    :param ignore_lease: do not wait for the end of the lease: the caller knows that nobody is at work on the session.
    :param other_half_settled: the other host's half has come to its end: for destination halves, the source knows the outcome.
    :param destination_lost: the id of a session whose destination a person has declared dead.
    :param destination_decision: what :func:`decide` has returned on the destination, carried here.
    :raises MigrationError: ``session_busy`` for a session at work; the error that kept a session from being settled.
    """
    open_ones = session_stories.unsettled(session, name, role, other_half_settled=other_half_settled)
    _require_decision(destination_decision)
    failures = []
    if not check_mode:
        for found in open_ones:
            try:
                if not ignore_lease:
                    _await_end_of_lease(found, wait)
                carried = destination_decision if (destination_decision or {}).get("session") == found.id else None
                _settle_one(found, wait, other_half_settled, found.id == destination_lost, carried)
            except MigrationError as exc:
                # A session that cannot be settled must not keep the others from being settled.
                failures.append(exc)
    if failures:
        first = failures[0]
        raise MigrationError(
            first.code, " ".join(exc.message for exc in failures), sessions=session_stories.stories(None, name)
        )
    left = [entry for entry in session_stories.stories(None, name) if session in (None, entry["session"])]
    return {"changed": bool(open_ones), "sessions": left}


def _await_end_of_lease(session: Session, wait: float) -> None:
    deadline = time.monotonic() + wait
    # Where nothing is frozen, the watchdog waits longer than a caller of this has to.
    while session.silence < LEASE_SECONDS and not session.ended:
        if time.monotonic() >= deadline:
            raise MigrationError(
                "session_busy",
                f"Session {session.id} is at work ({session_stories.story(session)}). Settle it when it has ended or has been "
                "abandoned.",
                session=session.id,
            )
        time.sleep(0.2)


def _require_decision(carried: t.Mapping[str, t.Any] | None) -> None:
    """Refuse what is not the decision of a destination, before anything is done because of it.

    :raises MigrationError: ``invalid_decision``, ``invalid_session``, ``invalid_id``.
    """
    if carried is None:
        return
    identity = valid_names.session_id(carried["session"])
    if carried["decision"] not in DECISIONS[DESTINATION]:
        raise MigrationError(
            "invalid_decision", f"{carried['decision']!r} is no decision of a destination (RUN or REFUSED)."
        )
    if carried["decision"] == RUN:
        # The decision about a session that is not here is not used.
        kind = next((one.kind for one in Session.all() if one.id == identity), FIRST_KIND)
        valid_names.subject_id(kind, carried.get(id_key(kind)) or "")


def _settle_one(
    session: Session,
    wait: float,
    other_half_settled: bool,
    destination_lost: bool,
    carried: t.Mapping[str, t.Any] | None,
) -> None:
    if not os.path.isdir(session.directory):
        return
    with session.locked(timeout=max(wait, LOCK_SECONDS), alive=False):
        if session.ended and not (other_half_settled and session_stories.is_unknown_to_source(session)):
            return
        kind = by_kind.of(session)
        if session.role != SOURCE:
            copy = kind.copy(session)
            destination.reach(copy, source.KEEPER_SECONDS)
            destination.settle(copy, source_knows=other_half_settled)
            return
        original = kind.original(session)
        over = session.reached("aborted") or session.reached("committed")
        lost = destination_lost and not carried
        destination_decides = session.decision == GO_SENT and not over
        # First: what is frozen need not wait for its keeper.
        if lost and destination_decides:
            _declare_lost(session)
        source.reach(original, source.KEEPER_SECONDS, carried)
        # Which host has it is settled, or this host alone decides it. A lost destination need not know: when it comes back, it
        # settles its half by itself.
        closed = other_half_settled or (lost and not destination_decides)
        source.settle(original, timeout=min(wait, 30), other_half_settled=closed, decision=carried)


def _declare_lost(session: Session) -> None:
    """A person has declared the destination dead and fenced. If it is alive after all, its decision counts and not the person's.

    :raises MigrationError: ``destination_not_lost``.
    """
    # A command through a connection that is still open, to a host that has lost its power, ends in a time-out, which tells
    # nothing.
    Channel(session).disconnect()
    try:
        source.ask_decision(session, timeout=_LOST_SECONDS)
    except MigrationError as exc:
        require(session, exc)
        session.declare_destination_lost()
    else:
        session.take_back_lost()


def decide(session: str) -> dict[str, t.Any]:
    """The decision of the destination's half of a session, made now if it has not been made. A playbook carries it to the source.

    :raises MigrationError: ``session_unknown``, ``not_a_destination``; when it cannot be known now.
    """
    found = Session(session)
    return destination.decision_to_carry(by_kind.of(found), found)


def clean(*, session: str | None, name: str | None, check_mode: bool) -> dict[str, t.Any]:
    """Remove the old copies that finished sessions have kept on their source. Data is left alone.

    The record of a move stays (a few lines without secrets): from it a later move back knows whose data lies here. It is
    removed when its kind does not need it any more. The record of a session that moved nothing is removed at once. There are
    two exceptions: a refusal of which the source does not know, and a destination that was declared lost, where a copy may have
    to be removed. Their records are removed only when a person names the session.

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
        elif not found.reached("run") and (session is not None or not session_stories.must_be_reported(found)):
            changed = True
            if not check_mode:
                shutil.rmtree(found.directory)
    if not check_mode:
        for kind in kinds.values():
            kind.tidy()
        if session is None and name is None:
            criu_failure.prune(STATE_ROOT, 0)
    if failures:
        done = f"Removed: {', '.join(removed)}. " if removed and not check_mode else ""
        raise MigrationError(failures[0].code, done + " ".join(exc.message for exc in failures), removed=removed)
    return {
        "changed": changed or bool(removed),
        "removed": removed,
        "sessions": session_stories.stories(None, name) if session is None else [],
    }
