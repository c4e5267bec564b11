# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The handover of what can be held, on the source: from the freeze to the end of the old copy in one step.

Everything that can be prepared is prepared before the freeze: the connection is open, the destination's agent is loaded and
waits, and the call that starts the copy waits for its checkpoint. See ``destination.serve_handover`` for the other end.
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
from .._session import timeline
from .._session.phases import RUN
from .._subjects.subject import Original
from . import freeze, source
from .transfer import LastPass

# Seconds for an answer, besides what memory takes.
_ANSWER_SECONDS = 60.0


def _send(
    original: Original,
    conversation: Conversation,
    images: checkpoint_stream.Follower,
    content: LastPass,
    line: timeline.Timeline,
) -> tuple[int, dict[str, t.Any], timeline.Events]:
    """Send the rest of the checkpoint and of the files, then have the copy restored and held.

    :returns: the bytes sent, what the destination reports of the held copy, and its part of the timeline.
    """
    session = original.session
    patience = original.patience()
    content.dumped()
    try:
        with conversation.time_limit(patience):
            manifest, sent = images.finish()
    except BrokenPipeError:
        with conversation.time_limit(_ANSWER_SECONDS):
            conversation.receive()
        raise
    sent += content.finish()
    original.all_sent()
    session.enter("sent", bytes=sent)
    line.record(timeline.SENT)
    with conversation.time_limit(_ANSWER_SECONDS + patience):
        answer = conversation.request({"hold": {"manifest": manifest, **original.for_copy()}})
    line.record(timeline.HELD)
    held, copy_events = _of_copy(answer)
    session.enter("held", **held)
    return sent, held, copy_events


def _of_copy(answer: messages.Message) -> tuple[dict[str, t.Any], timeline.Events]:
    """What the destination reports of the held copy, and its events. Only known numbers and sentences are taken from its answer.

    :raises MigrationError: ``channel_failed``.
    """
    try:
        found = {
            **{name: float(answer[name]) for name in ("seconds", "flush_seconds", "flush_waited")},
            **{name: int(answer[name]) for name in ("processes", "recognised")},
            "warnings": [printable.text(str(warning)) for warning in answer["warnings"]],
        }
        return found, timeline.parse(answer["timeline"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MigrationError(
            "channel_failed",
            f"The destination's report of the copy cannot be read: {str(answer)[:200]}",
        ) from None


def hand_over(original: Original) -> dict[str, t.Any]:
    """Freeze the original, dump and send it, have the copy held, decide, have the copy let go, and end the old copy.

    When something fails before the decision, the original goes on here at once.

    :returns: ``gap``, ``seconds`` of ``dump``, ``transfer``, ``restore`` and ``flush``, ``bytes``, ``checkpoint_bytes``,
        ``processes``, ``recognised``, ``timeline``, ``warnings``, and the report of the dump.
    :raises MigrationError: what went wrong; ``refused`` when the destination refused after the decision.
    """
    original.require_held(True)
    original.reach()
    session = original.session
    with contextlib.ExitStack() as stack:
        with source.letting_it_go_on(original, "handover_failed", first=stack.close):
            conversation = stack.enter_context(Conversation(Channel(session), "handover"))
            stack.enter_context(original.dump_ready())
            with conversation.time_limit(_ANSWER_SECONDS):
                conversation.receive()
            trees = original.trees()
            freeze.freeze(original)
            line = timeline.Timeline(session.data("freezing")["at"])
            line.record(timeline.FROZEN)
            # Both beside the dump. What has been sent counts for nothing until the source says that it is complete.
            content = stack.enter_context(LastPass(session, trees, beside=original.files_stand_still()))
            images = stack.enter_context(
                checkpoint_stream.Follower(conversation.output, original.images(), conversation.disconnect)
            )
            dumped = source.dump(original)
            line.record(timeline.DUMPED)
            began = time.monotonic()
            sent, held, copy_events = _send(original, conversation, images, content, line)
            transfer = time.monotonic() - began - held["seconds"]
            source.go(original)
        reason = ""
        # When no answer comes the destination is asked for its decision, as after every interruption.
        with contextlib.suppress(MigrationError, OSError):
            with conversation.time_limit(_ANSWER_SECONDS):
                decision = conversation.request({"run": True})
            reason = printable.text(str(decision.get("reason") or ""))
            if decision["decision"] == RUN:
                source.commit(original, decision, timeline.Both(line.events, copy_events))
    if source.settle(original) != RUN:
        goes_on = f"the source goes on with the {session.kind}."
        raise MigrationError("refused", f"The destination refused; {goes_on}" + (f" Why: {reason}" if reason else ""))
    return {
        "gap": session.data("committed")["gap"],
        "timeline": session.data("committed").get("timeline", []),
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
        **dumped.report,
        "warnings": held["warnings"],
    }
