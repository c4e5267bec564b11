# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The message of a dump or a restore that failed: the cause in the first sentence, once, and where CRIU's whole log is.

That log is about processes, files and addresses, and holds nothing of their memory. It is kept for root alone, outlives the
session, and goes after some days.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from .._base import durable
from . import death as criu_death
from . import log as criu_log

DUMP, RESTORE = "dump", "restore"
KEPT_DAYS = 14
_DIRECTORY = "logs"
# What else it says first, beside the cause.
_MORE = 2
# What containerd and runc put before their reason.
_FRAMES = re.compile(
    r"^(failed to create task for container|failed to create shim task|OCI runtime \w+ failed|unable to \w+): "
)
_BY_SHIM = re.compile(r"^livemigrate: container \w+ could not be restored: ")
_NO_WORD = "CRIU ended without a word"


def explain(kind: str, output: str, log: str, began: float) -> str:
    """Why it failed.

    :param kind: :data:`DUMP` or :data:`RESTORE`.
    :param output: the output of runc.
    :param log: CRIU's log, as far as it came.
    :param began: when it began, in seconds since 1970.
    """
    doing = f"CRIU cannot {kind} the container"
    if criu_death.ended_without_answer(output):
        return criu_death.sentence(f"while it {kind}{'d' if kind.endswith('e') else 'ed'} the container", log, began)
    causes = criu_log.causes(log)
    if not causes:
        return f"{doing}: {output.strip().rstrip('.') or _NO_WORD}."
    more = f" It also says: {' / '.join(causes[1 : 1 + _MORE])}." if causes[1:] else ""
    return f"{doing}: {causes[0]}.{more}"


def explain_start(output: str, log: str, began: float, action_script: str) -> str:
    """Why the engine did not start a copy.

    :param output: the error of the engine: its own reason, or that of the runtime shim within it.
    :param log: CRIU's log, as far as it came.
    :param began: when it began, in seconds since 1970.
    :param action_script: the error of the action script, if that has failed.
    """
    text, before = output.strip(), ""
    while text != before:
        before, text = text, _FRAMES.sub("", text)
    by_shim = _BY_SHIM.match(text)
    if by_shim and action_script:
        return f"CRIU cannot {RESTORE} the container: {action_script.strip().rstrip('.')}."
    if by_shim:
        return explain(RESTORE, text[by_shim.end() :], log, began)
    causes = criu_log.causes(log)[: 1 + _MORE]
    more = f" CRIU says: {' / '.join(causes)}." if causes else ""
    return f"The engine did not start the copy: {text.rstrip('.')}.{more}"


def keep_log(kind: str, log: str, session: str, state_root: str) -> str:
    """Keep CRIU's log, and remove those that have been kept for long enough.

    :returns: a sentence that says where it is; empty where there is no log, or no room for it.
    """
    directory = os.path.join(state_root, _DIRECTORY)
    with contextlib.suppress(OSError):
        prune(state_root)
        if log:
            durable.make_directory(directory)
            path = os.path.join(directory, f"{session}-{kind}.log")
            durable.write(path, log.encode())
            where = "source" if kind == DUMP else "destination"
            return f" Its whole log is {path} on the {where}, for {KEPT_DAYS} days."
    return ""


def prune(state_root: str, days: float = KEPT_DAYS) -> None:
    """Remove logs that are older than so many days."""
    directory = os.path.join(state_root, _DIRECTORY)
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - days * 86400:
                os.unlink(entry.path)
