# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories that travel: what of them does, and what the other side is to have of them."""

from __future__ import annotations

from ansible_collections.livemigrate.criu.plugins.module_utils._channel import tree
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.tree import Tree


def test_what_travels_is_the_directory_or_the_one_file_in_it() -> None:
    assert Tree("bind/x", "/srv/web", ()).content == "/srv/web"
    assert Tree("bind/x", "/srv", (), file="web.conf").content == "/srv/web.conf"


def test_what_every_session_has_is_on_the_other_side_as_it_is_here_and_as_a_whole() -> None:
    for one, target in ((tree.inbox("/run/out"), "inbox"), (tree.checkpoint("/run/dump"), "checkpoint")):
        assert one.target == target
        assert "--delete" in one.options
        # It is new for each session: there is no pass before, which could have trusted a time.
        assert (one.always, one.by_times, one.file) == (False, False, "")
