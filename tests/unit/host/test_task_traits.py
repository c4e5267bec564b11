# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task can be told by, read from outside."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import task_traits


@pytest.mark.parametrize(("reported", "value"), [(4, 0), (0, 0), (2 << 13 | 6, 2 << 13 | 6), (3 << 13, 3 << 13)])
def test_an_io_priority_without_a_class(monkeypatch: pytest.MonkeyPatch, reported: int, value: int) -> None:
    """Linux before 5.15 tells level 4 of it where a task never read nor wrote, and takes no such level."""
    monkeypatch.setattr(task_traits, "_call", lambda *_arguments: reported)
    assert task_traits.InputOutputPriority("its I/O priority").get(1) == value
