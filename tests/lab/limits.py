# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits of the machine that its hosts share and that are too small for several of them: raised while a lab is up."""

from __future__ import annotations

from pathlib import Path

_SYSCTL = Path("/proc/sys")
# A kernel's default is 128 for each user, all hosts' root is one user, and a host with Docker takes about ten.
_LEAST = {"fs/inotify/max_user_instances": 1024}


def read() -> dict[str, int]:
    """What they are now."""
    return {name: int((_SYSCTL / name).read_text()) for name in _LEAST}


def enlarge() -> None:
    """Raise those that are too small; none is ever lowered."""
    for name, value in read().items():
        if value < _LEAST[name]:
            (_SYSCTL / name).write_text(str(_LEAST[name]))


def put_back(before: dict[str, int]) -> None:
    """Make them what read() said before, unless somebody has set them otherwise meanwhile."""
    for name, value in read().items():
        if value == _LEAST[name] and before.get(name, value) < value:
            (_SYSCTL / name).write_text(str(before[name]))
