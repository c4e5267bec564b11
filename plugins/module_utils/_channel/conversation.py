# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The source's end of a talk with the destination's agent, see ``_channel/messages.py``."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .._base.errors import MigrationError
from . import messages
from .client import Channel


class Conversation:
    """A talk that begins with a word of the channel and goes on until its block ends."""

    def __init__(self, channel: Channel, word: str) -> None:
        self._word = word
        self._process = channel.converse(word)
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
        """Hang up when what is said or awaited in between takes longer: what is moved stands still meanwhile.

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

    def hear(self) -> messages.Message:
        """The next answer.

        :raises MigrationError: the failure that the other end told; ``destination_unreachable`` when it has hung up.
        """
        answer = None
        with contextlib.suppress(ValueError):
            answer = messages.hear(self._input)
        if answer is None:
            why = f"The destination has hung up in the middle of the {self._word}."
            if self._patience is not None:
                why = f"The destination did not answer within {self._patience:g} seconds in the middle of the {self._word}."
            raise MigrationError("destination_unreachable", why)
        failure = answer.get("failure")
        if failure:
            raise MigrationError.from_failure(failure)
        return answer

    def ask(self, message: messages.Message) -> messages.Message:
        """Say something and hear the answer.

        :raises MigrationError: as :meth:`hear`.
        """
        # Where it has hung up, its last words say why.
        with contextlib.suppress(BrokenPipeError):
            messages.say(self.output, message)
        return self.hear()
