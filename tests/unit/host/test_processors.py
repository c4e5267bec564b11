# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's lists of numbers, by which it says which processors there are."""

from __future__ import annotations

from ansible_collections.livemigrate.criu.plugins.module_utils._host import processors


def test_the_kernels_lists_of_numbers() -> None:
    """As in cpuset.cpus.effective."""
    assert processors.numbers("0-2,8\n") == {0, 1, 2, 8}
