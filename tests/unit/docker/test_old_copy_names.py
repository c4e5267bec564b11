# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The name of an old copy, and whether a container still is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import old_copy_names

SESSION: Any = SimpleNamespace(id="20261123T034500Z-3f9a1c", subject_name="web")
MOVED = "web-moved-20261123T034500Z-3f9a1c"


def _inspect(name: str, *, running: bool = False) -> dict[str, Any]:
    return {"Name": name, "State": {"Running": running}}


def test_the_name_tells_of_what_and_of_which_session_it_is() -> None:
    assert old_copy_names.name_of(SESSION) == MOVED


def test_the_engine_puts_a_slash_before_a_name() -> None:
    assert old_copy_names.name_now(_inspect("/web")) == old_copy_names.name_now(_inspect("web")) == "web"
    assert old_copy_names.name_now({"Name": None}) == ""


def test_one_that_is_stopped_under_its_moved_name_may_be_removed() -> None:
    assert old_copy_names.why_in_use(SESSION, _inspect(f"/{MOVED}")) == ""


@pytest.mark.parametrize(
    ("inspect", "reported"),
    [
        (_inspect(f"/{MOVED}", running=True), "has been started again"),
        (_inspect("/web"), "has been given this name by somebody"),
        (_inspect("/other", running=True), "has been started again"),
    ],
)
def test_one_that_somebody_has_put_to_use_may_not(inspect: dict[str, Any], reported: str) -> None:
    printed = old_copy_names.why_in_use(SESSION, inspect)
    assert reported in printed
    assert f"The container {inspect['Name'].lstrip('/')}, the old copy of session {SESSION.id}" in printed
    assert f"name it {MOVED} again" in old_copy_names.remedy(SESSION)
