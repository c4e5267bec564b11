# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An rsync before 3.5, which follows symbolic links that somebody puts into its way: what most hosts have."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.unit.helpers.support import ROOT

_CACHE = ROOT / ".cache" / "old-rsync"


def _version(program: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else ()


def _download() -> Path:
    """The oldest one that this machine's package sources offer, unpacked and not installed."""
    program = _CACHE / "usr" / "bin" / "rsync"
    if program.exists() or shutil.which("apt-get") is None:
        return program
    offered = subprocess.run(["apt-cache", "madison", "rsync"], capture_output=True, text=True, check=False).stdout
    versions = [line.split("|")[1].strip() for line in offered.splitlines() if line.count("|") == 2]
    for version in reversed(versions):
        _CACHE.mkdir(parents=True, exist_ok=True)
        argv = ["apt-get", "download", f"rsync={version}"]
        if subprocess.run(argv, cwd=_CACHE, capture_output=True, check=False).returncode == 0:
            for package in _CACHE.glob("*.deb"):
                subprocess.run(["dpkg", "--extract", str(package), str(_CACHE)], check=True)
                package.unlink()
            break
    return program


@functools.lru_cache(maxsize=1)
def directory() -> str:
    """The directory of such an rsync; empty where none can be had."""
    for program in (Path(shutil.which("rsync") or "/nowhere"), _download()):
        if os.access(program, os.X_OK) and () < _version(program) < (3, 5):
            return str(program.parent)
    return ""
