# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Where docker-py comes from on a host whose distribution has none that is new enough (PEP 668 forbids a plain pip install)."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import sys
import typing as t

# Where the role docker puts it then.
VENV = "/opt/livemigrate/venv"
# What it cannot be imported without.
_NEEDS = ("requests", "urllib3")
# How packages note their versions, see the Python Packaging User Guide on recorded projects; Debian's older ones are eggs.
_NOTE = re.compile(r"docker-([0-9][^-]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info")


class Found(t.NamedTuple):
    """The docker-py that this Python finds."""

    version: str | None
    path: str | None
    """Its directory."""
    error: str | None
    """Why it cannot be imported."""


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


def look() -> Found:
    """Which docker-py this Python would import. It is not imported, which would take 0.3 s of a processor."""
    use()
    for name in ("docker", *_NEEDS):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return Found(None, None, f"No module named {name!r}")
        if name == "docker":
            path = os.path.dirname(spec.origin)
    notes = (_NOTE.fullmatch(note) for note in os.listdir(os.path.dirname(path)))
    version = next((note.group(1) for note in notes if note), None)
    return Found(version, path, None) if version else _imported()


def _imported() -> Found:
    """The same where no note tells the version: somebody has laid the files there."""
    try:
        import docker
    except ImportError as exc:
        return Found(None, None, str(exc))
    version = getattr(docker, "__version__", None) or getattr(docker, "version", None)
    return Found(version, os.path.dirname(docker.__file__ or ""), None)
