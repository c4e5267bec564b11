# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys by which a host can be recognised."""

from __future__ import annotations

from ansible_collections.livemigrate.criu.plugins.module_utils._channel import host_keys


def test_host_keys_are_lines_of_kind_and_key() -> None:
    for key in host_keys.public():
        assert len(key.split()) == 2
