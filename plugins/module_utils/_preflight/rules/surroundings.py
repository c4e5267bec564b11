# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What belongs to processes, is not their memory, and can be carried over by nobody: pure rules.

What can be carried is carried while the copy is held, see ``_surroundings/tasks.py`` and its neighbours.
"""

from __future__ import annotations

import typing as t

from ..finding import ERROR, SURROUNDINGS_DIFFER, WARNING, Case, Told, rule

_Found = t.Iterator[Told]

_NAMED = 8


@rule(ERROR, "processes with a personality of their own", "criu 4.2 by reading, run", "processes", volatile=True)
def personality(case: Case) -> _Found:
    programs = (case.container or {})["processes"]["held"].get("personality")
    if programs:
        yield (
            f"These programs have a personality of their own, which CRIU does not restore: {', '.join(programs)}.",
            (
                "Start them without setarch(8) and linux32(8). Where only programs that they start later would notice, put "
                "personality into migrate_ignore_rules."
            ),
        )


@rule(
    ERROR,
    "programs that keep the processor from speculating (PR_SET_SPECULATION_CONTROL)",
    "run",
    "processes",
    volatile=True,
)
def speculation_controls(case: Case) -> _Found:
    programs = (case.container or {})["processes"]["held"].get("speculation")
    if programs:
        yield (
            (
                "These programs have asked the processor not to speculate for them, which keeps their secrets from others, and "
                f"CRIU does not restore that: {', '.join(programs)}."
            ),
            (
                "Start them anew on the destination, or put speculation_controls into migrate_ignore_rules where it matters to "
                "nobody."
            ),
        )


@rule(ERROR, "keys in the kernel's keyrings", "run", "processes", volatile=True)
def kernel_keys(case: Case) -> _Found:
    number = (case.container or {})["processes"].get("keys")
    if number:
        yield (
            f"The session keyring of the container holds {number} key(s), which CRIU does not move.",
            (
                "Remove them (keyctl clear @s). Where its programs get them again by themselves, put kernel_keys into "
                "migrate_ignore_rules."
            ),
        )


@rule(
    WARNING,
    "unix connections through a listener whose other end is not root's",
    "criu 4.2 by reading, run",
    "processes",
)
def peer_credentials(case: Case) -> _Found:
    peers = (case.container or {})["processes"].get("peers") or ()
    if peers:
        named = ", ".join(
            f"{one['program']} ({one['name']}, user and group {one['uid']}:{one['gid']})" for one in peers
        )
        yield (
            (
                f"These programs have connections through unix sockets whose other end is not root's: {named}. CRIU makes it "
                "root's. A service that asks for each request who its client is (SO_PEERCRED) would take the client for root."
            ),
            (
                "Nothing, where the programs do not ask, or ask only when the connection begins, as databases do. Else have "
                "these connections closed for the time of the move."
            ),
        )


@rule(
    ERROR, "programs that are tied to processors which the destination does not have", "run", "destination", "processes"
)
def processors_missing(case: Case) -> _Found:
    there = (case.destination or {})["kernel"].get("processors")
    missing: dict[str, set[int]] = {}
    for one in (case.container or {})["processes"].get("tied") or ():
        # As the comparison with the held copy has it: a task that is tied to all there are on the source is tied to none.
        lost = set(one["processors"]) - set(there or one["processors"])
        if lost:
            missing.setdefault(one["program"], set()).update(lost)
    if missing:
        programs = "; ".join(
            f"{program} to {', '.join(map(str, sorted(lost)[:_NAMED]))}{' ...' if len(lost) > _NAMED else ''}"
            for program, lost in sorted(missing.items())
        )
        yield (
            f"Programs of the container are tied to processors that the destination does not have: {programs}.",
            (
                "Start them without that (taskset, nginx's worker_cpu_affinity), or choose a host with as many processors. Where "
                f"it does not matter, put processors_missing and {SURROUNDINGS_DIFFER} into migrate_ignore_rules."
            ),
        )


@rule(ERROR, "more files in memory than are looked at", "criu/filesystems.c, run", "processes", volatile=True)
def memory_files_many(case: Case) -> _Found:
    memory = (case.container or {})["memory"]
    if memory["tmpfs_files"] > memory["tmpfs_files_most"]:
        yield (
            (
                f"There are {memory['tmpfs_files']} files on file systems in memory (/dev/shm, --tmpfs), and up to "
                f"{memory['tmpfs_files_most']} are looked at while the container stands still. CRIU does not restore their "
                "access control lists, capabilities and other extended attributes."
            ),
            (
                "Put them on a volume, or remove those that nobody needs. Where none of them has such attributes, put "
                "memory_files_many into migrate_ignore_rules."
            ),
        )
