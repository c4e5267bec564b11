# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timeline of the frozen time: what is noted, what may come from the other host, and both as one."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session import timeline


def test_events_count_from_the_first_moment() -> None:
    line = timeline.Timeline(began=100.0)
    assert line.record(timeline.DUMPED, at=100.25) == 0.25
    line.record(timeline.FROZEN, at=100.0)
    assert line.events == [("frozen", 0.0), ("dumped", 0.25)]


def test_now_is_after_the_beginning() -> None:
    line = timeline.Timeline()
    assert 0.0 <= line.record(timeline.FROZEN) < 60.0


def test_both_hosts_as_one() -> None:
    """The destination's begins when all has been sent."""
    there = timeline.parse([["received", 0.0], ["restored", 0.2]])
    both = timeline.Both([("frozen", 0.01), ("sent", 0.3), ("held", 0.62)], there)
    assert [(one["host"], one["event"], one["seconds"]) for one in both.report(0.65)] == [
        ("source", "frozen", 0.01),
        ("destination", "received", 0.3),
        ("source", "sent", 0.3),
        ("destination", "restored", 0.5),
        ("source", "held", 0.62),
        ("destination", "running", 0.65),
    ]


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        [["received"]],
        [["received", "soon"]],
        [["\x1b[2J", 0.1]],
        [["frozen", 0.0]],
        [["received", float("nan")]],
        {"received": 1},
    ],
)
def test_what_is_no_timeline_of_a_destination(data: Any) -> None:
    with pytest.raises(ValueError, match=r"timeline|convert|unpack"):
        timeline.parse(data)
