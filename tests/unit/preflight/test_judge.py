# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the preflight makes of the rules: which engine is taken, what is ignored, and what fails."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import ERROR, WARNING
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
