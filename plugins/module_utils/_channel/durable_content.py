# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the source has sent is on the destination's disks before the copy runs.

A database was told on the source that its write is on the disk. The destination's rsync has put it into the page cache, where
the kernel leaves it for 30 seconds. So the file systems on which the content arrives are flushed twice: after the pass in which
it is sent ahead, while the original runs, and after the last pass. The second time there is little left to write.

Both hosts have a conversation (see ``_channel/messages.py``) around a pass, named ``transfer``. The destination sends
``{"ready": true, "has_content": [TARGET, ...]}`` when it has the file systems open (see ``_host/flush.py`` for why that comes
first), with the names of the places in which something lies already. The source lets rsync do
the pass, sends ``{"flush": SECONDS}`` and receives ``{"seconds": SECONDS}``. The last pass of what can be held has the
conversation ``handover`` around it instead: there the flush is beside the restore.
"""

from __future__ import annotations

import os
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._host.flush import Flush
from .._session.session import Session
from . import messages
from .client import Channel
from .conversation import Conversation
from .tree import CHECKPOINT, INBOX

COMMAND = "transfer"

# Seconds that a flush may take while the original runs: all that memory can hold, on a slow disk.
RUNNING_SECONDS = 3600.0
# The same while it stands still, besides what its memory takes where that lies on the same disk. Less than the source waits for
# an answer, so that it receives the reason.
FROZEN_SECONDS = 45.0

# Seconds for an answer, besides what the flush takes.
_ANSWER_SECONDS = 60.0

# What comes through the channel and is not needed after a power cut: the checkpoint, and its description.
_PASSING = (INBOX, CHECKPOINT)


def send(session: Session, passes: t.Callable[[t.Container[str]], int], *, seconds: float) -> int:
    """On the source: send the content, and have the destination flush it to its disks.

    :param passes: gets the targets in which the destination has something already, sends the content and returns the bytes sent.
        While the original stands still it has a bound of its own (``transfer.send_frozen``), as a destination whose disk hangs
        answers rsync's and SSH's own questions for ever.
    :param seconds: that the flush may take.
    :returns: the bytes sent.
    :raises MigrationError: ``flush_failed`` where the destination cannot flush; ``destination_unreachable``; what *passes*
        raises.
    """
    with Conversation(Channel(session), COMMAND) as conversation:
        with conversation.time_limit(_ANSWER_SECONDS):
            ready = conversation.receive()
        sent = passes(frozenset(map(str, ready.get("has_content", ()))))
        with conversation.time_limit(_ANSWER_SECONDS + seconds):
            conversation.request({"flush": seconds})
    return sent


def arriving(session: Session) -> Flush:
    """On the destination: open the file systems that are to be flushed.

    They are those of everything whose content travels, and that of the ``data_root`` of what keeps the copy on this host, where
    there is one: the Docker Engine makes directories there, and files that say of which layers something consists, without
    flushing them.

    :raises MigrationError: ``flush_failed``.
    """
    targets = durable.read_json(session.memory_path("targets.json")) or {}
    trees = [path for name, path in targets.items() if name not in _PASSING]
    data_root = session.facts.get("data_root")
    return Flush(trees, [data_root] if data_root else [], host="destination")


def _with_content(session: Session) -> list[str]:
    """The targets in which something lies already: what a move away has left, or what a user has let us overwrite.

    :raises OSError: where the directory of one is not there.
    """
    targets = durable.read_json(session.memory_path("targets.json")) or {}
    found = []
    for name, path in sorted(targets.items()):
        if name not in _PASSING:
            with os.scandir(path) as entries:
                if next(entries, None) is not None:
                    found.append(name)
    return found


def serve_transfer(session: Session, source: t.BinaryIO, answers: t.BinaryIO) -> None:
    """On the destination: the other end of :func:`send`."""
    try:
        with arriving(session) as flush:
            messages.send(answers, {"ready": True, "has_content": _with_content(session)})
            message = messages.receive(messages.KeepAliveReader(source, session.renew))
            if message is None:
                return
            if "flush" not in message:
                raise MigrationError("channel_refused", "The destination's agent does not know that message.")
            with session.alive():
                flush.now(float(message["flush"]))
            messages.send(answers, {"seconds": flush.seconds})
    except (MigrationError, OSError, TypeError, ValueError) as exc:
        messages.send(answers, {"failure": MigrationError.of(exc, "channel_failed").as_failure()})
