# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Text that others have made, as a terminal may show it. Pure.

A container calls its processes, files and cgroups what it likes, and programs quote that in what they print: escape sequences
that rewrite what stands on the screen, characters that turn the direction of a line, bytes that are no UTF-8. Each becomes what
Python would write for it (``\\x1b``). What is visible stays as it is, a backslash too: doing it twice is doing it once.
"""

from __future__ import annotations

import typing as t


def text(value: str, keep: str = "") -> str:
    """A text with visible characters only.

    :param keep: characters that stay although they are none, as line ends of our own.
    """
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() or one in keep else _escape(one) for one in value)


def _escape(character: str) -> str:
    code = ord(character)
    # A byte that was no UTF-8 (PEP 383).
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode("ascii")


def data(value: t.Any, keep: str = "") -> t.Any:
    """Plain data with all its texts as :func:`text` makes them."""
    if isinstance(value, str):
        return text(value, keep)
    if isinstance(value, dict):
        return {data(key, keep): data(entry, keep) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [data(entry, keep) for entry in value]
    return value
