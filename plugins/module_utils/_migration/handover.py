# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The frozen time of the engine ``runtime``, on the source: from the freeze to the end of the old copy in one go.

Everything that can be made ready is ready before: the connection stands, the destination's agent is loaded and waits, the
call that starts the copy waits for its checkpoint. See ``destination.converse`` for the other end.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from .._base import durable, printable
from .._base.errors import MigrationError
from .._channel import checkpoint_stream, messages
from .._channel.client import Channel
from .._channel.conversation import Conversation
from .._docker import runc
from .._docker.engine import Engine, memory_timeout
from .._engines import by_name as engines
from .._engines import connections, removed_names
from .._engines import runtime as engine_runtime
from .._host import deleted_files
from .._host.tasks import TaskGroup
from .._session.phases import RUN
from .._session.session import Session
from . import freeze, source
from .transfer import LastPass, content_trees

# Seconds for an answer, besides what memory takes.
_ANSWER_SECONDS = 60.0


def _send(
    session: Session,
    talk: Conversation,
    images: checkpoint_stream.Follower,
    content: LastPass,
    found: t.Mapping[str, int],
) -> tuple[int, dict[str, t.Any]]:
    """The rest of the checkpoint through the talk, and beside it whatever else has changed; then the copy is restored and held.

    :param found: what the dump told of connections.
    :returns: the bytes sent, and what the destination tells of the held copy.
    """
    patience = memory_timeout(session.data("dumped")["bytes"])
    content.dumped()
    try:
        with talk.within(patience):
            manifest, sent = images.finish()
    except BrokenPipeError:
        with talk.within(_ANSWER_SECONDS):
            talk.hear()
        raise
    sent += content.finish()
    removed_names.take_back(session)
    session.enter("sent", bytes=sent)
    fingerprints = durable.read_json(session.memory_path("outbox", "fingerprints.json"))
    surroundings = durable.read_json(session.memory_path("outbox", "surroundings.json"))
    plan = connections.Plan.of(session)
    network = connections.Arrangement.of(plan, established=found["kept"] > 0).as_data()
    with talk.within(_ANSWER_SECONDS + patience):
        copy = {"manifest": manifest, "fingerprints": fingerprints, "network": network, "surroundings": surroundings}
        told = _of_copy(talk.ask({"hold": copy}))
    session.enter("held", **told)
    return sent, told


def _of_copy(told: messages.Message) -> dict[str, t.Any]:
    """What the destination tells of the held copy: numbers and sentences, and nothing else that it may think of.

    :raises MigrationError: ``channel_failed``.
    """
    try:
        return {
            **{name: float(told[name]) for name in ("seconds", "flush_seconds", "flush_waited")},
            **{name: int(told[name]) for name in ("processes", "recognised")},
            "warnings": [printable.text(str(warning)) for warning in told["warnings"]],
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MigrationError(
            "channel_failed",
            f"The destination tells something of the copy that cannot be understood: {str(told)[:200]}",
        ) from None


def hand_over(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Freeze, dump, send, have it held there, decide, have it let go there, end the old copy.

    A failure before the decision lets the container go on here at once.

    :returns: ``gap``, ``seconds`` of ``dump``, ``transfer``, ``restore`` and ``flush``, ``bytes``, ``checkpoint_bytes``,
        ``processes``, ``recognised``, ``criu`` (its statistics), ``connections``, ``warnings``.
    :raises MigrationError: what went wrong; ``refused`` when the destination refused after the decision.
    """
    engines.require(session, engines.RUNTIME)
    with contextlib.ExitStack() as stack:
        try:
            talk = stack.enter_context(Conversation(Channel(session), "handover"))
            stack.enter_context(runc.unit_ready(session.id, engine_runtime.options_file(session)))
            with talk.within(_ANSWER_SECONDS):
                talk.hear()
            trees = content_trees(session, engine.inspect(session.facts["container_id"]))
            freeze.freeze(session, engine, lambda: source.look_last(session))
            # Both beside the dump. What has left already means nothing before it is said to be complete.
            # What the kernel writes for a program by itself, and after the freeze, moves no change time when it is through.
            beside = not deleted_files.has_kernel_aio(TaskGroup(session.data("arming")["cgroup"]).pids())
            content = stack.enter_context(LastPass(session, trees, beside=beside))
            checkpoint = engines.of(session).images(session)
            images = stack.enter_context(checkpoint_stream.Follower(talk.output, checkpoint, talk.hang_up))
            dumped = source.dump(session, engine)
            began = time.monotonic()
            sent, held = _send(session, talk, images, content, dumped["found"])
            transfer = time.monotonic() - began - held["seconds"]
            source.go(session)
        except BaseException as exc:
            stack.close()
            try:
                source.settle(session, engine)
            except (MigrationError, OSError) as second:
                failure = MigrationError.of(exc, "handover_failed")
                raise MigrationError(
                    failure.code, f"{failure.message} Letting it go on failed as well: {second}", **failure.details
                ) from exc
            raise
        # When no answer comes the destination is asked for its word, as after every interruption.
        with contextlib.suppress(MigrationError, OSError):
            with talk.within(_ANSWER_SECONDS):
                verdict = talk.ask({"run": True})
            if verdict["decision"] == RUN:
                source.commit(session, engine, verdict)
    if source.settle(session, engine) != RUN:
        raise MigrationError("refused", "The destination refused; the source goes on with the container.")
    return {
        "gap": session.data("committed")["gap"],
        "seconds": {
            "dump": dumped["seconds"],
            "transfer": transfer,
            "restore": held["seconds"] - held["flush_waited"],
            "flush": held["flush_waited"],
        },
        "bytes": sent,
        "checkpoint_bytes": dumped["bytes"],
        "processes": held["processes"],
        "recognised": held["recognised"],
        "criu": dumped.get("criu", {}),
        "connections": {key: dumped["found"][key] for key in ("kept", "closed")},
        "warnings": held["warnings"],
    }
