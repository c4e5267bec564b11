# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The source's end of a conversation with the destination's agent, see ``_channel/messages.py``."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .._base.errors import MigrationError
from . import messages
from .client import Channel


class Conversation:
    """A conversation: it begins with its name, which the channel carries as a command, and goes on until its block ends."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._name = name
        self._process = channel.start_conversation(name)
        # Seconds of the time limit that has run out.
        self._limit_passed: float | None = None
        self.output = t.cast("t.BinaryIO", self._process.stdin)
        self._input = t.cast("t.BinaryIO", self._process.stdout)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_exc: object) -> None:
        # The other end takes a closed connection for the end of the conversation and decides nothing by itself.
        with contextlib.suppress(OSError):
            self.output.close()
        self._input.close()
        self._process.terminate()
        self._process.wait()

    def disconnect(self) -> None:
        """End the connection at once, even in the middle of a message."""
        self._process.kill()

    @contextlib.contextmanager
    def time_limit(self, seconds: float) -> t.Iterator[None]:
        """End the connection when sending and receiving in this block take longer. What is moved is frozen meanwhile.

        A host whose disk hangs goes on answering SSH's own questions, so that those do not end the connection.
        """

        def give_up() -> None:
            self._limit_passed = seconds
            self.disconnect()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def receive(self) -> messages.Message:
        """The next answer.

        :raises MigrationError: the failure that the destination reports; ``destination_unreachable`` when it has closed the
            connection.
        """
        answer = None
        with contextlib.suppress(ValueError):
            answer = messages.receive(self._input)
        if answer is None:
            why = f"The destination has closed the connection in the middle of the {self._name}."
            if self._limit_passed is not None:
                why = f"The destination did not answer within {self._limit_passed:g} seconds in the middle of the {self._name}."
            raise MigrationError("destination_unreachable", why)
        failure = answer.get("failure")
        if failure:
            raise MigrationError.from_failure(failure)
        return answer

    def request(self, message: messages.Message) -> messages.Message:
        """Send a message and receive the answer.

        :raises MigrationError: as :meth:`receive`.
        """
        # Where it has closed the connection, its last message says why.
        with contextlib.suppress(BrokenPipeError):
            messages.send(self.output, message)
        return self.receive()
