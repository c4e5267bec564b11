# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the preflight has found, as a table for people."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import table as preflight_table
from tests.unit.preflight import samples
from tests.unit.preflight.samples import Facts


def judge(case: Facts, engine: str = "auto", **more: Any) -> preflight_judge.Verdict:
    return preflight_judge.judge(case["source"], case["destination"], engine, **more)


def _bad() -> Facts:
    case = samples.case()
    case["destination"]["for_container"]["name_status"] = "created"
    case["destination"]["for_container"]["image"]["present"] = False
    case["source"]["container"]["inspect"]["HostConfig"]["Privileged"] = True
    return case


@pytest.mark.parametrize("columns", [20, 60, 80, 130, 400])
def test_the_table_fits_and_holds_everything(columns: int) -> None:
    verdict = judge(_bad(), ignore=["privileged"])
    table = preflight_table.render(verdict, columns)
    lines = table.splitlines()
    rows = [line for line in lines if line.startswith(("error", "warning", "info", "ignored"))]
    assert [line.split()[:2] for line in rows] == [
        ["error", "name_taken"],
        ["info", "image_travels"],
        ["ignored", "privileged"],
    ]
    body = lines[: lines.index(next(line for line in lines if line.startswith("Engine:")))]
    assert max(map(len, body)) < max(60, min(columns, 130))
    joined = " ".join(" ".join(lines).split())
    for one in (*verdict.findings, *verdict.ignored):
        # Words, not texts: these are spread over lines.
        assert all(word in joined for word in (one.message + " " + one.remedy).split())


def test_the_table_of_nothing() -> None:
    table = preflight_table.render(judge(samples.case()), 100)
    assert table.startswith("Nothing was found that stands in the way.\nEngine: runtime (")
    assert "stands still for about 1.2 s" in table


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 20, "10 MiB"), (5 << 40, "5.0 TiB")]
)
def test_size(number: int, text: str) -> None:
    assert preflight_table.size(number) == text
