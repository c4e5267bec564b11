# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the source: open, freeze, dump, hand over, and in the end kill the old copy or let it go on.

Each function is one step of the journal (see ``_session/session.py``) and may be repeated. Until ``GO_SENT`` is decided the
source may give up on its own; after it only the destination's answer counts. Only the original knows what is moved, see
``_subjects/subject.py``.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._base import valid_names
from .._base.errors import MigrationError
from .._channel import client as channel_client
from .._channel import durable_content, tree
from .._channel.client import Channel
from .._channel.server import KEY_LIFE_SECONDS
from .._host.boot import host_identity
from .._session import agent_package, lineage, timeline, watchdog
from .._session.phases import ABORT, GO_SENT, RUN, SOURCE
from .._session.session import Session, id_key
from .._subjects.subject import Dumped, Found, Kind, Original, Params
from . import destination, transfer

#: seconds that a keeper has to answer whoever settles a session, before its tasks go on without it
KEEPER_SECONDS = 10.0
# How often the watchdog asks a destination that does not let this session in.
_REVOKED_SECONDS = 60.0
# The note in memory that all of an abort has been done but to note it on the disk.
_WENT_ON = "went_on"


# -- opening ------------------------------------------------------------------------------------------------------


def find(kind: Kind, params: Params, *, arrived: bool) -> Found:
    """Find what is to be moved, and refuse it where this host can see that it cannot be moved.

    :param params: of the module: its name under the noun of the kind, and what the kind reads.
    :param arrived: whether to finish first the move that has brought it here.
    :raises MigrationError: ``cannot_move`` with all findings; the error of its kind when there is none of that name.
    """
    name = valid_names.subject_name(kind.noun, params[kind.noun])
    found = kind.find(name)
    # Else the end of that move would be done to something that is being moved, or has been moved.
    if found is not None and arrived and destination.finish_arrival(kind, found.id):
        found = kind.find(name)
    if found is None:
        raise kind.unknown(name)
    found.require_movable(params)
    return found


def open_session(kind: Kind, params: Params, *, agent: str) -> tuple[Session, str]:
    """Begin a session: claim what is moved, describe it, make the channel's key, start the watchdog.

    :param params: see :func:`find`; ``peer_name``: what the playbook calls the destination, for people.
    :param agent: the file of the agent that runs this, and will act for the session.
    :returns: the session and the channel's public key.
    :raises MigrationError: as :func:`find`; ``session_busy``; ``watchdog_failed`` ...
    """
    found = find(kind, params, arrived=True)
    session = Session.open(
        valid_names.new_session_id(),
        SOURCE,
        {
            **found.facts(params),
            "kind": kind.noun,
            "peer_name": params["peer_name"] or "the destination",
            "ancestry": lineage.ancestry(found.id),
        },
    )
    try:
        session.keep_out_of_swap()
        public_key = channel_client.make_key(session)
        os.makedirs(session.memory_path("outbox"), mode=0o700, exist_ok=True)
        found.describe(session)
        command = agent_package.install(session, agent)
        watchdog.arm(session.id, (*command, "settle", session.id))
        kind.tidy_beside(session)
    except BaseException:
        watchdog.disarm(session.id)
        session.close(keep=False)
        raise
    return session, public_key


def probe(session: Session) -> dict[str, t.Any]:
    """Send the command ``ping`` through the channel, before anything depends on it.

    :raises MigrationError: ``destination_unreachable``; ``same_host``; ``login_refused``; ``account_prints``.
    """
    try:
        answer = Channel(session).call("ping")
    except MigrationError as exc:
        if exc.code != "channel_revoked":
            raise
        # It is the first login of this session: nobody can have closed its other half.
        raise MigrationError(
            "login_refused",
            f"The SSH daemon refuses {exc.details['address']} with the key that was made for this migration. Usual causes are "
            "its settings (AllowUsers, AllowGroups, PermitRootLogin, AuthorizedKeysFile, a Match block), a locked account, or a "
            "home directory that others may write to; its log on the destination names the one (journalctl -u ssh -u sshd). Mend "
            "that, or name another account in migrate_channel_user.",
            **exc.details,
        ) from None
    if answer["host"] == host_identity():
        raise MigrationError("same_host", "Source and destination are the same host; nothing is to be moved.")
    return answer


def prepared(original: Original, *, close_connections: bool) -> list[str]:
    """Note that the destination is ready, and what the move is going to do with the original.

    :param close_connections: see ``Original.prepare``.
    :returns: what a person should know.
    :raises MigrationError: ``cannot_move``.
    """
    data, warnings = original.prepare(close_connections=close_connections)
    original.session.enter("prepared", **data)
    original.look_ahead()
    return warnings


# -- dumping and sending ------------------------------------------------------------------------------------------


def dump(original: Original) -> Dumped:
    """Dump the frozen original, and make sure that nothing can run it until this session lets it."""
    dumped = original.dump()
    original.session.enter("dumped", held=dumped.stopped, bytes=dumped.size)
    return dumped


def send_checkpoint(original: Original) -> int:
    """Send the last pass where a copy cannot be held: content, checkpoint and manifest, while everything is frozen.

    All of it is on the destination's disk when this returns. The checkpoint need not be there, but it lies on the same file
    system as other content.

    :returns: the bytes sent.
    """
    original.require_held(False)
    session = original.session
    checkpoint = tree.checkpoint(original.images())
    inbox = tree.inbox(session.memory_path("outbox"))
    content = transfer.changed(session, original.trees())
    memory_seconds = original.patience()
    sent = durable_content.send(
        session,
        lambda _there: transfer.send_frozen(session, [checkpoint, *content, inbox], memory_seconds=memory_seconds),
        seconds=durable_content.FROZEN_SECONDS + memory_seconds,
    )
    original.all_sent()
    session.enter("sent", bytes=sent)
    return sent


def go(original: Original) -> None:
    """Decide that the destination may run it. From here on the source waits for the destination's decision.

    :raises MigrationError: ``already_aborted``; ``source_thawed`` when the frozen tasks are not as they were dumped.
    """
    session = original.session
    last = "held" if original.can_be_held else "sent"
    if session.phase == last:
        original.require_not_run_since_dump()
    if session.phase != last or session.decide(GO_SENT) != GO_SENT:
        raise MigrationError(
            "already_aborted", f"Session {session.id} has been aborted meanwhile.", phase=session.phase
        )


@contextlib.contextmanager
def letting_it_go_on(original: Original, code: str, first: t.Callable[[], object] = lambda: None) -> t.Iterator[None]:
    """Settle the session when this block fails: what is frozen goes on here and now, not when the playbook gets to its rescue.

    :param code: of errors that are no :class:`MigrationError`.
    :param first: called before that; it ends what this block has begun.
    :raises MigrationError: where settling fails too, with both reasons.
    """
    try:
        yield
    except BaseException as exc:
        first()
        try:
            settle(original)
        except (MigrationError, OSError) as second:
            failure = MigrationError.of(exc, code)
            raise MigrationError(
                failure.code, f"{failure.message} Letting it go on failed as well: {second}", **failure.details
            ) from exc
        raise


# -- the end ------------------------------------------------------------------------------------------------------


def commit(original: Original, decision: t.Mapping[str, t.Any], times: timeline.Both | None = None) -> None:
    """The copy runs on the destination: kill the old copy without letting it run again, and keep what is left under another
    name.

    :param decision: the destination's answer, see ``destination.make_decision``.
    :param times: of the frozen time, where one step has seen all of it.
    """
    # Before anything else: "running_for" counts until the answer.
    now = timeline.now()
    session = original.session
    original.end()
    # Also where somebody has removed the original: its memory must not stay.
    original.forget()
    gap = None
    if session.happened_in_this_boot("freezing") and decision.get("running_for") is not None:
        gap = now - session.data("freezing")["at"] - float(decision["running_for"])
    key = id_key(session.kind)
    seen = {"timeline": times.report(gap)} if times is not None and gap is not None else {}
    session.enter("committed", **{f"destination_{key}": decision[key]}, gap=gap, **seen)


def abort(original: Original, *, destination_lost: bool = False) -> None:
    """Let the source go on as if nothing had happened. May be repeated until it went through.

    Call this only when ABORT is decided, when the destination has answered REFUSED, or when a person has declared the
    destination dead and fenced.

    :raises MigrationError: ``not_noted`` where it goes on, and the disk does not take the note of that.
    """
    session = original.session
    noted = session.memory_path(_WENT_ON)
    # Before "arming" nothing has been done to it. Once is enough: a disk that takes no note of it may stay so for long, and
    # what goes on belongs to its owner, who may stop it meanwhile.
    if session.reached("arming") and not os.path.exists(noted):
        original.go_on()
        original.forget()
        # Memory that is full has it done once more.
        with contextlib.suppress(OSError), open(noted, "wb"):
            pass
    try:
        session.enter("aborted", destination_lost=destination_lost)
    except OSError as exc:
        raise MigrationError(
            "not_noted",
            f"The {session.kind} goes on here, but {session.directory} cannot be written ({exc}), so that the end of session "
            f"{session.id} cannot be noted. The watchdog tries again until it can.",
        ) from exc


def reach(original: Original, seconds: float, decision: t.Mapping[str, t.Any] | None = None) -> None:
    """Connect to the keeper of the original. Where the keeper does not answer, do the part of an abort that cannot wait for it.

    :param seconds: the time that the keeper has to answer, and also the destination where its decision is needed.
    :param decision: the destination's answer, where somebody has carried it here without the channel.
    :raises MigrationError: ``engine_unreachable`` ...
    """
    try:
        original.reach(seconds)
    except MigrationError as exc:
        # Whatever it is: a keeper that does not answer, or a library that was taken away while the service stands still.
        try:
            abort_alone(original, seconds, decision)
        except MigrationError as stays:
            raise MigrationError(stays.code, f"{exc.message} {stays.message}", **stays.details) from exc
        raise


def abort_alone(original: Original, timeout: float, decision: t.Mapping[str, t.Any] | None = None) -> None:
    """Do the part of an abort that cannot wait for a keeper which does not answer: the service goes on, if it may.

    :param timeout: seconds to wait for the destination's decision, where that is needed.
    :param decision: that decision, where somebody has carried it here.
    :raises MigrationError: when that decision cannot be had now, or is RUN.
    """
    session = original.session
    if session.reached("committed") or session.reached("aborted") or not session.happened_in_this_boot("arming"):
        return
    if not original.may_go_on_alone():
        return
    if not _goes_on_here(session) and (decision or _ask_decision_seldom(session, timeout))["decision"] == RUN:
        return
    original.go_on_alone()


def _goes_on_here(session: Session) -> bool:
    """Whether the original goes on without asking the destination."""
    return session.decide(ABORT) == ABORT or session.destination_declared_lost


def close_destination_half(session: Session) -> bool:
    """Have the destination close its half: the source is done.

    :returns: whether that half is closed, or nobody can close it any more.
    """
    if not os.path.exists(session.path("peer.json")):
        # The two never spoke.
        return True
    try:
        Channel(session).call("close", timeout=60)
        return True
    except MigrationError as exc:
        if exc.code == "channel_revoked":
            # It was closed before, and this half was cut off before it could note that.
            return True
        entry = session.reached("committed") or session.reached("aborted")
        # After its life nobody can come in with the key to ask.
        return entry is not None and time.time() - entry["time"] > KEY_LIFE_SECONDS


def close(session: Session) -> None:
    """End the session on this host: channel, secrets and watchdog go; the record stays.

    The watchdog is disarmed last: when this is cut off before that, the watchdog finishes it.
    """
    with contextlib.suppress(MigrationError):
        Channel(session).disconnect()
    session.close(keep=True)
    watchdog.disarm(session.id)


def ask_decision(session: Session, timeout: float = 120.0) -> dict[str, t.Any]:
    """Ask for the destination's decision until it answers or the time is up.

    :raises MigrationError: ``destination_unreachable`` or ``session_locked`` when it did not answer in time; ``channel_revoked``
        or ``channel_closed`` at once, where waiting does not help.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return Channel(session).call("decision", timeout=timeout)
        except MigrationError as exc:
            if exc.code in ("channel_revoked", "channel_closed") or time.monotonic() >= deadline:
                raise
            time.sleep(1)


def _ask_decision_seldom(session: Session, timeout: float) -> dict[str, t.Any]:
    """:func:`ask_decision`, and have the watchdog wait for a minute where the destination does not let this session in.

    Its SSH daemon counts failed logins against this host's address: by 5 seconds each, from 15 on it takes no connection from it
    (PerSourcePenalties, OpenSSH 9.8 and newer). Other migrations, and whatever else this host wants there, would be cut off.

    :raises MigrationError: as :func:`ask_decision` does.
    """
    try:
        return ask_decision(session, timeout)
    except MigrationError as exc:
        if exc.code == "channel_revoked":
            session.rest(_REVOKED_SECONDS)
        raise


def settle(
    original: Original,
    *,
    timeout: float = 120.0,
    other_half_settled: bool = False,
    decision: t.Mapping[str, t.Any] | None = None,
) -> str | None:
    """Bring a session to its end, whatever state it is in. The caller holds the session's lock.

    The original, or its copy, is where it belongs when this returns; the session itself stays open, in the watchdog's care, until
    the destination knows the outcome, so that nothing is left there either.

    :param timeout: seconds to wait for the destination's decision, where that is needed.
    :param other_half_settled: whether the destination's half has been closed by other means, or need not be.
    :param decision: the destination's answer, where somebody has carried it here without the channel; it is not asked then.
    :returns: ``RUN`` when the destination has it, else ``ABORT``.
    :raises MigrationError: when it cannot be settled now (the destination's decision is needed and cannot be had).
    """
    session = original.session
    if session.ended:
        return RUN if session.reached("committed") else ABORT
    if not session.reached("committed") and not session.reached("aborted"):
        if _goes_on_here(session):
            abort(original, destination_lost=session.destination_declared_lost)
        else:
            answer = decision or _ask_decision_seldom(session, timeout)
            if answer["decision"] == RUN:
                commit(original, answer)
            else:
                abort(original)
    outcome = RUN if session.reached("committed") else ABORT
    # A destination that was lost settles its half by itself when it comes back.
    if other_half_settled or session.destination_declared_lost or close_destination_half(session):
        close(session)
    else:
        # Nothing is frozen any more; the watchdog tries it again soon.
        session.renew()
    return outcome
