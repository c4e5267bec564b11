# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the preflight makes of the rules: the engine, what is ignored, what fails, what is expected, and the table."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import finding
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import prediction as predictions
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import table as preflight_table
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import ERROR, WARNING, Case
from tests.unit.preflight import samples
from tests.unit.preflight.samples import Facts

NO_SHIM = {"registered": False, "version": None}


def judge(case: Facts, engine: str = "auto", **more: Any) -> preflight_judge.Verdict:
    return preflight_judge.judge(case["source"], case["destination"], engine, **more)


def test_the_shim_is_taken_where_it_is() -> None:
    case = samples.case()
    assert judge(case).engine == "runtime"
    case["destination"]["docker"]["shim"] = NO_SHIM
    verdict = judge(case)
    assert verdict.engine == "api"
    assert "has no runtime livemigrate" in verdict.engine_reason
    # The source's shim is of no use for this.
    case = samples.case()
    case["source"]["docker"]["shim"] = NO_SHIM
    assert judge(case).engine == "runtime"


def test_where_neither_engine_works_the_shim_is_asked_for() -> None:
    case = samples.case()
    case["destination"]["docker"].update(shim=NO_SHIM, api_engine={"restores": "host_network", "reason": "Docker 28"})
    verdict = judge(case)
    assert verdict.engine == "runtime"
    assert [one.rule for one in verdict.findings] == ["shim_registered"]


def test_a_container_on_the_hosts_network_is_moved_by_an_engine_that_can_do_that_alone() -> None:
    case = samples.case()
    case["destination"]["docker"].update(shim=NO_SHIM, api_engine={"restores": "host_network", "reason": "Docker 28"})
    case["source"]["container"]["inspect"] = samples.container(host={"NetworkMode": "host"}, networks={"host": {}})[
        "inspect"
    ]
    assert judge(case).engine == "api"


@pytest.mark.parametrize("engine", ["api", "runtime"])
def test_what_is_asked_for_is_taken(engine: str) -> None:
    verdict = judge(samples.case(), engine)
    assert (verdict.engine, verdict.engine_reason) == (engine, "asked for")


def test_what_is_ignored_is_reported_and_does_not_count() -> None:
    case = samples.case()
    case["destination"]["for_container"]["name_status"] = "created"
    case["source"]["docker"]["rootless"] = True
    verdict = judge(case, ignore=["name_taken"])
    assert [one.rule for one in verdict.findings] == ["engine_rootless"]
    assert [one.rule for one in verdict.ignored] == ["name_taken"]
    assert [one.rule for one in verdict.failing(ERROR)] == ["engine_rootless"]


def test_what_only_the_held_copy_shows_can_be_ignored_too() -> None:
    assert judge(samples.case(), ignore=["surroundings_differ"]).findings == judge(samples.case()).findings


def test_a_rule_that_does_not_exist_cannot_be_ignored() -> None:
    with pytest.raises(MigrationError, match=r"no rule 'name_takn'.*Did you mean name_taken"):
        judge(samples.case(), ignore=["name_takn"])


def test_the_threshold() -> None:
    case = samples.case()
    case["source"]["container"]["inspect"]["HostConfig"].update(Privileged=True, RestartPolicy={"Name": "always"})
    verdict = judge(case)
    assert [one.rule for one in verdict.findings] == ["privileged", "restart_policy"]
    assert verdict.failing(ERROR) == []
    assert [one.rule for one in verdict.failing(WARNING)] == ["privileged"]


def test_every_rule_has_all_there_is_to_say_about_it() -> None:
    for rule in preflight_judge.rules():
        assert (
            rule.title[0].islower()
            or not rule.title[0].isalpha()
            or rule.title.split()[0] in ("CRIU", "GPUs", "AppArmor")
        ), rule.id
        assert not rule.title.endswith("."), rule.id
        assert rule.source, rule.id
        assert not rule.variable or rule.variable.startswith("migrate_"), rule.id


@pytest.mark.parametrize(("severity", "needs"), [("fatal", ("source",)), ("error", ()), ("error", ("everything",))])
def test_a_rule_that_makes_no_sense_is_refused(severity: str, needs: tuple[str, ...]) -> None:
    def nonsense(_case: Case) -> Any:
        yield from ()

    with pytest.raises(ValueError, match="nonsense"):
        finding.rule(severity, "nonsense", "nowhere", *needs)(nonsense)
    assert "nonsense" not in finding.RULES


def test_two_rules_of_one_name_are_refused() -> None:
    def name_taken(_case: Case) -> Any:
        yield from ()

    with pytest.raises(ValueError, match="name_taken"):
        finding.rule("error", "twice", "nowhere", "source")(name_taken)


# -- what to expect -----------------------------------------------------------------------------------------------


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


def test_what_cannot_be_known_is_reported_as_such() -> None:
    case = samples.case()
    case["source"]["criu"]["features"]["mem_dirty_track"] = False
    case["source"]["peer"]["speed_mbit"] = None
    found = judge(case).prediction
    assert found is not None
    assert found["dirty_bytes_per_second"] is None
    assert "MEM_SOFT_DIRTY" in found["dirty_reason"]
    assert predictions.link_rate(case["source"])[1].startswith("assumed")


# -- the table ----------------------------------------------------------------------------------------------------


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
