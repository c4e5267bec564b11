# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that a counter appends to through descriptors it keeps open: every count once, in order, by one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .host import Host


def missing(text: str) -> list[str]:
    """What is wrong with the content of such a file ("TOKEN COUNT" a line), in words; empty when nothing is.

    The last line may be half written.
    """
    lines = text.split("\n")[:-1]
    if not lines:
        return ["no line at all"]
    token = lines[0].partition(" ")[0]
    for number, line in enumerate(lines, start=1):
        if line != f"{token} {number}":
            return [f"line {number} is {line[:80]!r}, not {token} {number}; {len(lines)} lines in all"]
    return []


def check(host: Host, name: str, paths: Sequence[str]) -> dict[str, Any]:
    """Reads the files in a running container: `ok`, `lines` and `wrong` by path. HostError."""
    lines: dict[str, int] = {}
    wrong: dict[str, list[str]] = {}
    for path in paths:
        text = host.run(["docker", "exec", name, "cat", path]).stdout
        lines[path] = text.count("\n")
        wrong[path] = missing(text)
    return {"ok": not any(wrong.values()), "lines": lines, "wrong": wrong}
