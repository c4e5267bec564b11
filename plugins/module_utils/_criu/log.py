# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What CRIU said when it failed. The engine tells where its log was, after it has deleted it."""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t

from .._base.errors import MigrationError
from . import death as criu_death

# Where runc lets CRIU look for options; the role checkpointing names a log file there.
CONFIGURATION = "/etc/criu/runc.conf"

_LINES = 5
_ERROR = re.compile(r"\bError \([^)]*\): (?P<words>.*)")
# What CRIU calls an error and goes on after.
_HARMLESS = re.compile(r"RLIMIT_NOFILE")
# What it logs after an error that it has logged already, or before one that it describes better.
_CONSEQUENCE = re.compile(
    r"(Dumping|Restoring) FAILED|^exited, status=|One o[fr] more action scripts failed|^----|^===="
)


def errors(log: str) -> list[str]:
    """The first error lines of a log; what follows them is CRIU tidying up."""
    lines = [line.strip() for line in log.splitlines() if re.search(r"\bError \(", line)]
    return [line for line in lines if not _HARMLESS.search(line)][:_LINES]


def causes(log: str) -> list[str]:
    """The first errors of a log, without time and place in CRIU's source, and without those that only follow from others."""
    messages = [found.group("words").strip().rstrip(".") for found in map(_ERROR.search, errors(log)) if found]
    return list(dict.fromkeys(one for one in messages if not _CONSEQUENCE.search(one))) or messages[:1]


def cause(log: str) -> str:
    """The first of :func:`causes`; empty where there is none."""
    return next(iter(causes(log)), "")


def task_in_hand(log: str) -> tuple[int, str] | None:
    """The process that CRIU was dumping when the log of a dump ended: its number and its program's name."""
    found = re.findall(r"Dumping task \(pid: (\d+) comm: (.*)\)$", log, re.MULTILINE)
    return (int(found[-1][0]), found[-1][1]) if found else None


def text(work: str, since: float, configuration: str = CONFIGURATION) -> str:
    """The log of a dump that failed; options of the host may have it written somewhere else than into *work*.

    :param work: the directory that CRIU was given for it.
    :param since: when the dump began, in seconds; an older log is somebody else's.
    """
    for path in (os.path.join(work, "dump.log"), _log_file(configuration)):
        if path:
            found = read(path, since)
            if found:
                return found
    return ""


def read(path: str, since: float = 0.0) -> str:
    """A log; empty where there is none, or it is older than *since* and so somebody else's."""
    with contextlib.suppress(OSError):
        if os.path.getmtime(path) >= since - 1:
            with open(path, encoding="utf-8", errors="replace") as handle:
                return handle.read()
    return ""


def _log_file(configuration: str) -> str | None:
    with contextlib.suppress(OSError), open(configuration, encoding="utf-8", errors="replace") as handle:
        found = re.findall(r"^\s*log-file[\s=]+(/\S+)", handle.read(), re.MULTILINE)
        if found:
            return str(found[-1])
    return None


@contextlib.contextmanager
def explain_errors(code: str, configuration: str = CONFIGURATION) -> t.Iterator[None]:
    """Add what CRIU has logged to a failure of that code."""
    began = time.time()
    try:
        yield
    except MigrationError as exc:
        path = _log_file(configuration)
        if exc.code != code or path is None:
            raise
        lines = errors(read(path, began))
        if criu_death.ended_without_answer(exc.message):
            log = read(path, began)
            doing = f"while it {'dumped' if code == 'dump_failed' else 'restored'} the container"
            death = criu_death.sentence(doing, log, began)
            raise MigrationError(code, f"{death} The engine says: {exc.message}", **exc.details, criu=lines) from None
        if not lines:
            raise
        raise MigrationError(code, f"{exc.message} CRIU says: {' / '.join(lines)}", **exc.details, criu=lines) from None
