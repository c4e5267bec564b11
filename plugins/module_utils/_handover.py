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
import threading
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _connections,
    _dump_options,
    _durable,
    _engine_runtime,
    _engines,
    _freeze,
    _runc,
    _source,
    _talk,
    _transfer,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine, memory_timeout
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import RUN, Session
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

# Seconds for an answer, besides what memory takes.
_ANSWER_SECONDS = 60.0


class Conversation:
    """The source's end of the talk."""

    def __init__(self, channel: Channel) -> None:
        self._process = channel.converse("handover")
        # How long it was waited for when that was too long.
        self._patience: float | None = None
        self.output = t.cast("t.BinaryIO", self._process.stdin)
        self._input = t.cast("t.BinaryIO", self._process.stdout)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_exc: object) -> None:
        # The other end takes a closed connection for the end of the talk and decides nothing by itself.
        with contextlib.suppress(OSError):
            self.output.close()
        self._input.close()
        self._process.terminate()
        self._process.wait()

    def hang_up(self) -> None:
        """End the connection at once, whoever is saying something."""
        self._process.kill()

    @contextlib.contextmanager
    def within(self, seconds: float) -> t.Iterator[None]:
        """Hang up when what is said or awaited in between takes longer: the container stands still meanwhile.

        A host whose disk hangs goes on answering SSH's own questions, so that those do not end the connection.
        """

        def give_up() -> None:
            self._patience = seconds
            self.hang_up()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def hear(self) -> _talk.Message:
        """The next answer.

        :raises MigrationError: the failure that the other end told; ``destination_unreachable`` when it has hung up.
        """
        answer = None
        with contextlib.suppress(ValueError):
            answer = _talk.hear(self._input)
        if answer is None:
            why = "The destination has hung up in the middle of the handover."
            if self._patience is not None:
                why = f"The destination did not answer within {self._patience:g} seconds in the middle of the handover."
            raise MigrationError("destination_unreachable", why)
        failure = answer.get("failure")
        if failure:
            raise MigrationError(failure["code"], failure["message"], **failure.get("details", {}))
        return answer

    def ask(self, message: _talk.Message) -> _talk.Message:
        """Say something and hear the answer.

        :raises MigrationError: as :meth:`hear`.
        """
        # Where it has hung up, its last words say why.
        with contextlib.suppress(BrokenPipeError):
            _talk.say(self.output, message)
        return self.hear()


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
    session.enter("sent", bytes=sent)
    fingerprints = _durable.read_json(session.memory_path("outbox", "fingerprints.json"))
    surroundings = _durable.read_json(session.memory_path("outbox", "surroundings.json"))
    plan = _connections.Plan.of(session)
    network = _connections.Arrangement.of(plan, established=found["kept"] > 0).as_data()
    with talk.within(_ANSWER_SECONDS + patience):
        copy = {"manifest": manifest, "fingerprints": fingerprints, "network": network, "surroundings": surroundings}
        told = talk.ask({"hold": copy})
    session.enter("held", **told)
    return sent, told


def hand_over(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Freeze, dump, send, have it held there, decide, have it let go there, end the old copy.

    A failure before the decision lets the container go on here at once.

    :returns: ``gap``, ``seconds`` of ``dump``, ``transfer`` and ``restore``, ``bytes``, ``checkpoint_bytes``, ``processes``,
        ``recognised``, ``criu`` (its statistics), ``connections``, ``warnings``.
    :raises MigrationError: what went wrong; ``refused`` when the destination refused after the decision.
    """
    _engines.require(session, _engines.RUNTIME)
    with contextlib.ExitStack() as stack:
        try:
            talk = stack.enter_context(Conversation(Channel(session)))
            stack.enter_context(_runc.unit_ready(session.id, _engine_runtime.options_file(session)))
            with talk.within(_ANSWER_SECONDS):
                talk.hear()
            trees = _transfer.content_trees(session, engine.inspect(session.facts["container_id"]))
            _freeze.freeze(session, engine)
            # Both beside the dump. What has left already means nothing before it is said to be complete.
            # What the kernel writes for a program by itself, and after the freeze, moves no change time when it is through.
            beside = not _dump_options.has_kernel_aio(TaskGroup(session.data("arming")["cgroup"]).pids())
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
        "seconds": {"dump": dumped["seconds"], "transfer": transfer, "restore": held["seconds"]},
        "bytes": sent,
        "checkpoint_bytes": dumped["bytes"],
        "processes": held["processes"],
        "recognised": held["recognised"],
        "criu": dumped.get("criu", {}),
        "connections": {key: dumped["found"][key] for key in ("kept", "closed")},
        "warnings": held["warnings"],
    }
