# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The runtime that restores a container inside ``docker start``: where the role checkpointing puts it, what is there."""

from __future__ import annotations

import os
import re
import typing as t

# Its name in the engine's configuration and in HostConfig.Runtime.
RUNTIME = "livemigrate"
# The files through which it and a session speak have this meaning (see _engines/shim_files.py); it says so in a line of its own.
PROTOCOL = "2"
DIRECTORY = "/usr/local/lib/livemigrate"
SHIM = DIRECTORY + "/livemigrate-runc"
ACTION_SCRIPT = DIRECTORY + "/livemigrate-criu-action"


def _protocol(path: str) -> str | None:
    """The line ``protocol=N`` of a shim: whether it understands the files that a session leaves for it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            found = re.search(r"^protocol=(\d+)$", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1) if found else None


def shim_facts(info: dict[str, t.Any], action_script: str = ACTION_SCRIPT) -> dict[str, t.Any]:
    """Whether this host can hold a restored container back.

    :param info: the engine's answer to ``/info``, or an empty one where it does not run.
    """
    runtime = (info.get("Runtimes") or {}).get(RUNTIME)
    path = str((runtime or {}).get("path") or SHIM)
    installed = os.access(path, os.X_OK) and os.access(action_script, os.X_OK)
    return {
        "registered": runtime is not None and installed,
        "path": path,
        "installed": installed,
        "version": _protocol(path),
    }
