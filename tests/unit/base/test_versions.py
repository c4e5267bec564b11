# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions as programs tell them, and which of two is the newer one."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.versions import Version, at_least, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Version: 4.1.1", (4, 1, 1)),
        ("1.7.24~ds1", (1, 7, 24)),
        ("v3", (3,)),
        ("28.5.2, build ecc6942", (28, 5, 2)),
        ("3.18. 7", (3, 18)),
        ("none", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_the_first_dotted_number_is_the_version(text: str | None, version: Version) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("version", "wanted", "enough"),
    [
        ((4, 10), (4, 9), True),
        ((4, 2), (4, 2), True),
        ((4, 1, 9), (4, 2), False),
        # What is missing counts as 0.
        ((4,), (4, 0, 0), True),
        ((4,), (4, 0, 1), False),
        ((4, 0, 1), (4,), True),
        ((), (1,), False),
    ],
)
def test_which_one_is_new_enough(version: Version, wanted: Version, enough: bool) -> None:
    assert at_least(version, wanted) is enough
