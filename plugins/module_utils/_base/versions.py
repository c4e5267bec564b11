# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Versions of programs and kernels, as numbers that can be compared. Pure."""

from __future__ import annotations

import re

Version = tuple[int, ...]


def parse_version(text: str | None) -> Version:
    """The first dotted number in a text, ``1.7.24~ds1`` as ``(1, 7, 24)``; ``()`` where there is none."""
    match = re.search(r"\d+(?:\.\d+)*", text or "")
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def at_least(version: Version, wanted: Version) -> bool:
    """Whether *version* is *wanted* or newer; a missing part counts as 0."""
    length = max(len(version), len(wanted))
    return version + (0,) * (length - len(version)) >= wanted + (0,) * (length - len(wanted))
