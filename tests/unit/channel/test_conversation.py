# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's end of the conversation of the handover, against real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import checkpoint_stream, messages
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.conversation import Conversation

PAGES = (1 << 20) + 4097


class Process:
    """A channel whose other end is a Python program."""

    def __init__(self, code: str) -> None:
        self._code = "import json, sys, time\n" + code
        self.process: subprocess.Popen[bytes] | None = None

    def start_conversation(self, name: str) -> subprocess.Popen[bytes]:
        assert name == "handover"
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", self._code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self.process


def _conversation_with(code: str) -> Conversation:
    channel: Any = Process(code)
    return Conversation(channel, "handover")


FAILURE = {"code": "restore_failed", "message": "CRIU says no.", "details": {"criu": ["Error (x.c:1)"]}}


_SEND_FAILURE = f"print({json.dumps(json.dumps({'failure': FAILURE}))}, flush=True)\n"


def test_a_question_has_its_answer() -> None:
    code = (
        "print(json.dumps({'ready': True}), flush=True)\n"
        "for line in sys.stdin: print(json.dumps({'received': json.loads(line)}), flush=True)"
    )
    with _conversation_with(code) as conversation:
        assert conversation.receive() == {"ready": True}
        for number in range(3):
            assert conversation.request({"number": number}) == {"received": {"number": number}}


def test_a_failure_that_is_reported_is_raised_as_it_was() -> None:
    with _conversation_with(_SEND_FAILURE) as conversation, pytest.raises(MigrationError) as caught:
        conversation.receive()
    assert caught.value.as_failure() == FAILURE


@pytest.mark.parametrize(
    "code",
    [
        "",
        "sys.exit(255)",
        # A message that was cut off, what an ssh or a shell may say, and bytes of a terminal.
        'sys.stdout.write(\'{"decision": "RUN"}\')',
        "print('Connection closed by 192.0.2.1')",
        "print()",
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n')",
    ],
)
def test_whatever_is_no_answer_counts_as_a_hang_up(code: str) -> None:
    with _conversation_with(code) as conversation, pytest.raises(MigrationError) as caught:
        conversation.request({"run": True})
    assert caught.value.code == "destination_unreachable"


@pytest.mark.parametrize("code", ["print('[]')", "print('1')"])
def test_an_answer_that_is_no_message(code: str) -> None:
    with _conversation_with(code) as conversation, pytest.raises(MigrationError) as caught:
        conversation.receive()
    assert caught.value.code == "channel_failed"


def test_the_last_message_of_one_that_has_disconnected_is_received() -> None:
    channel: Any = Process(_SEND_FAILURE)
    with Conversation(channel, "handover") as conversation:
        channel.process.wait(10)
        with pytest.raises(MigrationError) as caught:
            conversation.request({"hold": {"manifest": "x" * PAGES}})
    assert caught.value.as_failure() == FAILURE


def test_files_for_one_that_has_disconnected_break_and_its_last_message_is_received(tmp_path: Path) -> None:
    """What _handover does around put()."""
    (tmp_path / "pages-1.img").write_bytes(bytes(PAGES))
    with _conversation_with("sys.stdin.readline()\n" + _SEND_FAILURE) as conversation:
        with pytest.raises(BrokenPipeError):
            checkpoint_stream.put(conversation.output, str(tmp_path))
        with pytest.raises(MigrationError) as caught:
            conversation.receive()
    assert caught.value.as_failure() == FAILURE


@pytest.mark.parametrize(
    "code",
    [
        "for line in sys.stdin: pass",
        # Does not notice that its input has ended.
        "time.sleep(60)",
    ],
)
def test_the_conversation_ends_with_its_block(code: str) -> None:
    channel: Any = Process(code)
    began = time.monotonic()
    with Conversation(channel, "handover") as conversation:
        messages.send(conversation.output, {"run": True})
    assert channel.process.poll() is not None
    assert time.monotonic() - began < 10


def test_a_failure_in_the_middle_ends_the_conversation_too() -> None:
    channel: Any = Process("time.sleep(60)")
    with pytest.raises(ZeroDivisionError), Conversation(channel, "handover"):
        raise ZeroDivisionError
    assert channel.process.poll() is not None


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever() -> None:
    channel: Any = Process("time.sleep(60)")
    began = time.monotonic()
    with (
        Conversation(channel, "handover") as conversation,
        conversation.time_limit(0.2),
        pytest.raises(MigrationError) as caught,
    ):
        conversation.request({"run": True})
    assert caught.value.code == "destination_unreachable"
    assert time.monotonic() - began < 10


def test_a_destination_that_takes_no_more_bytes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    (tmp_path / "pages-1.img").write_bytes(bytes(PAGES))
    channel: Any = Process("time.sleep(60)")
    began = time.monotonic()
    with (
        Conversation(channel, "handover") as conversation,
        pytest.raises(BrokenPipeError),
        conversation.time_limit(0.2),
    ):
        checkpoint_stream.put(conversation.output, str(tmp_path))
    assert time.monotonic() - began < 10


def test_an_answer_in_time_leaves_the_conversation_open() -> None:
    with _conversation_with("for line in sys.stdin: print('{}', flush=True)") as conversation:
        with conversation.time_limit(2):
            conversation.request({})
        time.sleep(2.1)
        assert conversation.request({}) == {}
