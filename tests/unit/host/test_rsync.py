# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the preflight is told of a host's rsync, and of how it can be confined."""

from __future__ import annotations

import shutil

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import confinement, rsync

pytestmark = pytest.mark.usefixtures("needs_namespaces")


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
@pytest.mark.parametrize("follows", [False, True])
def test_the_preflight_knows_whether_the_kernel_can_be_made_to_follow_no_link(
    follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if follows:
        monkeypatch.setattr(confinement, "_NOSYMFOLLOW", 0)  # as an old kernel takes it
    reported = rsync.look()
    assert (reported["error"], reported["follows_links"]) == ("", follows)
    assert reported["version"].startswith("3.")


def test_the_preflight_knows_why_it_cannot_be_confined_and_not_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confinement, "_SCAFFOLD", "/sys/no/such/place")
    assert "No such file or directory" in rsync.look()["error"]
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_keywords: None)
    assert rsync.look() == {"version": None, "error": "", "follows_links": None}
