# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A host's rsync, and whether it can be confined to the directory that it works on: found out by doing it (5 ms)."""

from __future__ import annotations

import os
import tempfile
import typing as t

from .._base.errors import MigrationError
from .._base.versions import parse_version
from . import confinement

_SECONDS = 10.0


def look() -> dict[str, t.Any]:
    """``version``, ``error`` (why it cannot be confined, or empty), ``follows_links`` (see ``_host/confinement.py``).

    Of a host without rsync nothing is said here.
    """
    facts: dict[str, t.Any] = {"version": None, "error": "", "follows_links": None}
    with tempfile.TemporaryDirectory(prefix="livemigrate") as tree:
        os.symlink(".", os.path.join(tree, "link"))
        try:
            done = confinement.run(["rsync", "--version"], tree, timeout=_SECONDS)
            facts["version"] = ".".join(map(str, parse_version(done.stdout))) or None
            if facts["version"] is None:
                facts["error"] = f"rsync does not tell its version: {done.output or f'it ended with code {done.rc}'}."
            path = os.path.join(confinement.directory(tree), "link", ".")
            facts["follows_links"] = confinement.run(["ls", path], tree, timeout=_SECONDS).rc == 0
        except MigrationError as exc:
            if exc.code != "program_missing":
                facts["error"] = exc.message
    return facts
