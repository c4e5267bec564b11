# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the destination: let the source in, run the copy or refuse it, and take everything away again.

``RUN`` or ``REFUSED``, written once, is the decision on which the source kills its copy or lets it go on. Only the copy knows
what it is a copy of, see ``_subjects/subject.py``.
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

# How often the watchdog looks at a session whose decision the source has not asked for.
_SELDOM_LOOK_SECONDS = 3600.0


def open_session(
    session: str, facts: t.Mapping[str, t.Any], *, channel_user: str, public_key: str, agent: str
) -> tuple[Session, list[str]]:
    """Begin the destination's half of a session and let the source's key in.

    :param facts: ``kind``, the facts of the copy that its kind gives (``Kind.facts_of_copy``), and ``peer_name`` and
        ``ancestry`` of the source's half.
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
        # The watchdog comes first, so that there is never a key or a sudo rule that nobody takes away.
        watchdog.arm(opened.id, (*command, "settle", opened.id))
        channel_server.authorise(opened, channel_user, public_key, command)
    except BaseException:
        channel_server.revoke(opened)
        watchdog.disarm(opened.id)
        opened.close(keep=False)
        raise
    return opened, host_keys.public()


# -- starting -----------------------------------------------------------------------------------------------------


class _FailureReport:
    """Sends the source one failure, the first. The source ends the conversation then."""

    def __init__(self, answers: t.BinaryIO) -> None:
        self._answers = answers
        self._sent = False

    def send(self, exc: BaseException) -> None:
        if not self._sent:
            self._sent = True
            # One that has closed the connection need not get it.
            with contextlib.suppress(OSError):
                messages.send(self._answers, {"failure": MigrationError.of(exc, "channel_failed").as_failure()})


@contextlib.contextmanager
def _or_refused(copy: Copy, report: t.Callable[[MigrationError], None] | None = None) -> t.Iterator[None]:
    """When something fails in this block, decide REFUSED, kill the copy, report that to the source, and take everything away.

    In this order: the source may go on as soon as it has the report, so nothing here may be left that could still run. The source
    need not wait until everything else is taken away.

    :param report: sends the source a failure; None where it does not wait for one.
    """
    try:
        yield
    except BaseException as exc:
        failure = MigrationError.of(exc, "restore_failed")
        try:
            if copy.session.decide(REFUSED) == REFUSED:
                _end_copy(copy)
                if report is not None:
                    report(failure)
                refuse(copy, failure.message)
        except (MigrationError, OSError) as second:
            raise MigrationError(
                failure.code, f"{failure.message} Taking the copy away failed as well: {second}", **failure.details
            ) from exc
        raise


def start(copy: Copy) -> dict[str, t.Any]:
    """Restore a copy that cannot be held, so that it runs at once. Prove that it is a restore, and decide RUN.

    :returns: the copy's id, ``processes``, ``recognised``, ``seconds`` of the restore, ``warnings``.
    :raises MigrationError: what went wrong; the session is REFUSED then, and nothing of it runs here.
    """
    copy.require_held(False)
    _require_undecided(copy.session)
    # All content has arrived. What is written from here on would be in files of a copy that runs.
    channel_server.close_targets(copy.session)
    sent = durable.read_json(copy.session.memory_path("inbox", "manifest.json")) or {}
    copy.session.expect_end(criu_images.total_bytes(sent))
    with _or_refused(copy):
        result = copy.start()
    warnings = list(result.pop("warnings"))
    copy.announce()
    try:
        warnings += finish(copy)
    except (MigrationError, OSError) as exc:
        # It runs here, for good; what is left to do is done again when the source closes this half.
        warnings.append(f"The {copy.session.kind} runs here, but tidying up is not complete: {exc}")
    return {**result, "warnings": warnings}


def _require_undecided(session: Session) -> None:
    """Before a restore.

    :raises MigrationError: ``already_refused``.
    """
    if session.decision is not None:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    # What was sent with it lay in memory. And a REFUSED that was on no disk may have been given out before that.
    if not session.happened_in_this_boot("opened"):
        raise MigrationError(
            "already_refused",
            f"The destination was started again since session {session.id} began, which ends it there.",
        )


def serve_handover(copy: Copy, source: t.BinaryIO, answers: t.BinaryIO) -> channel_server.Afterwards | None:
    """The handover of a copy that can be held: receive the checkpoint, hold the copy, let it run. See ``_channel/messages.py``.

    A source that closes the connection decides nothing: a copy that is held then stays held until the source asks for the
    decision, or the watchdog refuses it. The same is true of a source that sends nothing any more: only what arrives from it
    keeps the watchdog away.

    :returns: what is left to be done when the copy runs.
    """
    copy.require_held(True)
    failure_report = _FailureReport(answers)
    with contextlib.ExitStack() as stack:
        try:
            # Before the last pass, which begins when the source knows that all is ready. None where an earlier conversation was
            # cut off after it had begun a restore: the copy is held, or there will be none.
            waits = copy.session.phase == "created"
            # The decision about what stands still there must find a place here, too.
            copy.session.prepare_decision()
            flush = stack.enter_context(durable_content.arriving(copy.session)) if waits else None
        except (MigrationError, OSError) as exc:
            failure_report.send(exc)
            return None
        return _answer_messages(copy, source, answers, failure_report, flush)


def _answer_messages(
    copy: Copy, source: t.BinaryIO, answers: t.BinaryIO, failure_report: _FailureReport, flush: Flush | None
) -> channel_server.Afterwards | None:
    place = copy.images()
    received: criu_images.Manifest = {}
    stream = messages.KeepAliveReader(source, copy.session.renew)
    messages.send(answers, {"ready": True})
    while True:
        message = messages.receive(stream)
        if message is None:
            return None
        try:
            if "put" in message:
                received[message["put"]] = checkpoint_stream.take(stream, message, place)
            elif "hold" in message:
                messages.send(answers, _hold(copy, received, message["hold"], failure_report, flush))
                # While the source decides.
                copy.prepare_announcement()
            elif "run" in message:
                answer = run(copy)
                messages.send(answers, answer)
                return copy.announce_again if answer["decision"] == RUN else None
            else:
                raise MigrationError("channel_refused", "The destination's agent does not know that message.")
        except (MigrationError, OSError, KeyError, ValueError) as exc:
            failure_report.send(exc)
            return None


def _hold(
    copy: Copy,
    received: criu_images.Manifest,
    request: messages.Message,
    failure_report: _FailureReport,
    flush: Flush | None,
) -> dict[str, t.Any]:
    with copy.session.locked():
        _require_undecided(copy.session)
        if flush is None:
            raise MigrationError(
                "restore_failed", "This copy was restored already, in a conversation that was cut off."
            )
        # All of it has come. What is written from here on would be on no disk, or in files of a copy that runs.
        channel_server.close_targets(copy.session)
        copy.session.expect_end(criu_images.total_bytes(received))
        # The flush ends first: what was made here is taken away afterwards, and we must not keep it busy.
        with _or_refused(copy, failure_report.send), flush:
            return copy.hold(received, request["manifest"], request, flush)


def run(copy: Copy) -> dict[str, t.Any]:
    """Let the held copy run, as the source has decided; the answer is that of :func:`make_decision`."""
    with copy.session.locked():
        reason = ""
        if copy.session.decision is None:
            try:
                copy.run()
            except (MigrationError, OSError) as exc:
                reason = MigrationError.of(exc, "restore_failed").message
        return _decision_on_held_copy(copy, reason)


def _decision_on_held_copy(copy: Copy, reason: str) -> dict[str, t.Any]:
    """The decision on a copy that can be held, made now if it has not been made, without asking its keeper.

    What is moved stays frozen on the source until the source has this decision. A held copy has run nothing, and nobody else can
    start it. So REFUSED can be sent as soon as the tasks of the copy are gone. What else was made here is taken away with the
    command ``close``, or by the watchdog.
    """
    session = copy.session
    if session.phase not in ("run", "refused", "closed"):
        if session.decision is None:
            session.decide(REFUSED)
        if session.decision == RUN:
            copy.let_go()
        else:
            _end_copy(copy)
    return _decision_answer(session, reason)


def _decision_answer(session: Session, reason: str = "") -> dict[str, t.Any]:
    """The answer to the source that carries a decision; see :func:`make_decision`.

    :param reason: of a refusal that has not been noted yet.
    """
    if session.decision != RUN:
        return {"decision": REFUSED, "reason": session.data("refused").get("reason") or reason}
    noted, key = session.data("run"), id_key(session.kind)
    answer: dict[str, t.Any] = {"decision": RUN, key: noted[key]}
    if noted.get("running_since") is not None and session.happened_in_this_boot("run"):
        answer["running_for"] = time.clock_gettime(time.CLOCK_BOOTTIME) - noted["running_since"]
    return answer


def finish(copy: Copy) -> list[str]:
    """Do what follows RUN. This may be repeated until the copy has been handed to its keeper, and not after that: see
    :func:`_hand_to_keeper_once`.

    :returns: the reasons why old copies are left alone, as sentences for a person; ``cleanup.yml`` gives them again.
    """
    # The files are the copy's own from here on.
    channel_server.close_targets(copy.session)
    left = copy.finish()
    _remove_secrets(copy.session)
    return left


def _remove_secrets(session: Session) -> None:
    """Delete the description of the original that the source has sent."""
    shutil.rmtree(session.memory_path("inbox"), ignore_errors=True)


def reach(copy: Copy, seconds: float) -> None:
    """Connect to the keeper of the copy. Where it does not answer, decide all the same: see :func:`_decision_on_held_copy`.

    :param seconds: the time that the keeper has to answer.
    :raises MigrationError: ``engine_unreachable`` ...
    """
    try:
        copy.reach(seconds)
    except MigrationError:
        if copy.can_be_held:
            _decision_on_held_copy(copy, "nobody finished it")
        raise


# -- refusing -----------------------------------------------------------------------------------------------------


def refuse(copy: Copy, reason: str) -> str:
    """Decide REFUSED unless RUN has been decided, and take away what this session made here, once.

    Where this was cut off, it begins again. What has to be left here is noted with the phase.

    The decision is written before the copy is killed, and sent only after that: a source that reads REFUSED through the channel
    may thaw what is moved.

    :returns: the decision that is in force.
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
    """After REFUSED: receive nothing any more, and leave nothing of the copy that could run.

    :raises MigrationError: ``kill_failed``.
    """
    channel_server.close_targets(copy.session)
    copy.end()


# -- the decision -----------------------------------------------------------------------------------------------------


def _decide(copy: Copy, reason: str) -> str:
    """RUN or REFUSED, decided now if it has not been. The caller holds the session's lock.

    :raises MigrationError: when it cannot be known now.
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


def make_decision(copy: Copy) -> dict[str, t.Any]:
    """The destination's decision as its source receives it; it is made now if it has not been made.

    :returns: ``decision``, and for RUN the copy's id and ``running_for`` (seconds).
    """
    session = copy.session
    if copy.can_be_held and session.decision == REFUSED:
        # Nobody can decide otherwise any more. Who holds the lock may be waiting for a keeper that does not answer, and the
        # source waits for this with what is moved frozen.
        _end_copy(copy)
        return _decision_answer(session)
    with session.locked(alive=session.decision is None):
        if copy.can_be_held:
            return _decision_on_held_copy(copy, "the source gave up before the hand-over")
        # One that cannot be held may run: only its keeper can tell.
        _decide(copy, "the source gave up")
        return _decision_answer(session)


def decision_to_carry(kind: Kind, session: Session) -> dict[str, t.Any]:
    """The destination's decision for a playbook that carries it to the source without the channel, also of a half that is closed.

    :param kind: of what the session moves.
    :returns: ``session``, ``decision``, and for RUN the copy's id; plain data that stays true.
    :raises MigrationError: ``not_a_destination``; as :func:`make_decision`.
    """
    if session.role != DESTINATION:
        raise MigrationError(
            "not_a_destination",
            f"Session {session.id} is a source here; the decision that counts is the destination's.",
        )
    answer = _decision_answer(session) if session.ended else make_decision(kind.copy(session))
    keys = ("decision", id_key(session.kind))
    return {"session": session.id, **{key: answer[key] for key in keys if key in answer}}


def source_is_done(copy: Copy) -> dict[str, t.Any]:
    """The source is done with this session: settle and close it."""
    with copy.session.locked():
        settle(copy, source_knows=True)
    return {}


def settle(copy: Copy, *, source_knows: bool = False) -> str | None:
    """Bring the destination's half to its end. The caller holds the session's lock.

    :param source_knows: whether the source knows the outcome. Until it does, the decision stays here to be asked for. The channel
        and a watchdog that seldom looks stay as well while the key is valid. After that only the decision stays, and recover.yml
        carries it to the source.
    :returns: ``RUN`` or ``REFUSED``.
    """
    session = copy.session
    decision = session.decision
    if session.ended:
        if source_knows and decision == REFUSED:
            session.close(keep=_has_left(session), other_host_knows=True)
        return decision
    # A source that does not know that this host is ready cannot have handed over: it has nothing to ask.
    may_ask = session.reached("created") is not None
    if _decide(copy, "nobody finished it") == RUN:
        _hand_to_keeper_once(copy)
    decision = session.decision
    if source_knows or not may_ask:
        close(session)
        return decision
    key_left = float(session.facts["opened"]) + channel_server.KEY_LIFE_SECONDS - time.time()
    if key_left < 0:
        close(session, keep=True)
    else:
        session.rest(min(_SELDOM_LOOK_SECONDS, key_left + 1))
    return decision


def _hand_to_keeper_once(copy: Copy) -> bool:
    """Do what follows RUN, once. From then on the copy belongs to its owner, who may stop it, update it or move it on.

    The half may be looked at for a day after that, until its source knows the decision. If it were handed to its keeper once
    more, that would start what has been moved on by then, or what its owner has stopped.

    :returns: whether it had not been done before.
    """
    session = copy.session
    if os.path.exists(session.path(WITH_KEEPER)):
        return False
    # In memory as well: a disk that is full may not take the note for a long time.
    noted = session.memory_path(WITH_KEEPER)
    was_done = os.path.exists(noted)
    if not was_done:
        finish(copy)
        copy.hand_to_keeper()
        with open(noted, "wb"):
            pass
    session.write_even_when_full(lambda: durable.publish(session.path(WITH_KEEPER), b""))
    return not was_done


def finish_arrival(kind: Kind, copy_id: str) -> bool:
    """Finish the move that has brought something here, before it is moved on to another host.

    :param copy_id: its id.
    :returns: whether anything had not been done before.
    :raises MigrationError: ``session_locked``; ``session_busy`` where that move is not decided; what prevents it.
    """
    done = False
    for session in Session.all():
        came = session.role == DESTINATION and not session.ended
        if came and session.kind == kind.noun and session.copy_id == copy_id:
            if session.decision != RUN:
                # It is held, and may look as if it ran. Who froze and thawed it would let it run beside its original.
                raise MigrationError(
                    "session_busy",
                    f"This {kind.noun} is the copy of session {session.id}, which has not been handed over to this host (phase "
                    f"{session.phase}). Let that session end, or settle it with playbooks/recover.yml.",
                    session=session.id,
                    phase=session.phase,
                )
            with session.locked():
                copy = kind.copy(session)
                if not session.ended and _decide(copy, "") == RUN:
                    done = _hand_to_keeper_once(copy) or done
    return done


def _has_left(session: Session) -> bool:
    """Whether a refusal had to leave something here, so that a person should read its record."""
    return bool(session.data("refused").get("left"))


def close(session: Session, *, keep: bool = False) -> None:
    """End the session on this host. A session whose copy runs here leaves its record. A refusal that its source knows of leaves
    nothing.

    Where a refusal had to leave something here, its record stays too, for a person to read.

    The watchdog is disarmed last: when this is cut off before that, the watchdog finishes it.

    :param keep: whether the record stays in any case, for a source that does not know of it.
    """
    channel_server.revoke(session)
    session.close(keep=keep or session.decision == RUN or _has_left(session), other_host_knows=not keep)
    watchdog.disarm(session.id)
