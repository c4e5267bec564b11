# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A CRIU that did not fail but die: by a fault of its own (SIGSEGV), or because somebody or something killed it.

runc starts CRIU and waits for its answers on a socket. When CRIU ends without one, runc reports the end of that socket
(``read unixpacket @->@: EOF``) and not what ended CRIU. The kernel has noted that, if it was a fault or a lack of memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._base.versions import parse_version

_NO_ANSWER = re.compile(r"(unixpacket|criu-xprt-\w+)\b.*(\bEOF|connection reset|broken pipe)|unexpected EOF")
_MESSAGES = "/dev/kmsg"
# "criu[812]: segfault at 48 ip ...", "traps: criu[812] general protection fault", "Killed process 812 (criu)".
_ABOUT_CRIU = re.compile(r"\bcriu\[\d+\]|\(criu\)")
# CRIU looks at its own state as it goes, and ends itself where that cannot be: "BUG at criu/action-scripts.c:172".
_OWN_WORDS = re.compile(r"\bBUG at \S+")
_RECORD_BYTES = 8192
_MOST_RECORDS = 100_000


def ended_without_answer(output: str) -> bool:
    """Whether runc's output means that CRIU ended before it had answered."""
    return bool(_NO_ANSWER.search(output))


def kernel_message(since: float, messages: str = _MESSAGES) -> str:
    """What the kernel has noted about the end of a CRIU; empty where it has noted nothing, or does not tell.

    :param since: by the clock CLOCK_MONOTONIC, in seconds; an older note is about another CRIU.
    :param messages: the kernel's log, a record for each read.
    """
    found = ""
    with contextlib.suppress(OSError):
        descriptor = os.open(messages, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for _record in range(_MOST_RECORDS):
                try:
                    record = os.read(descriptor, _RECORD_BYTES)
                except BrokenPipeError:
                    # That record was overwritten meanwhile; the next read gives the oldest that is left.
                    continue
                if not record:
                    break
                found = about_criu(record.decode("utf-8", "replace"), since) or found
        finally:
            os.close(descriptor)
    return found


def about_criu(record: str, since: float) -> str:
    """The text of a record of the kernel's log, if it is about the end of a CRIU and not older than *since*."""
    head, _semicolon, message = record.partition(";")
    fields = head.split(",")
    if len(fields) < 3 or not fields[2].isdecimal() or int(fields[2]) < (since - 1) * 1e6:
        return ""
    line = message.splitlines()[0] if message else ""
    return line.strip() if _ABOUT_CRIU.search(line) else ""


def version(log: str, runner: Runner = run) -> str:
    """The version of CRIU, as its log has it or else as it says by itself."""
    found = re.search(r"\bVersion: (\S+)", log)
    if found:
        return found.group(1)
    with contextlib.suppress(MigrationError):
        return ".".join(map(str, parse_version(runner(["criu", "--version"]).stdout)))
    return ""


def sentence(doing: str, log: str, began: float, runner: Runner = run) -> str:
    """What to tell of a CRIU that ended without an answer, with what to do about it.

    :param doing: what it was doing: ``while it dumped the container``.
    :param log: its log as far as it came.
    :param began: when it was started, in seconds since 1970.
    """
    noted = kernel_message(time.monotonic() - max(0.0, time.time() - began))
    own = _OWN_WORDS.search(log)
    evidence = f"the kernel has noted: {noted}" if noted else f"its log ends with: {own.group()}" if own else ""
    which = f"CRIU {version(log, runner)}".rstrip()
    if evidence:
        return (
            f"{which} crashed on kernel {os.uname().release} {doing}; {evidence}. Bring another CRIU to this host "
            "(role livemigrate.criu.criu, for example with criu_extra_suite or criu_method: source); "
            "playbooks/preflight.yml then tries it."
        )
    return (
        f"{which} ended on kernel {os.uname().release} {doing} without an answer: it crashed or was killed. If it was not "
        "killed by somebody, bring another CRIU to this host (role livemigrate.criu.criu, for example with criu_extra_suite "
        "or criu_method: source); playbooks/preflight.yml then tries it."
    )
