# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The sessions of a host, each with a sentence that says what became of it.

``_migration/recovery.py`` acts on them. That is another module, because nearly every playbook looks at the sessions first, and
most find nothing to do.
"""

from __future__ import annotations

import typing as t

from .._base import printable, valid_names
from .phases import ABORT, DESTINATION, GO_SENT, REFUSED, RUN, SOURCE
from .session import FIRST_KIND, Session, id_key

# What a phase in which a session stands still means for the person who reads it.
_STORIES: dict[tuple[str, str], str] = {
    ("source", "opened"): "being prepared; the {kind} runs here untouched",
    ("source", "prepared"): "prepared; the {kind} runs here untouched",
    ("source", "arming"): "about to be frozen; the {kind} runs here",
    ("source", "armed"): "about to be frozen; the {kind} runs here",
    ("source", "freezing"): "frozen here and being dumped",
    ("source", "dumped"): "frozen here, dumped, being sent",
    ("source", "sent"): "frozen here, sent, not yet handed over",
    ("source", "held"): "frozen here, restored and held on {peer}, not yet handed over",
    ("source", "committed"): "moved to {peer}, which does not know yet that this host has finished",
    ("source", "aborted"): "not moved to {peer}, which does not know that yet; the {kind} stayed here",
    ("destination", "opened"): "announced; nothing has been made here",
    ("destination", "creating"): "being made ready here, not started",
    ("destination", "created"): "made ready here, not started",
    ("destination", "starting"): "being restored here",
    ("destination", "held"): "restored here and held: it has run nothing here",
    ("destination", "run"): "runs here; {peer} does not know that yet, or this host has something left to tidy up",
    ("destination", "refused"): "refused here and taken away; {peer} does not know that yet",
}


def is_unknown_to_source(session: Session) -> bool:
    """Whether a closed half is a refusal that its source does not know of.

    A refusal that its source knows leaves no record, or the record notes that the source knows it.
    """
    closed = session.data("closed")
    kept = bool(closed.get("keep")) and not closed.get("heard")
    return session.role == DESTINATION and kept and session.decision == REFUSED


def must_be_reported(session: Session) -> bool:
    """Whether somebody does not know yet how a session ended that moved nothing.

    That is a source that does not know of a refusal. Or it is a person, who has to remove the copy of a host that was declared
    lost.
    """
    return is_unknown_to_source(session) or bool(session.data("aborted").get("destination_lost"))


def left(session: Session) -> list[str]:
    """What a refusal has not taken away, and why: a sentence for each thing."""
    return [str(one) for one in session.data("refused").get("left", ())]


def _what_is_left(session: Session) -> str:
    found = left(session)
    return f". {' '.join(found)} Remove it there if nobody needs it" if found else ""


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
                else f"not moved to {peer}; the {session.kind} stayed here"
            )
        if session.decision == RUN:
            return f"moved here from {peer}"
        text = f"refused here; the {session.kind} stayed on {peer}"
        if is_unknown_to_source(session):
            text += ", which may not know that yet (recover.yml, for both hosts)"
        return text + _what_is_left(session)
    text = _STORIES[(session.role, phase)].format(peer=peer, kind=session.kind)
    if session.role == SOURCE and phase not in ("committed", "aborted"):
        if session.decision == GO_SENT:
            text = (
                f"handed over to {peer} and frozen here until {peer} says whether it runs there. recover.yml for both hosts "
                f"carries its decision here. If {peer} is gone for good and cannot come back by itself, run recover.yml with -e "
                f"recover_destination_lost={session.id}"
            )
        elif session.decision == ABORT:
            text = f"being given up; the {session.kind} is about to go on here"
    text += _what_is_left(session)
    if session.rests:
        # It waits for the other host, see destination.settle and source.settle.
        return text
    if session.lease_left > 0:
        return f"{text} (at work, or waiting {session.lease_left:.0f} s for a sign of life)"
    return f"{text} (abandoned)"


def chosen(session: str | None, name: str | None, kind: str = FIRST_KIND) -> list[Session]:
    """The sessions of this host that a caller means.

    :param session: an id; it is enough to tell one session.
    :param name: those that move this: a name, an id, or the beginning of an id.
    :param kind: what kind of thing has that name.
    """
    if session is not None:
        # One that is not here any more has nothing left to do.
        return [found for found in Session.all() if found.id == valid_names.session_id(session)]
    # An empty name is a mistake; it does not mean all of them.
    wanted = None if name is None else valid_names.subject_name(kind, name)
    return [found for found in Session.all() if wanted is None or (found.kind == kind and _is_of(found, wanted))]


def _is_of(session: Session, name: str) -> bool:
    """Whether a session moves the thing that has this name, this id, or an id that begins so."""
    return session.subject_name == name or (len(name) >= 12 and session.subject_id.startswith(name))


def stories(session: str | None = None, name: str | None = None) -> list[dict[str, t.Any]]:
    """Summaries of sessions, each with its story, whether it is a refusal that its source does not know of, and whether the
    source went on because a person had declared the destination lost.
    """
    # The journal holds what the thing that is moved, and the other host, call things.
    return [
        printable.data(
            dict(
                found.summary(),
                story=story(found),
                unknown_to_source=is_unknown_to_source(found),
                # The old name, for playbooks that somebody has made of recover.yml; until the release after the next one.
                unheard=is_unknown_to_source(found),
                left=left(found),
                declared_lost=bool(found.data("aborted").get("destination_lost")),
            )
        )
        for found in chosen(session, name)
    ]


def moved(name: str, is_here: t.Callable[[str], bool], kind: str = FIRST_KIND) -> dict[str, t.Any] | None:
    """Where the newest session of a name has moved the thing that is not here any more; None where there is no such session.

    :param is_here: whether there is a thing of that name on this host. It is called only when one has been moved away.
    :returns: ``peer``, ``session``, ``story``, and the id that it has there.
    """
    name = valid_names.subject_name(kind, name)
    newest = None
    for found in chosen(None, name, kind):
        if found.role == SOURCE and found.reached("committed"):
            newest = found
    if newest is None or is_here(name):
        return None
    key = id_key(kind)
    report = {
        "peer": newest.facts.get("peer_name"),
        "session": newest.id,
        key: newest.data("committed").get(f"destination_{key}"),
        "story": story(newest),
    }
    return t.cast("dict[str, t.Any]", printable.data(report))


def unsettled(session: str | None, name: str | None, role: str | None, *, other_half_settled: bool) -> list[Session]:
    """The sessions of this host that are not at their end.

    :param role: only these halves are meant.
    :param other_half_settled: the source's halves know the outcome, so that refusals need not wait for a source to ask.
    """
    return [
        found
        for found in chosen(session, name)
        if role in (None, found.role) and (not found.ended or (other_half_settled and is_unknown_to_source(found)))
    ]
