# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a move will take, and how long its container will stand still."""

from __future__ import annotations

from typing import Any

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import prediction as predictions
from tests.unit.preflight import samples
from tests.unit.preflight.samples import Facts


def judge(case: Facts, engine: str = "auto", **more: Any) -> preflight_judge.Verdict:
    return preflight_judge.judge(case["source"], case["destination"], engine, **more)


def test_more_memory_and_a_slower_link_take_longer() -> None:
    case = samples.case()
    small = judge(case).prediction
    assert small is not None
    assert small["memory_bytes"] == 10 << 20
    assert small["data_bytes"] == 1 << 20
    assert small["link_bytes_per_second"] == 125_000_000
    assert 0.5 < small["gap_seconds"] < 2
    assert small["total_seconds"] > small["gap_seconds"]
    case["source"]["container"]["memory"]["dump_bytes"] = 1 << 30
    big = judge(case).prediction
    assert big is not None
    assert big["gap_seconds"] > 10
    case["source"]["peer"]["speed_mbit"] = 100
    slow = judge(case).prediction
    assert slow is not None
    assert slow["gap_seconds"] > 80
    by_api = judge(case, "api").prediction
    assert by_api is not None
    assert by_api["gap_seconds"] > slow["gap_seconds"]


def test_a_move_takes_as_long_as_its_tasks_do_just_now() -> None:
    case = samples.case()
    case["source"]["clock"]["asked_at"] = 1000.0
    case["destination"]["clock"]["asked_at"] = 1001.0

    def total(judged_at: float | None, engine: str = "runtime") -> float:
        found = preflight_judge.judge(case["source"], case["destination"], engine, judged_at=judged_at).prediction
        assert found is not None
        return float(found["total_seconds"])

    # On the lab's quiet hosts a task takes about a second, and a whole move 13.5 s (run).
    assert 12 < total(1002.2) < 16
    assert total(1010.0) > 50
    # Where nobody has noted the time.
    assert total(None) == total(1002.2)
    assert total(1002.2, "api") > total(1002.2)


def test_an_image_that_is_not_there_counts() -> None:
    case = samples.case()
    case["destination"]["for_container"]["image"]["present"] = False
    found = judge(case).prediction
    assert found is not None
    assert found["data_bytes"] == (1 << 20) + (100 << 20)


def test_what_the_destination_has_already_is_read_on_both_sides_and_may_travel_all_the_same() -> None:
    case = samples.case()
    case["source"]["container"]["sizes"].update(layer_bytes=10 << 30, volume_bytes=100 << 30)
    there = case["destination"]["for_container"]

    def predicted() -> tuple[int, float]:
        found = judge(case).prediction
        assert found is not None
        assert found["data_bytes"] == 110 << 30, "nobody knows before the move how much of it differs"
        return found["compared_bytes"] >> 30, float(found["total_seconds"])

    compared, first = predicted()
    assert compared == 0
    there["old_layer"] = True
    assert predicted()[0] == 10
    there["volumes"] = {"new": None, "data": {"has_base": True, "has_content": False, "used_by": []}}
    compared, back = predicted()
    assert compared == 110
    assert back > first + 500


def test_what_cannot_be_known_is_reported_as_such() -> None:
    case = samples.case()
    case["source"]["criu"]["features"]["mem_dirty_track"] = False
    case["source"]["peer"]["speed_mbit"] = None
    found = judge(case).prediction
    assert found is not None
    assert found["dirty_bytes_per_second"] is None
    assert "MEM_SOFT_DIRTY" in found["dirty_reason"]
    assert predictions.link_rate(case["source"])[1].startswith("assumed")
