# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rule has to say of itself before it is one."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import finding
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Case


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
