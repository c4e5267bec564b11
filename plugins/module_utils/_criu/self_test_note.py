# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the last try of this host's CRIU has noted, see ``_criu/self_test.py``. Small, because the agent needs it."""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .._base import durable

# Gone with a reboot, as the kernel is that it is about.
DIRECTORY = "/run/livemigrate"
_NAME = "self-test.json"


def read(key: str = "") -> dict[str, t.Any] | None:
    """What was noted; None where nothing was.

    :param key: what the outcome depended on; a note about something else is none. Without it any note is taken: the preflight
        looks at it at the beginning of every move.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(os.path.join(DIRECTORY, _NAME), encoding="utf-8") as handle:
            note = json.load(handle)
        if key in ("", note["key"]):
            return dict(note["told"])
    return None


def write(key: str, result: t.Mapping[str, t.Any]) -> None:
    """Note the outcome of a try."""
    durable.write(os.path.join(DIRECTORY, _NAME), json.dumps({"key": key, "told": result}).encode())


def forget() -> None:
    """There is nothing to note."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(DIRECTORY, _NAME))
