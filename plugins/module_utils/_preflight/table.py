# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The outcome of a preflight as a person reads it: one table, errors first, and what to expect below it. Pure."""

from __future__ import annotations

import textwrap
import typing as t

from .._base import printable
from .finding import Finding
from .judge import Verdict

_LEAST_COLUMNS = 60
_MOST_COLUMNS = 130
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(number: float) -> str:
    """Bytes in a unit that people read."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if number >= 10 or unit == 0 else f"{number:.1f} {_UNITS[unit]}"


def expectation(prediction: t.Mapping[str, t.Any]) -> list[str]:
    """What a move would take, in sentences."""
    more = "" if prediction["data_complete"] else " or more (it was not all counted in a second)"
    compared = prediction["compared_bytes"]
    there = f" (both hosts read {size(compared)} of them first, and only what differs is sent)" if compared else ""
    return [
        (
            f"Expected: it stands still for about {prediction['gap_seconds']:.1f} s; the whole move takes about "
            f"{prediction['total_seconds']:.0f} s."
        ),
        (
            f"To move: {size(prediction['memory_bytes'])} of memory, {size(prediction['data_bytes'])} of files{more}{there}; "
            f"link {size(prediction['link_bytes_per_second'])}/s, {prediction['link_source']}."
        ),
        f"Memory that changes meanwhile: {prediction['dirty_reason']}.",
    ]


def render(verdict: Verdict, columns: int) -> str:
    """The table as text.

    :param columns: width of the terminal.
    """
    columns = max(_LEAST_COLUMNS, min(columns, _MOST_COLUMNS)) - 1
    rows = [(one.severity, one) for one in verdict.findings]
    rows += [("ignored", one) for one in verdict.ignored]
    lines: list[str] = []
    if rows:
        first = max(len("severity"), *(len(severity) for severity, _one in rows))
        second = max(len("rule"), *(len(one.rule) for _severity, one in rows))
        lines = [f"{'severity':{first}}  {'rule':{second}}  what was found, and what to do"]
        lines.append("-" * columns)
        for severity, one in rows:
            lines += _row(severity, one, first, second, columns)
        lines.append("-" * columns)
    else:
        lines = ["Nothing was found that stands in the way."]
    lines.append(f"Engine: {verdict.engine} ({verdict.engine_reason}).")
    if verdict.prediction is not None:
        lines += expectation(verdict.prediction)
    # The rest of it are words of both hosts: names of devices, why an engine was chosen.
    return "\n".join(map(printable.text, lines))


def _row(severity: str, one: Finding, first: int, second: int, columns: int) -> list[str]:
    margin = first + second + 4
    width = max(24, columns - margin)
    text = [*textwrap.wrap(one.message, width), *textwrap.wrap("-> " + one.remedy, width, subsequent_indent="   ")]
    lead = f"{severity:{first}}  {one.rule:{second}}  "
    return [(lead if number == 0 else " " * margin) + line for number, line in enumerate(text)]
