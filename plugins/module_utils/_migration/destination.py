# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the destination: let the source in, run the copy or refuse it, and take everything away again.

``RUN`` or ``REFUSED``, written once, is the word on which the source kills its copy or lets it go on. What the copy is of is its
own to know, see ``_subjects/subject.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._channel import checkpoint_stream, durable_content, host_keys, messages
from .._channel import server as channel_server
from .._criu import images as criu_images
from .._host.flush import Flush
from .._session import agent_package, watchdog
from .._session.phases import DESTINATION, REFUSED, RUN
from .._session.session import WITH_KEEPER, Session, id_key
from .._subjects.subject import Copy, Kind

# How often a session is looked at that has its word and whose source has not come to hear it.
_UNHEARD_LOOK_SECONDS = 3600.0


def open_session(
    session: str, facts: t.Mapping[str, t.Any], *, channel_user: str, public_key: str, agent: str
) -> tuple[Session, list[str]]:
    """Begin the destination's half of a session and let the source's key in.

    :param facts: ``kind``, what that says of the copy (``Kind.facts_of_copy``), and ``peer_name`` and ``ancestry`` of the
        source's half.
    :param agent: the file of the agent that runs this, and will act for the session.
    :returns: the session and this host's public host keys.
    """
    opened = Session.open(session, DESTINATION, dict(facts, channel_user=channel_user))
    try:
        opened.keep_out_of_swap()
        command = agent_package.install(opened, agent)
        inbox = opened.memory_path("inbox")
        os.makedirs(inbox, mode=0o700, exist_ok=True)
        channel_server.set_targets(opened, {"inbox": inbox})
        channel_server.authorise(opened, channel_user, public_key, command)
        watchdog.arm(opened.id, (*command, "settle", opened.id))
    except BaseException:
        channel_server.revoke(opened)
        watchdog.disarm(opened.id)
        opened.close(keep=False)
        raise
    return opened, host_keys.public()


# -- starting -----------------------------------------------------------------------------------------------------


class _LastWord:
    """Tells the source of a failure, once: it goes on then, and listens no more."""

    def __init__(self, answers: t.BinaryIO) -> None:
        self._answers = answers
        self._said = False

    def tell(self, exc: BaseException) -> None:
        if not self._said:
            self._said = True
            # One that has hung up need not be told.
            with contextlib.suppress(OSError):
                messages.say(self._answers, {"failure": MigrationError.of(exc, "channel_failed").as_failure()})


@contextlib.contextmanager
def _or_refused(copy: Copy, tell: t.Callable[[MigrationError], None] | None = None) -> t.Iterator[None]:
    """Whatever fails in between: REFUSED is decided and the copy is killed, that is told, and all is taken away.

    In this order: who is told may let the source go on at once, so nothing here may be left that could still run. What
    else was made here need not keep the source waiting.
    """
    try:
        yield
    except BaseException as exc:
        failure = MigrationError.of(exc, "restore_failed")
        try:
            if copy.session.decide(REFUSED) == REFUSED:
                _end_copy(copy)
                if tell is not None:
                    tell(failure)
                refuse(copy, failure.message)
        except (MigrationError, OSError) as second:
            raise MigrationError(
                failure.code, f"{failure.message} Taking the copy away failed as well: {second}", **failure.details
            ) from exc
        raise


def start(copy: Copy) -> dict[str, t.Any]:
    """Restore a copy that runs then, prove that it is a restore, and decide RUN.

    :returns: the copy's id, ``processes``, ``recognised``, ``seconds`` of the restore, ``warnings``.
    :raises MigrationError: what went wrong; the session is REFUSED then, and nothing of it runs here.
    """
    copy.require_held(False)
    _require_undecided(copy.session)
    # All of it has come. What is written from here on would be in files that run.
    channel_server.close_targets(copy.session)
    with _or_refused(copy):
        told = copy.start()
    warnings = list(told.pop("warnings"))
    copy.announce()
    try:
        warnings += finish(copy)
    except (MigrationError, OSError) as exc:
        # It runs here, for good; what is left to do is done again when the source says bye.
        warnings.append(f"The {copy.session.kind} runs here, but tidying up is not complete: {exc}")
    return {**told, "warnings": warnings}


def _require_undecided(session: Session) -> None:
    if session.decision is not None:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")


def converse(copy: Copy, source: t.BinaryIO, answers: t.BinaryIO) -> channel_server.Afterwards | None:
    """The frozen time of what can be held: take the checkpoint in, hold the copy, let it go. See ``_channel/messages.py``.

    A source that hangs up decides nothing: what is held then stays held until it asks, or the watchdog refuses it. So it is
    with one that says nothing any more: only what comes from it keeps the watchdog away.

    :returns: what is left to be done when the copy runs.
    """
    copy.require_held(True)
    last_word = _LastWord(answers)
    with contextlib.ExitStack() as stack:
        try:
            # Before the last pass, which begins when the source has heard that all is ready. None where a talk that was cut off
            # has come as far as a restore: the copy is held, or there will be none.
            waits = copy.session.phase == "created"
            flush = stack.enter_context(durable_content.arriving(copy.session)) if waits else None
        except (MigrationError, OSError) as exc:
            last_word.tell(exc)
            return None
        return _converse(copy, source, answers, last_word, flush)


def _converse(
    copy: Copy, source: t.BinaryIO, answers: t.BinaryIO, last_word: _LastWord, flush: Flush | None
) -> channel_server.Afterwards | None:
    place = copy.images()
    received: criu_images.Manifest = {}
    listener = messages.Listener(source, copy.session.renew)
    messages.say(answers, {"ready": True})
    while True:
        message = messages.hear(listener)
        if message is None:
            return None
        try:
            if "put" in message:
                received[message["put"]] = checkpoint_stream.take(listener, message, place)
            elif "hold" in message:
                messages.say(answers, _hold(copy, received, message["hold"], last_word, flush))
                # While the source decides.
                copy.prepare_announcement()
            elif "run" in message:
                told = run(copy)
                messages.say(answers, told)
                return copy.announce_again if told["decision"] == RUN else None
            else:
                raise MigrationError("channel_refused", "The channel does not know that message.")
        except (MigrationError, OSError, KeyError, ValueError) as exc:
            last_word.tell(exc)
            return None


def _hold(
    copy: Copy, received: criu_images.Manifest, told: messages.Message, last_word: _LastWord, flush: Flush | None
) -> dict[str, t.Any]:
    with copy.session.locked():
        _require_undecided(copy.session)
        if flush is None:
            raise MigrationError("restore_failed", "This copy was restored already, in a talk that was cut off.")
        # All of it has come. What is written from here on would be on no disk, or in files that run.
        channel_server.close_targets(copy.session)
        # What was made is taken away with it: nothing of it may be kept busy by us.
        with _or_refused(copy, last_word.tell), flush:
            return copy.hold(received, told["manifest"], told, flush)


def run(copy: Copy) -> dict[str, t.Any]:
    """Let the held copy go, on the source's word; the answer is that of :func:`verdict`."""
    with copy.session.locked():
        reason = ""
        if copy.session.decision is None:
            try:
                copy.run()
            except (MigrationError, OSError) as exc:
                reason = MigrationError.of(exc, "restore_failed").message
        return _word_of_held(copy, reason)


def _word_of_held(copy: Copy, reason: str) -> dict[str, t.Any]:
    """The word about a copy that can be held, decided now if it has not been, without asking its keeper.

    The source stands still until it hears it. A held copy has run nothing, and nobody else can start it: so REFUSED can be given
    out as soon as its tasks are gone. What else was made here goes with ``bye``, or by the watchdog.
    """
    session = copy.session
    if session.phase not in ("run", "refused", "closed"):
        if session.decision is None:
            session.decide(REFUSED)
        if session.decision == RUN:
            copy.let_go()
        else:
            _end_copy(copy)
    return _word(session, reason)


def _word(session: Session, reason: str = "") -> dict[str, t.Any]:
    """What the source is told of a decision; see :func:`verdict`.

    :param reason: of a refusal that has not been noted yet.
    """
    if session.decision != RUN:
        return {"decision": REFUSED, "reason": session.data("refused").get("reason") or reason}
    told, key = session.data("run"), id_key(session.kind)
    answer: dict[str, t.Any] = {"decision": RUN, key: told[key]}
    if told.get("running_since") is not None and session.happened_in_this_boot("run"):
        answer["running_for"] = time.clock_gettime(time.CLOCK_BOOTTIME) - told["running_since"]
    return answer


def finish(copy: Copy) -> list[str]:
    """What follows RUN. May be repeated until the copy has been handed to its keeper, and not after that: see :func:`_hand_over`.

    :returns: why an old copy is left alone, for a person; ``cleanup.yml`` says it again.
    """
    # The files are the copy's own from here on.
    channel_server.close_targets(copy.session)
    left = copy.finish()
    _remove_secrets(copy.session)
    return left


def _remove_secrets(session: Session) -> None:
    """What the source has said about the original."""
    shutil.rmtree(session.memory_path("inbox"), ignore_errors=True)


# -- refusing -----------------------------------------------------------------------------------------------------


def refuse(copy: Copy, reason: str) -> str:
    """Decide REFUSED unless RUN has been decided, and take away what this session made here, once.

    Where it was cut off it begins again. What has to be left is noted with the phase.

    The word is written before the copy is killed, and given out only after: whoever reads REFUSED through the channel may
    thaw the source.

    :returns: the word that is in force.
    """
    session = copy.session
    if session.decide(REFUSED) == RUN:
        return RUN
    if session.phase == "refused":
        # All of it is gone already, and the session has no claim any more: what bears these names now is somebody else's.
        return REFUSED
    _end_copy(copy)
    with contextlib.suppress(OSError):
        _remove_secrets(session)
    left = copy.take_away()
    session.enter("refused", reason=reason, **({"left": left} if left else {}))
    return REFUSED


def _end_copy(copy: Copy) -> None:
    """REFUSED is decided: let nothing more come in, and leave nothing of the copy that could run.

    :raises MigrationError: ``kill_failed``.
    """
    channel_server.close_targets(copy.session)
    copy.end()


# -- the word -----------------------------------------------------------------------------------------------------


def _decide(copy: Copy, reason: str) -> str:
    """RUN or REFUSED, decided now if it has not been. The caller holds the session's lock.

    :raises MigrationError: when it cannot be told now.
    """
    session = copy.session
    if session.decision is None:
        why_not = copy.decide_interrupted()
        if why_not is not None:
            reason = why_not if session.reached("starting") else reason
    if session.decision == RUN:
        if session.phase != "run":
            copy.let_go()
        return RUN
    return refuse(copy, session.data("refused").get("reason") or reason)


def verdict(copy: Copy) -> dict[str, t.Any]:
    """The destination's word, decided now if it has not been.

    :returns: ``decision``, and for RUN the copy's id and ``running_for`` (seconds).
    """
    session = copy.session
    with session.locked(alive=session.decision is None):
        if copy.can_be_held:
            return _word_of_held(copy, "the source gave up before the hand-over")
        # One that cannot be held may run: only its keeper can tell.
        _decide(copy, "the source gave up")
        return _word(session)


def word(kind: Kind, session: Session) -> dict[str, t.Any]:
    """:func:`verdict` for who carries it to the source by another way than the channel, also that of a half that is closed.

    :param kind: of what the session moves.
    :returns: ``session``, ``decision``, and for RUN the copy's id; plain data that may take its time.
    :raises MigrationError: ``not_a_destination``; as :func:`verdict`.
    """
    if session.role != DESTINATION:
        raise MigrationError(
            "not_a_destination", f"Session {session.id} is a source here; the word that counts is the destination's."
        )
    told = _word(session) if session.ended else verdict(kind.copy(session))
    keys = ("decision", id_key(session.kind))
    return {"session": session.id, **{key: told[key] for key in keys if key in told}}


def bye(copy: Copy) -> dict[str, t.Any]:
    """The source is done with this session: settle and close it."""
    with copy.session.locked():
        settle(copy, heard=True)
    return {}


def settle(copy: Copy, *, heard: bool = False) -> str | None:
    """Bring the destination's half to its end. The caller holds its lock.

    :param heard: whether the source knows the outcome. Until it does, the word stays here to be asked for; the channel and a
        watchdog that seldom looks stay with it for the life of the key, and after that the word alone, for recover.yml to carry.
    :returns: ``RUN`` or ``REFUSED``.
    """
    session = copy.session
    decision = session.decision
    if session.ended:
        if heard and decision == REFUSED:
            session.close(keep=_has_left(session), heard=True)
        return decision
    # A source that was never told that this host is ready can never have handed over: it has nothing to ask.
    may_ask = session.reached("created") is not None
    if _decide(copy, "nobody finished it") == RUN:
        _hand_over(copy)
    decision = session.decision
    if heard or not may_ask:
        close(session)
        return decision
    key_left = float(session.facts["opened"]) + channel_server.KEY_LIFE_SECONDS - time.time()
    if key_left < 0:
        close(session, keep=True)
    else:
        session.rest(min(_UNHEARD_LOOK_SECONDS, key_left + 1))
    return decision


def _hand_over(copy: Copy) -> bool:
    """Do what follows RUN, once. From then on the copy is its owner's, who may stop it, update it or move it on.

    The half may be looked at for a day after that, until its source has heard the word. What is given to it once more would start
    what has been moved on by then; and who has stopped it wants it to be down.

    :returns: whether it was left to be done.
    """
    session = copy.session
    if os.path.exists(session.path(WITH_KEEPER)):
        return False
    finish(copy)
    copy.hand_to_keeper()
    session.with_room(lambda: durable.publish(session.path(WITH_KEEPER), b""))
    return True


def finish_arrival(kind: Kind, copy_id: str) -> bool:
    """Do what follows RUN for the move that has brought something here, before it is moved on.

    :param copy_id: its id.
    :returns: whether anything was left to be done.
    :raises MigrationError: ``session_locked``; what stands in the way.
    """
    done = False
    for session in Session.all():
        came = session.role == DESTINATION and session.decision == RUN and not session.ended
        if came and session.kind == kind.noun and session.copy_id == copy_id:
            with session.locked():
                copy = kind.copy(session)
                if not session.ended and _decide(copy, "") == RUN:
                    done = _hand_over(copy) or done
    return done


def _has_left(session: Session) -> bool:
    """Whether a refusal could not take all away, which somebody should read."""
    return bool(session.data("refused").get("left"))


def close(session: Session, *, keep: bool = False) -> None:
    """End the session on this host; one that runs here leaves its record, a refused one that its source knows of nothing.

    Unless something of that had to be left here: then its record stays for a person to read, as others do.

    The watchdog goes last: it finishes what is cut off before.

    :param keep: whether the record stays in any case, for a source that has not heard of it.
    """
    channel_server.revoke(session)
    session.close(keep=keep or session.decision == RUN or _has_left(session), heard=not keep)
    watchdog.disarm(session.id)
