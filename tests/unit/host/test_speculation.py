# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Protections from speculation: which of them a program asked for."""

from __future__ import annotations

from ansible_collections.livemigrate.criu.plugins.module_utils._host import speculation


def test_a_protection_that_came_with_a_seccomp_filter_was_asked_for_by_nobody() -> None:
    name = "SpeculationIndirectBranch"
    states = [speculation.state(name, {name: "conditional force disabled", "Seccomp": mode}) for mode in "02"]
    assert states == [speculation.ASKED_FOR, None]
    assert speculation.state(name, {}) is None
