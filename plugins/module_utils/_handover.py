# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The frozen time of the engine ``runtime``, on the source: from the freeze to the end of the old copy in one go.

Everything that can be made ready is ready before: the connection stands, the destination's agent is loaded and waits, the
call that starts the copy waits for its checkpoint. See ``_destination.converse`` for the other end.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _connections,
    _deleted_files,
    _durable,
    _engine_runtime,
    _engines,
    _freeze,
    _printable,
    _removed_names,
    _runc,
    _source,
    _talk,
    _transfer,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._conversation import Conversation
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine, memory_timeout
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import RUN, Session
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

# Seconds for an answer, besides what memory takes.
_ANSWER_SECONDS = 60.0


def _send(
    session: Session,
    talk: Conversation,
    images: _talk.Follower,
    content: _transfer.LastPass,
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
    _removed_names.take_back(session)
    session.enter("sent", bytes=sent)
    fingerprints = _durable.read_json(session.memory_path("outbox", "fingerprints.json"))
    surroundings = _durable.read_json(session.memory_path("outbox", "surroundings.json"))
    plan = _connections.Plan.of(session)
    network = _connections.Arrangement.of(plan, established=found["kept"] > 0).as_data()
    with talk.within(_ANSWER_SECONDS + patience):
        copy = {"manifest": manifest, "fingerprints": fingerprints, "network": network, "surroundings": surroundings}
        told = _of_copy(talk.ask({"hold": copy}))
    session.enter("held", **told)
    return sent, told


def _of_copy(told: _talk.Message) -> dict[str, t.Any]:
    """What the destination tells of the held copy: numbers and sentences, and nothing else that it may think of.

    :raises MigrationError: ``channel_failed``.
    """
    try:
        return {
            **{name: float(told[name]) for name in ("seconds", "flush_seconds", "flush_waited")},
            **{name: int(told[name]) for name in ("processes", "recognised")},
            "warnings": [_printable.text(str(warning)) for warning in told["warnings"]],
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
    _engines.require(session, _engines.RUNTIME)
    with contextlib.ExitStack() as stack:
        try:
            talk = stack.enter_context(Conversation(Channel(session), "handover"))
            stack.enter_context(_runc.unit_ready(session.id, _engine_runtime.options_file(session)))
            with talk.within(_ANSWER_SECONDS):
                talk.hear()
            trees = _transfer.content_trees(session, engine.inspect(session.facts["container_id"]))
            _freeze.freeze(session, engine, lambda: _source.look_last(session))
            # Both beside the dump. What has left already means nothing before it is said to be complete.
            # What the kernel writes for a program by itself, and after the freeze, moves no change time when it is through.
            beside = not _deleted_files.has_kernel_aio(TaskGroup(session.data("arming")["cgroup"]).pids())
            content = stack.enter_context(_transfer.LastPass(session, trees, beside=beside))
            checkpoint = _engines.of(session).images(session)
            images = stack.enter_context(_talk.Follower(talk.output, checkpoint, talk.hang_up))
            dumped = _source.dump(session, engine)
            began = time.monotonic()
            sent, held = _send(session, talk, images, content, dumped["found"])
            transfer = time.monotonic() - began - held["seconds"]
            _source.go(session)
        except BaseException as exc:
            stack.close()
            try:
                _source.settle(session, engine)
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
                _source.commit(session, engine, verdict)
    if _source.settle(session, engine) != RUN:
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
