# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One question to a workload: how far is your count, and who are you?"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit


class NoAnswerError(Exception):
    """Nobody answered, or not with a count; the text says what happened instead."""


@dataclass(frozen=True)
class Answer:
    """What a workload said. The same TOKEN means the same process (or its exact copy): it is made up at every start.

    details: whatever else the workload tells of itself.
    """

    count: int
    token: str
    details: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain data for json.dumps."""
        return asdict(self)


def ask(url: str, timeout: float = 1.0) -> Answer:
    """One request over a connection of its own. NoAnswerError after TIMEOUT seconds without a word."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise NoAnswerError(f"HTTP status {response.status}")
    try:
        found = json.loads(body)
        count, token = int(found.pop("count")), str(found.pop("token"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoAnswerError(f"not a count: {body[:80]!r}") from error
    return Answer(count, token, found)


def wait_for_answer(url: str, timeout: float = 60.0) -> Answer:
    """Asks until somebody answers, for a container that just started. NoAnswerError after TIMEOUT seconds."""
    limit = time.monotonic() + timeout
    while True:
        try:
            return ask(url, timeout=min(5.0, timeout))
        except NoAnswerError as error:
            if time.monotonic() > limit:
                raise NoAnswerError(f"{url}: still no answer after {timeout:.0f} s: {error}") from error
            time.sleep(0.2)
