# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Where docker-py comes from on a host whose distribution has none that is new enough (PEP 668 forbids a plain pip install)."""

from __future__ import annotations

import glob
import os
import sys
import typing as t

# Where the role docker puts it then.
VENV = "/opt/livemigrate/venv"


def directory(version: tuple[t.Any, ...] = sys.version_info, venv: str = VENV) -> str | None:
    """Where the role docker left packages for this very Python; None where there are none."""
    found = glob.glob(f"{venv}/lib*/python{version[0]}.{version[1]}/site-packages/docker/__init__.py")
    return os.path.dirname(os.path.dirname(found[0])) if found else None


def use() -> str | None:
    """Put that place first on the import path, so that it wins over an older docker-py of the distribution."""
    place = directory()
    if place and place not in sys.path:
        sys.path.insert(0, place)
    return place
