# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the destination: let the source in, run the copy or refuse it, and take everything away again.

``RUN`` or ``REFUSED``, written once, is the word on which the source kills its copy or lets it go on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._channel import checkpoint_stream, durable_content, host_keys, messages
from .._channel import server as channel_server
from .._criu import images as criu_images
from .._docker.engine import Engine
from .._engines import api as engine_api
from .._engines import by_name as engines
from .._engines import connections
from .._engines import runtime as engine_runtime
from .._host.flush import Flush
from .._host.tasks import group_of_id
from .._network.announce import Announcer
from .._session import agent_package, watchdog
from .._session.phases import DESTINATION, REFUSED, RUN
from .._session.session import WITH_DOCKER, Session
from .._subjects.container import creation, made_places, old_copy, restart_policy

# How often a session is looked at that has its word and whose source has not come to hear it.
_UNHEARD_LOOK_SECONDS = 3600.0


def open_session(
    session: str, facts: t.Mapping[str, t.Any], *, channel_user: str, public_key: str, agent: str
) -> tuple[Session, list[str]]:
    """Begin the destination's half of a session and let the source's key in.

    :param facts: ``container_id``, ``container_name``, ``peer_name``, ``ancestry``, ``engine`` of the source's half.
    :param agent: the file of the agent that runs this, and will act for the session.
    :returns: the session and this host's public host keys.
    """
    data_root = Engine().info()["DockerRootDir"]
    opened = Session.open(session, DESTINATION, dict(facts, channel_user=channel_user, data_root=data_root))
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
def _or_refused(session: Session, tell: t.Callable[[MigrationError], None] | None = None) -> t.Iterator[None]:
    """Whatever fails in between: REFUSED is decided and the copy is killed, that is told, and all is taken away.

    In this order: who is told may let the source go on at once, so nothing here may be left that could still run. What
    else was made here need not keep the source waiting.
    """
    try:
        yield
    except BaseException as exc:
        failure = MigrationError.of(exc, "restore_failed")
        try:
            if session.decide(REFUSED) == REFUSED:
                _end_copy(session)
                if tell is not None:
                    tell(failure)
                refuse(session, Engine(), failure.message)
        except (MigrationError, OSError) as second:
            raise MigrationError(
                failure.code, f"{failure.message} Taking the copy away failed as well: {second}", **failure.details
            ) from exc
        raise


def start(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Restore the copy, which runs then (engine ``api``), prove that it is a restore, and decide RUN.

    :returns: ``container_id``, ``processes``, ``recognised``, ``seconds`` of the restore, ``warnings``.
    :raises MigrationError: what went wrong; the session is REFUSED then, and nothing of it runs here.
    """
    engines.require(session, engines.API)
    _require_undecided(session)
    # All of it has come. What is written from here on would be in files that run.
    channel_server.close_targets(session)
    with _or_refused(session):
        told = engine_api.start(session, engine)
    warnings = list(told.pop("warnings"))
    with contextlib.suppress(MigrationError):
        init = int(engine.inspect(told["container_id"])["State"]["Pid"])
        with connections.announcer(session, init) or contextlib.nullcontext() as announcer:
            if announcer is not None:
                announcer.send()
    try:
        warnings += finish(session, engine)
    except (MigrationError, OSError) as exc:
        # It runs here, for good; what is left to do is done again when the source says bye.
        warnings.append(f"The container runs here, but tidying up is not complete: {exc}")
    return {**told, "warnings": warnings}


def _require_undecided(session: Session) -> None:
    if session.decision is not None:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")


def converse(session: Session, source: t.BinaryIO, answers: t.BinaryIO) -> channel_server.Afterwards | None:
    """The frozen time of the engine ``runtime``: take the checkpoint in, hold the copy, let it go. See ``_channel/messages.py``.

    A source that hangs up decides nothing: what is held then stays held until it asks, or the watchdog refuses it. So it is
    with one that says nothing any more: only what comes from it keeps the watchdog away.

    :returns: what is left to be done when the copy runs.
    """
    engines.require(session, engines.RUNTIME)
    last_word = _LastWord(answers)
    with contextlib.ExitStack() as stack:
        try:
            # Before the last pass, which begins when the source has heard that all is ready. None where a talk that was cut off
            # has come as far as a restore: the copy is held, or there will be none.
            flush = stack.enter_context(durable_content.arriving(session)) if session.phase == "created" else None
        except (MigrationError, OSError) as exc:
            last_word.tell(exc)
            return None
        return _converse(session, source, answers, last_word, flush)


def _converse(
    session: Session, source: t.BinaryIO, answers: t.BinaryIO, last_word: _LastWord, flush: Flush | None
) -> channel_server.Afterwards | None:
    place = engine_runtime.checkpoint_place(session)
    received: criu_images.Manifest = {}
    announcer: Announcer | None = None
    listener = messages.Listener(source, session.renew)
    messages.say(answers, {"ready": True})
    while True:
        message = messages.hear(listener)
        if message is None:
            return None
        try:
            if "put" in message:
                received[message["put"]] = checkpoint_stream.take(listener, message, place)
            elif "hold" in message:
                messages.say(answers, _hold(session, received, message["hold"], last_word, flush))
                # While the source decides.
                announcer = connections.announcer(session, engine_runtime.init_of(session))
            elif "run" in message:
                told = run(session, announcer)
                messages.say(answers, told)
                return functools.partial(connections.repeat, announcer) if told["decision"] == RUN else None
            else:
                raise MigrationError("channel_refused", "The channel does not know that message.")
        except (MigrationError, OSError, KeyError, ValueError) as exc:
            last_word.tell(exc)
            return None


def _hold(
    session: Session,
    received: criu_images.Manifest,
    told: messages.Message,
    last_word: _LastWord,
    flush: Flush | None,
) -> dict[str, t.Any]:
    with session.locked():
        _require_undecided(session)
        if flush is None:
            raise MigrationError("restore_failed", "This copy was restored already, in a talk that was cut off.")
        # All of it has come. What is written from here on would be on no disk, or in files that run.
        channel_server.close_targets(session)
        # What was made is taken away with it: nothing of it may be kept busy by us.
        with _or_refused(session, last_word.tell), flush:
            network = connections.Arrangement.parse(told["network"])
            return engine_runtime.hold(
                session, received, told["manifest"], told["fingerprints"], network, told["surroundings"], flush
            )


def run(session: Session, announcer: Announcer | None = None) -> dict[str, t.Any]:
    """Let the held copy go, on the source's word; the answer is that of :func:`verdict`.

    :param announcer: see ``engine_runtime.run``.
    """
    with session.locked():
        reason = ""
        if session.decision is None:
            try:
                engine_runtime.run(session, announcer)
            except (MigrationError, OSError) as exc:
                reason = MigrationError.of(exc, "restore_failed").message
        return _word_of_held(session, reason)


def _word_of_held(session: Session, reason: str) -> dict[str, t.Any]:
    """The word about a copy of the engine ``runtime``, decided now if it has not been, without asking the Docker Engine.

    The source stands still until it hears it. A held copy has run nothing, and its mark keeps everybody from starting it: so
    REFUSED can be given out as soon as its tasks are gone. What else was made here goes with ``bye``, or by the watchdog.
    """
    if session.phase not in ("run", "refused", "closed"):
        if session.decision is None:
            session.decide(REFUSED)
        if session.decision == RUN:
            engine_runtime.let_go(session)
        else:
            _end_copy(session)
    return _word(session, reason)


def _word(session: Session, reason: str = "") -> dict[str, t.Any]:
    """What the source is told of a decision; see :func:`verdict`.

    :param reason: of a refusal that has not been noted yet.
    """
    if session.decision != RUN:
        return {"decision": REFUSED, "reason": session.data("refused").get("reason") or reason}
    told = session.data("run")
    answer: dict[str, t.Any] = {"decision": RUN, "container_id": told["container_id"]}
    if told.get("running_since") is not None and session.happened_in_this_boot("run"):
        answer["running_for"] = time.clock_gettime(time.CLOCK_BOOTTIME) - told["running_since"]
    return answer


def finish(session: Session, engine: Engine) -> list[str]:
    """What follows RUN: restart policy, no checkpoint left, the superseded old copy removed.

    May be repeated until the container has been handed to Docker, and not after that: see :func:`_hand_over`.

    :returns: why an old copy is left alone, for a person; ``cleanup.yml`` says it again.
    """
    # The files are the container's own from here on.
    channel_server.close_targets(session)
    container = session.data("run")["container_id"]
    inspect = engine.find(container)
    left = []
    if inspect is not None:
        restart_policy.put(session, engine, container, inspect, session.data("created")["policy"])
        left = _remove_superseded(session, engine)
    # Also where somebody has removed the container meanwhile: its memory must not stay.
    engines.of(session).finish(session, engine, container)
    _remove_secrets(session)
    return left


def _remove_superseded(session: Session, engine: Engine) -> list[str]:
    """Remove the old copies that earlier moves have left here: their memory is outdated, their volumes are the new copy's now."""
    left = []
    for earlier in creation.own_past(session):
        old = engine.find(earlier.facts["container_id"])
        try:
            if old is not None:
                old_copy.remove(earlier, engine, old)
        except MigrationError as exc:
            if exc.code == "engine_unreachable":
                raise
            # One that is in use, or that this engine cannot remove (its layer is busy) and perhaps never can: nothing of the
            # container that came waits for that. Else the session would stay open, and put its restart policy again and again.
            left.append(exc.message)
    return left


def _remove_secrets(session: Session) -> None:
    """The container's spec."""
    shutil.rmtree(session.memory_path("inbox"), ignore_errors=True)


# -- refusing -----------------------------------------------------------------------------------------------------


def refuse(session: Session, engine: Engine, reason: str) -> str:
    """Decide REFUSED unless RUN has been decided, and take away what this session made here, once.

    Where it was cut off it begins again. What has to be left is noted with the phase, see ``_subjects/container/made_places.py``.

    The word is written before the copy is killed, and given out only after: whoever reads REFUSED through the channel may
    thaw the source.

    :returns: the word that is in force.
    """
    if session.decide(REFUSED) == RUN:
        return RUN
    if session.phase == "refused":
        # All of it is gone already, and the session has no claim any more: what bears these names now is somebody else's.
        return REFUSED
    _end_copy(session)
    with contextlib.suppress(OSError):
        _remove_secrets(session)
    made = session.data("creating")
    left: list[str] = []
    if made:
        copy = session.data("created").get("container_id") or made["name"]
        engines.of(session).discard(session, _remove_copy(engine, copy) or copy)
        left = made_places.take_away(session, engine)
        for network in made["networks"]:
            engine.remove_network(network)
    creation.remove_image(session, engine)
    session.enter("refused", reason=reason, **({"left": left} if left else {}))
    return REFUSED


def _end_copy(session: Session) -> None:
    """REFUSED is decided: let nothing more come in, and leave nothing of the copy that could run.

    Without the engine, which answers nothing about a container that it is still starting.

    :raises MigrationError: ``kill_failed``.
    """
    channel_server.close_targets(session)
    container = session.data("created").get("container_id")
    if container:
        _kill(container, engines.of(session).give_up(session, container))


def _kill(container: str, cgroup: str = "") -> None:
    group = group_of_id(container, cgroup)
    if group is not None:
        group.kill()


def _remove_copy(engine: Engine, container: str) -> str | None:
    """Take the copy away and make sure, without taking Docker's word for it, that none of its tasks is left.

    :returns: its id, if there was one.
    :raises MigrationError: ``kill_failed``.
    """
    found = engine.find(container)
    if found is None:
        return None
    engine.remove(found["Id"])
    _kill(found["Id"])
    if engine.find(found["Id"]) is not None:
        raise MigrationError(
            "kill_failed", "The restored copy cannot be removed from the destination.", container=found["Id"]
        )
    return str(found["Id"])


# -- the word -----------------------------------------------------------------------------------------------------


def _decide(session: Session, engine: Engine, reason: str) -> str:
    """RUN or REFUSED, decided now if it has not been. The caller holds the session's lock.

    :raises MigrationError: when it cannot be told now.
    """
    way = engines.of(session)
    if session.decision is None:
        why_not = way.decide_interrupted(session, engine)
        if why_not is not None:
            reason = why_not if session.reached("starting") else reason
    if session.decision == RUN:
        if session.phase != "run":
            way.let_go(session)
        return RUN
    return refuse(session, engine, session.data("refused").get("reason") or reason)


def verdict(session: Session) -> dict[str, t.Any]:
    """The destination's word, decided now if it has not been.

    :returns: ``decision``, and for RUN ``container_id`` and ``running_for`` (seconds).
    """
    with session.locked(alive=session.decision is None):
        if session.facts.get("engine") == engines.RUNTIME:
            return _word_of_held(session, "the source gave up before the hand-over")
        # A copy of the engine api may run: only the Docker Engine can tell.
        _decide(session, Engine(), "the source gave up")
        return _word(session)


def word(session: Session) -> dict[str, t.Any]:
    """:func:`verdict` for who carries it to the source by another way than the channel, also that of a half that is closed.

    :returns: ``session``, ``decision``, and for RUN ``container_id``; plain data that may take its time.
    :raises MigrationError: ``not_a_destination``; as :func:`verdict`.
    """
    if session.role != DESTINATION:
        raise MigrationError(
            "not_a_destination", f"Session {session.id} is a source here; the word that counts is the destination's."
        )
    told = _word(session) if session.ended else verdict(session)
    return {"session": session.id, **{key: told[key] for key in ("decision", "container_id") if key in told}}


def bye(session: Session, engine: Engine) -> dict[str, t.Any]:
    """The source is done with this session: settle and close it."""
    with session.locked():
        settle(session, engine, heard=True)
    return {}


def settle(session: Session, engine: Engine, *, heard: bool = False) -> str | None:
    """Bring the destination's half to its end. The caller holds its lock.

    :param heard: whether the source knows the outcome. Until it does, the word stays here to be asked for; the channel and a
        watchdog that seldom looks stay with it for the life of the key, and after that the word alone, for recover.yml to carry.
    :returns: ``RUN`` or ``REFUSED``.
    """
    decision = session.decision
    if session.ended:
        if heard and decision == REFUSED:
            session.close(keep=_has_left(session), heard=True)
        return decision
    # A source that was never told that this host is ready can never have handed over: it has nothing to ask.
    may_ask = session.reached("created") is not None
    if _decide(session, engine, "nobody finished it") == RUN:
        _hand_over(session, engine)
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


def _hand_over(session: Session, engine: Engine) -> None:
    """Do what follows RUN, once. From then on the container is its owner's, who may stop it, update it or move it on.

    The half may be looked at for a day after that, until its source has heard the word. A restart policy that is put once more
    would have Docker start what has been moved on by then; and who has stopped it wants it to be down.
    """
    if not os.path.exists(session.path(WITH_DOCKER)):
        finish(session, engine)
        _hand_to_docker(session, engine)


def finish_arrival(engine: Engine, container: str) -> None:
    """Do what follows RUN for the move that has brought a container here, before it is moved on.

    :param container: its name or id; one that is not there has not come.
    :raises MigrationError: ``session_locked``; what stands in the way.
    """
    inspect = engine.find(container)
    if inspect is None:
        return
    for session in Session.all():
        came = session.role == DESTINATION and session.decision == RUN and not session.ended
        if came and session.data("created").get("container_id") == inspect["Id"]:
            with session.locked():
                if not session.ended and _decide(session, engine, "") == RUN:
                    _hand_over(session, engine)


def _hand_to_docker(session: Session, engine: Engine) -> None:
    """From here on Docker answers for the copy, by the restart policy that it has got.

    One that has ended before, with this host or with a Docker Engine without live-restore, stayed down, because a copy is created
    without a policy: do what Docker would have done.
    """
    container = session.data("run")["container_id"]
    inspect = engine.find(container)
    if inspect is not None and _would_be_started(session, inspect["State"]):
        engine.start(container)
    session.with_room(lambda: durable.publish(session.path(WITH_DOCKER), b""))


def _would_be_started(session: Session, state: t.Mapping[str, t.Any]) -> bool:
    """Whether Docker would start a container in this state, had it had its policy when it ended."""
    if state["Running"]:
        return False
    policy = session.data("created")["policy"].get("Name")
    if policy == "on-failure":
        # Not the boot of "run": a host may go down between the decision and its note.
        return bool(state["ExitCode"]) or not session.happened_in_this_boot("starting")
    return policy in ("always", "unless-stopped")


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
