# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the two hosts say to each other: lines through real pipes, and everything that may go wrong in them."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import messages
from tests.unit.channel.conftest import Pipe


def test_messages_arrive_in_their_order_and_then_the_end(pipe: Pipe) -> None:
    printed: list[dict[str, Any]] = [{"ready": True}, {"text": "two\nlines, \u2028, \udcff"}, {}]
    for message in printed:
        messages.send(pipe.writing, message)
    pipe.writing.close()
    assert [messages.receive(pipe.reading) for _message in printed] == printed
    assert messages.receive(pipe.reading) is None


def test_a_line_is_sent_at_once(pipe: Pipe) -> None:
    messages.send(pipe.writing, {"ready": True})
    # With the other end still open: a line that lay in a buffer would never come.
    assert messages.receive(pipe.reading) == {"ready": True}


@pytest.mark.parametrize("cut", [b"", b'{"run": tru', b'{"run": true}'])
def test_a_line_without_an_end_was_not_sent(cut: bytes, pipe: Pipe) -> None:
    """A word on which a container is let go must not be one that was cut off."""
    pipe.writing.write(cut)
    pipe.writing.close()
    assert messages.receive(pipe.reading) is None


@pytest.mark.parametrize("line", [b"[]", b"null", b"1", b'"run"', b"true"])
def test_a_line_that_is_no_message(line: bytes) -> None:
    with pytest.raises(MigrationError) as caught:
        messages.receive(io.BytesIO(line + b"\n"))
    assert caught.value.code == "channel_failed"


@pytest.mark.parametrize("line", [b"", b"{", b"ssh: connection closed", b'{"a": \xff}', b"\0"])
def test_a_line_that_is_no_json(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's and the codec's have that in common)
        messages.receive(io.BytesIO(line + b"\n"))


def test_a_line_that_never_ends_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_LONGEST_LINE", 1000)
    with pytest.raises(MigrationError) as caught:
        messages.receive(io.BytesIO(b"x" * 5000))
    assert caught.value.code == "channel_failed"
    longest = {"text": "x" * (1000 - len('{"text": ""}\n'))}
    stream = io.BytesIO()
    messages.send(stream, longest)
    assert messages.receive(io.BytesIO(stream.getvalue())) == longest


def test_the_manifest_of_a_container_with_a_thousand_processes_is_a_line(pipe: Pipe) -> None:
    entry = {"size": 1 << 30, "sha256": "0" * 64}
    manifest = {f"{kind}-{number}.img": entry for kind in "abcdefghijkl" for number in range(1000)}
    threading.Thread(target=messages.send, args=(pipe.writing, {"hold": {"manifest": manifest}}), daemon=True).start()
    assert messages.receive(pipe.reading) == {"hold": {"manifest": manifest}}


# -- files -------------------------------------------------------------------------------------------------------------
