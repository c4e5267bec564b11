# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The frozen time of what can be held, on the source: from the freeze to the end of the old copy in one go.

Everything that can be made ready is ready before: the connection stands, the destination's agent is loaded and waits, the
call that starts the copy waits for its checkpoint. See ``destination.converse`` for the other end.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from .._base import printable
from .._base.errors import MigrationError
from .._channel import checkpoint_stream, messages
from .._channel.client import Channel
from .._channel.conversation import Conversation
from .._session.phases import RUN
from .._subjects.subject import Original
from . import freeze, source
from .transfer import LastPass

# Seconds for an answer, besides what memory takes.
_ANSWER_SECONDS = 60.0


def _send(
    original: Original, talk: Conversation, images: checkpoint_stream.Follower, content: LastPass
) -> tuple[int, dict[str, t.Any]]:
    """The rest of the checkpoint through the talk, and beside it whatever else has changed; then the copy is restored and held.

    :returns: the bytes sent, and what the destination tells of the held copy.
    """
    session = original.session
    patience = original.patience()
    content.dumped()
    try:
        with talk.within(patience):
            manifest, sent = images.finish()
    except BrokenPipeError:
        with talk.within(_ANSWER_SECONDS):
            talk.hear()
        raise
    sent += content.finish()
    original.all_sent()
    session.enter("sent", bytes=sent)
    with talk.within(_ANSWER_SECONDS + patience):
        told = _of_copy(talk.ask({"hold": {"manifest": manifest, **original.for_copy()}}))
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


def hand_over(original: Original) -> dict[str, t.Any]:
    """Freeze, dump, send, have it held there, decide, have it let go there, end the old copy.

    A failure before the decision lets the original go on here at once.

    :returns: ``gap``, ``seconds`` of ``dump``, ``transfer``, ``restore`` and ``flush``, ``bytes``, ``checkpoint_bytes``,
        ``processes``, ``recognised``, ``warnings``, and what the dump tells more.
    :raises MigrationError: what went wrong; ``refused`` when the destination refused after the decision.
    """
    original.require_held(True)
    original.reach()
    session = original.session
    with contextlib.ExitStack() as stack:
        try:
            talk = stack.enter_context(Conversation(Channel(session), "handover"))
            stack.enter_context(original.dump_ready())
            with talk.within(_ANSWER_SECONDS):
                talk.hear()
            trees = original.trees()
            freeze.freeze(original)
            # Both beside the dump. What has left already means nothing before it is said to be complete.
            content = stack.enter_context(LastPass(session, trees, beside=original.files_stand_still()))
            images = stack.enter_context(checkpoint_stream.Follower(talk.output, original.images(), talk.hang_up))
            dumped = source.dump(original)
            began = time.monotonic()
            sent, held = _send(original, talk, images, content)
            transfer = time.monotonic() - began - held["seconds"]
            source.go(original)
        except BaseException as exc:
            stack.close()
            try:
                source.settle(original)
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
                source.commit(original, verdict)
    if source.settle(original) != RUN:
        raise MigrationError("refused", f"The destination refused; the source goes on with the {session.kind}.")
    return {
        "gap": session.data("committed")["gap"],
        "seconds": {
            "dump": dumped.seconds,
            "transfer": transfer,
            "restore": held["seconds"] - held["flush_waited"],
            "flush": held["flush_waited"],
        },
        "bytes": sent,
        "checkpoint_bytes": dumped.size,
        "processes": held["processes"],
        "recognised": held["recognised"],
        **dumped.told,
        "warnings": held["warnings"],
    }
