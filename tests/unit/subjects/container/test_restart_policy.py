# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restart policies: when Docker would start a container by them. Those on the disk are in test_old_copy.py."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import restart_policy

STOPPED = {"Running": False, "ExitCode": 0}
FAILED = {"Running": False, "ExitCode": 3}


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure", "no", ""])
def test_one_that_runs_is_not_started(policy: str) -> None:
    state = {"Running": True, "ExitCode": 0}
    assert not restart_policy.would_start({"Name": policy}, state, ended_with_host=True)


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure", "with_its_host"),
    [
        ("always", True, True, True),
        ("unless-stopped", True, True, True),
        ("on-failure", False, True, True),
        ("no", False, False, False),
        ("", False, False, False),
    ],
)
def test_one_that_has_ended(policy: str, after_success: bool, after_failure: bool, with_its_host: bool) -> None:
    given = {"Name": policy}
    assert restart_policy.would_start(given, STOPPED) is after_success
    assert restart_policy.would_start(given, FAILED) is after_failure
    assert restart_policy.would_start(given, STOPPED, ended_with_host=True) is with_its_host


def test_no_policy_and_the_one_that_an_old_copy_gets_start_nothing() -> None:
    assert not restart_policy.would_start({}, FAILED, ended_with_host=True)
    assert not restart_policy.would_start(restart_policy.NEVER, FAILED, ended_with_host=True)
