# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Proof that processes were restored and not started afresh.

An exit code of 0 proves nothing: containerd 1.3 and 1.4 ignore the checkpoint and start the image (containerd commit
ab5d93187). What a fresh start cannot have is the memory layout of the old process: where the kernel put stack, heap, code
and vDSO, chosen at random at every exec, and the auxiliary vector with it. CRIU restores both to the byte. So each process
is reduced to a hash of them, on the source while it is frozen, and again on the destination.
"""

from __future__ import annotations

import contextlib
import hashlib
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError

# /proc/PID/stat, fields by proc(5) less the two before the closing parenthesis: start_code, end_code, start_stack,
# start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end.
_LAYOUT_FIELDS = (26, 27, 28, 45, 46, 47, 48, 49, 50, 51)

Fingerprints = dict[str, str]


def fingerprint(stat: str, auxv: bytes) -> str:
    """The hash of one process, from the text of /proc/PID/stat and the bytes of /proc/PID/auxv."""
    fields = stat.rpartition(")")[2].split()
    layout = " ".join(fields[number - 3] for number in _LAYOUT_FIELDS)
    return hashlib.sha256(layout.encode() + b"\0" + auxv).hexdigest()


def inner_pid(status: str) -> str:
    """A process' number in its innermost PID namespace, from the text of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1]
    raise ValueError("no NSpid in /proc/PID/status: Linux before 4.1")


def take(pids: t.Iterable[int]) -> Fingerprints:
    """The fingerprints of processes, by the number each has inside its container."""
    found: Fingerprints = {}
    for pid in pids:
        # A process may end while it is looked at; on the destination the copy is already running.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as handle:
                number = inner_pid(handle.read())
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
                stat = handle.read()
            with open(f"/proc/{pid}/auxv", "rb") as handle:
                auxv = handle.read()
            # A zombie has no memory, hence no auxiliary vector.
            if auxv:
                found[number] = fingerprint(stat, auxv)
    return found


def check(source: Fingerprints, destination: Fingerprints) -> dict[str, int]:
    """Prove that the destination's processes are the source's.

    :returns: how many processes there were, and how many were recognised.
    :raises MigrationError: ``not_a_restore`` when the first process is another one, or less than half of the others are
        recognised (those that have ended since the thaw are no evidence against it).
    """
    if not source.get("1"):
        raise MigrationError("not_a_restore", "The source's first process was not recorded; nothing can be proved.")
    same = [number for number, value in source.items() if destination.get(number) == value]
    if "1" not in same:
        raise MigrationError(
            "not_a_restore",
            "The destination's engine started the container afresh instead of restoring it: its first process has another "
            "memory layout. containerd 1.3 and 1.4 do that silently; see docs/support.md.",
            processes=len(source),
            recognised=len(same),
        )
    wrong = [number for number, value in source.items() if number in destination and destination[number] != value]
    if len(wrong) * 2 > len(source):
        raise MigrationError(
            "not_a_restore",
            f"{len(wrong)} of {len(source)} processes on the destination are not those of the source.",
            processes=len(source),
            recognised=len(same),
        )
    return {"processes": len(source), "recognised": len(same)}
