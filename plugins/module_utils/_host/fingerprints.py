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
import struct
import typing as t

from .._base.errors import MigrationError
from . import procfs

# /proc/PID/stat, fields by proc(5) less the two before the closing parenthesis: start_code, end_code, start_stack,
# start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end.
_LAYOUT_FIELDS = (26, 27, 28, 45, 46, 47, 48, 49, 50, 51)

_AT_RANDOM = 25

Fingerprints = dict[str, str]


def random_address(auxv: bytes) -> int | None:
    """Where in its memory a process has the 16 random bytes that the kernel gave it at its exec (getauxval(3), AT_RANDOM)."""
    word = struct.calcsize("P")
    for offset in range(0, len(auxv) - 2 * word + 1, 2 * word):
        kind, value = struct.unpack_from("PP", auxv, offset)
        if kind == _AT_RANDOM:
            return int(value)
    return None


def _random_bytes(pid: int, auxv: bytes) -> bytes:
    # They differ from exec to exec also where the layout does not (kernel.randomize_va_space=0, setarch -R).
    address = random_address(auxv)
    if address is None:
        return b""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as handle:
        handle.seek(address)
        return handle.read(16) or b""


def fingerprint(stat: str, auxv: bytes, random: bytes = b"") -> str:
    """The hash of one process, from the text of /proc/PID/stat, the bytes of /proc/PID/auxv and those behind AT_RANDOM."""
    fields = procfs.parse_stat(stat)
    layout = " ".join(fields[number - 3] for number in _LAYOUT_FIELDS)
    return hashlib.sha256(layout.encode() + b"\0" + auxv + b"\0" + random).hexdigest()


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
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as handle:
                number = inner_pid(handle.read())
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
                stat = handle.read()
            with open(f"/proc/{pid}/auxv", "rb") as handle:
                auxv = handle.read()
            # A zombie has no memory, hence no auxiliary vector.
            if auxv:
                found[number] = fingerprint(stat, auxv, _random_bytes(pid, auxv))
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
