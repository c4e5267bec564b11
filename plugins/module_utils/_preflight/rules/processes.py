# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the processes of a container hold that CRIU cannot dump, or needs an option for: pure rules over what
``_host/process_resources.py`` saw."""

from __future__ import annotations

import re
import typing as t

from ..._base.versions import at_least, parse_version
from ..finding import ERROR, INFO, WARNING, Case, Facts, Told, rule

_Found = t.Iterator[Told]

# CRIU's own, when nothing else is said (include/cr_options.h).
_GHOST_LIMIT = 1 << 20


def _processes(case: Case) -> Facts:
    found: Facts = (case.container or {})["processes"]
    return found


def _holders(case: Case, *kinds: str) -> str:
    """The programs that hold one of these, for a sentence; empty where none does."""
    users = _processes(case)["held"]
    return ", ".join(sorted({program for kind in kinds for program in users.get(kind, ())}))


@rule(ERROR, "processes of `docker exec`", "run", "processes", volatile=True)
def exec_session_running(case: Case) -> _Found:
    foreign = _processes(case)["foreign"]
    if foreign:
        yield (
            f"Processes entered through docker exec are running in it: {', '.join(foreign)}. They are not part of a checkpoint.",
            "End them.",
        )


@rule(ERROR, "orphans of `docker exec`, whose session began outside", "criu/cr-dump.c", "processes", volatile=True)
def session_outside(case: Case) -> _Found:
    programs = _holders(case, "session_outside")
    if programs:
        yield (
            f"The session of these programs was begun outside of the container's process ids: {programs}.",
            "End them, or start them under setsid(1).",
        )


@rule(ERROR, "a debugger on a process", "run", "processes", volatile=True)
def traced(case: Case) -> _Found:
    programs = _holders(case, "traced")
    if programs:
        yield (
            f"A debugger or tracer is attached to {programs}; CRIU needs that place itself.",
            "Detach it (gdb, strace).",
        )


@rule(ERROR, "io_uring", "criu#2131, criu#3070, run", "processes", volatile=True)
def io_uring(case: Case) -> _Found:
    programs = _holders(case, "io_uring")
    if programs:
        yield (
            f"These programs use io_uring, which CRIU cannot dump: {programs}.",
            (
                "Turn it off in the program (MariaDB: --innodb-use-native-aio=0), or start the container with Docker's own "
                "seccomp profile, which forbids it from 25.0 on (not privileged, not seccomp=unconfined)."
            ),
        )


_UNSUPPORTED = {
    "perf": "perf events",
    "bpf": "BPF maps or programs",
    "userfaultfd": "userfaultfd",
    "kvm": "KVM machines",
    "dmabuf": "DMA buffers (GPUs, video)",
    "seccomp_notify": "seccomp notifications",
    # What a program is restricted by already cannot be seen, and is lost.
    "landlock": "open Landlock rule sets (what Landlock forbids them already would be lost too, see docs/security.md)",
    "mount_fd": "file systems that are being mounted",
    "mqueue": "POSIX message queues",
    "pipe_packets": "pipes in packet mode (pipe2 with O_DIRECT)",
    "secretmem": "secret memory (memfd_secret)",
}


@rule(ERROR, "descriptors of a kind that CRIU does not know", "run", "processes", volatile=True)
def descriptors_unsupported(case: Case) -> _Found:
    users = _processes(case)["held"]
    for kind, name in _UNSUPPORTED.items():
        if users.get(kind):
            yield (
                f"These programs hold {name}, which CRIU cannot dump: {', '.join(users[kind])}.",
                "End them before the move, or have them do without.",
            )


@rule(
    ERROR,
    "inotify or fanotify on the writable layer",
    "criu#136, criu PR 3043, run",
    "source",
    "processes",
    volatile=True,
)
def inotify_on_overlay(case: Case) -> _Found:
    programs = _holders(case, "inotify_overlay", "fanotify_overlay")
    version = (case.source or {})["criu"].get("version")
    if programs and not at_least(parse_version(version), (4, 3)):
        yield (
            f"These programs watch files of the container's own layer, which CRIU {version} cannot name: {programs}.",
            "Have them watch files on a volume, or turn the watching off.",
        )


@rule(ERROR, "devices that are open or mapped", "run", "processes", volatile=True)
def devices_open(case: Case) -> _Found:
    devices = _processes(case)["devices"]
    if devices:
        yield (
            f"Devices are open whose state CRIU cannot save: {', '.join(devices)}.",
            "Have the programs close them before the move; GPUs need a plugin of CRIU that the engine does not use.",
        )


def _bytes(text: str) -> int:
    """``256M`` as CRIU reads it."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip())
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[match.group(2)] if match else _GHOST_LIMIT


@rule(ERROR, "deleted files above CRIU's limit", "criu#587, run", "source", "processes", engine="api", volatile=True)
def deleted_file_large(case: Case) -> _Found:
    limit = _bytes(str((case.source or {})["criu"]["options"].get("ghost-limit", _GHOST_LIMIT)))
    for one in _processes(case)["deleted"]:
        if one["bytes"] > limit:
            yield (
                (
                    f"{one['program']} holds the deleted file {one['path']} of {one['bytes'] >> 20} MiB; CRIU saves those up to "
                    f"{limit >> 20} MiB."
                ),
                "Set ghost-limit in checkpointing_criu_options of the role checkpointing, or have the program close the file.",
            )


@rule(
    ERROR, "file locks without CRIU's option for them", "moby#48207", "source", "processes", engine="api", volatile=True
)
def file_locks(case: Case) -> _Found:
    locks = _processes(case)["locks"]
    if locks and "file-locks" not in (case.source or {})["criu"]["options"]:
        yield (
            f"Programs hold {locks} file lock(s), and /etc/criu/runc.conf of the source does not say file-locks.",
            "The role livemigrate.criu.checkpointing writes it (playbooks/provision.yml).",
        )


_NESTED = {
    "pid": "process ids",
    "user": "users",
    "net": "networks",
    "ipc": "IPC",
    "uts": "hostnames",
    "cgroup": "cgroups",
}


@rule(ERROR, "namespaces of processes inside of the container", "run", "processes", volatile=True)
def nested_namespaces(case: Case) -> _Found:
    for kind, name in _NESTED.items():
        programs = _holders(case, f"namespace_{kind}")
        if programs:
            yield (
                f"These programs have made a namespace of {name} of their own inside of the container: {programs}.",
                "CRIU dumps no such nesting (browsers' sandboxes, Docker in Docker, systemd): turn it off, or end them.",
            )


@rule(ERROR, "a user namespace", "runc's documentation", "processes")
def user_namespace(case: Case) -> _Found:
    if _processes(case)["own_user_namespace"]:
        yield (
            "The container has a user namespace of its own; a checkpoint of it cannot be restored through the engine.",
            "Run it on an engine without userns-remap, and not rootless.",
        )


@rule(ERROR, "sockets of protocols that CRIU does not know", "criu b458a5c1a, run", "processes", volatile=True)
def socket_protocol(case: Case) -> _Found:
    protocols = _processes(case)["protocols"]
    if protocols:
        names = ", ".join(f"{number} {name}" for name, number in protocols.items())
        remedy = "Have the program use TCP, UDP or unix sockets."
        if any(name.startswith("MPTCP") for name in protocols):
            remedy = "Go from 1.24 on listens with MPTCP: set GODEBUG=multipathtcp=0 in the container's environment."
        yield f"Sockets are open of protocols that CRIU cannot dump: {names}.", remedy


@rule(ERROR, "seccomp filters where CRIU cannot suspend them", "criu#2391", "source", "destination", "processes")
def seccomp_support(case: Case) -> _Found:
    if not _processes(case)["seccomp"]:
        return
    for where, facts in case.hosts():
        lacking = [
            name for name in ("seccomp_suspend", "seccomp_filters") if facts["criu"]["features"].get(name) is False
        ]
        if lacking:
            yield (
                f"The container's processes have seccomp filters, and the kernel of the {where} lacks {' and '.join(lacking)}.",
                "Use a kernel with CONFIG_SECCOMP_FILTER and CONFIG_CHECKPOINT_RESTORE.",
            )


@rule(ERROR, "file systems mounted inside of the container", "run", "processes", volatile=True)
def mount_inside(case: Case) -> _Found:
    mounts = (case.container or {})["kernel_mounts"]["foreign"]
    if mounts:
        yield (
            f"File systems were mounted inside of the container, which CRIU cannot mount again: {', '.join(mounts)}.",
            "Unmount them, or mount them on the host and hand them in as a bind mount.",
        )


@rule(
    ERROR,
    "named pipes that are read and into which no program of the container writes",
    "criu/fifo.c, run",
    "processes",
    volatile=True,
)
def pipe_without_writer(case: Case) -> _Found:
    pipes = _processes(case)["pipes_without_writer"]
    if pipes:
        yield (
            (
                f"Named pipes are read into which no program of the container writes: {', '.join(pipes)}. After a restore they "
                "report the end of file at once and for ever, which a program that waits for them by poll or epoll answers with "
                "a busy loop."
            ),
            (
                "Have the program open the pipe for reading and writing (O_RDWR), or keep it open for writing by another program "
                "of the container."
            ),
        )


_DATABASES_NAMED = 4


@rule(ERROR, "open databases of SQLite", "sqlite's os_unix.c, run", "processes", volatile=True)
def sqlite_open(case: Case) -> _Found:
    volumes = (case.container or {}).get("volumes") or []
    copied = [volume["destination"] for volume in volumes if volume["travels"]]
    # What both hosts see keeps its inode number, where it is not copied all the same.
    found = [
        f"{one['path']} ({one['program']})"
        for one in _processes(case)["databases"]
        if not one["shared"] or any(f"{one['path']}/".startswith(f"{place.rstrip('/')}/") for place in copied)
    ]
    if found:
        more = f" and {len(found) - _DATABASES_NAMED} more" if len(found) > _DATABASES_NAMED else ""
        yield (
            (
                f"SQLite databases are open: {', '.join(found[:_DATABASES_NAMED])}{more}. SQLite remembers their inode numbers, "
                "which are others on the destination: the program could not write there any more (SQLITE_READONLY_DBMOVED), and "
                "with a write-ahead log it may lose what it has acknowledged."
            ),
            (
                "Have the program close its connections for the move, or end it. One that opens the database for each use moves "
                "as it is. Where nothing is written meanwhile, ignore this rule (migrate_ignore_rules) and restart the container "
                "on the destination right after the move."
            ),
        )


def _time(seconds: float) -> str:
    """A time in words; sleep(3) of the largest number is for ever."""
    return f"{seconds:.0f} s" if seconds < 10 * 365 * 86400 else "ever"


def _sleepers(case: Case) -> list[Facts]:
    found: list[Facts] = _processes(case)["sleeping"]
    return found


def _named(sleepers: t.Iterable[Facts]) -> str:
    return ", ".join(f"{one['program']} (for {_time(one['seconds'])})" for one in sleepers)


def _goes_on(case: Case) -> bool:
    """Whether a sleep is made again when it was interrupted, see ``_criu/core_image.py``."""
    return case.settings.engine == "runtime" and (case.source or {})["kernel"]["machine"] == "x86_64"


@rule(
    WARNING,
    "sleeps that the move would end: with the engine `api`, or not on x86_64",
    "compel/arch/x86/src/lib/infect.c, run",
    "source",
    "processes",
)
def sleep_ends(case: Case) -> _Found:
    sleeping = _sleepers(case)
    if sleeping and not _goes_on(case):
        yield (
            (
                f"These programs sleep in a system call of which CRIU cannot restore the rest: {_named(sleeping)}. The move "
                "interrupts their sleep (EINTR), which busybox, perl and PHP take for its end."
            ),
            "Make sure that they may go on early, or move the container when they do not sleep.",
        )


@rule(INFO, "sleeps that begin anew, because nobody knows what is left of them", "run", "source", "processes")
def sleep_begins_again(case: Case) -> _Found:
    anew = [one for one in _sleepers(case) if not one["rest_known"]]
    if anew and _goes_on(case):
        yield (
            f"It is not known how long these programs would sleep still: {_named(anew)}. After the move their sleep begins anew.",
            "Nothing, where they may wake later than they meant to.",
        )


@rule(
    ERROR, "semaphores that the kernel gives back when their holder ends (SEM_UNDO)", "run", "processes", volatile=True
)
def semaphore_undo(case: Case) -> _Found:
    programs = _holders(case, "semaphore_undo")
    if programs:
        yield (
            (
                "System V semaphores are in use in the container, and the kernel may have to give those of these programs back "
                f"when they end (SEM_UNDO; whether it has to, it does not show of a program that had threads): {programs}. "
                "CRIU does not restore that: when one that holds a lock ends after the move, the lock is never free again."
            ),
            (
                "End these programs before the move, or have them use other locks (flock, a pthread mutex). Where none of them "
                "holds a semaphore in the moment of the move, name this rule in migrate_ignore_rules."
            ),
        )


@rule(WARNING, "programs that lock all memory that they get (mlockall)", "run", "processes")
def memory_locked(case: Case) -> _Found:
    programs = _holders(case, "locked_memory")
    if programs:
        yield (
            (
                f"All memory of these programs is locked: {programs}. What they get after the move will not be, because CRIU "
                "does not restore mlockall(MCL_FUTURE): it can be swapped out, with the secrets in it."
            ),
            (
                "Nothing, where the destination has no swap space or an encrypted one, or where they lock only what they have at "
                "their start (MCL_CURRENT). Else keep the container from swap (docker run --memory N --memory-swap N), or start "
                "them anew."
            ),
        )


@rule(WARNING, "programs that let the kernel merge equal pages (PR_SET_MEMORY_MERGE)", "run", "processes")
def memory_merged(case: Case) -> _Found:
    programs = _holders(case, "merged_memory")
    if programs:
        yield (
            (
                f"The kernel merges equal pages of these programs (KSM): {programs}. After the move it does not, because CRIU "
                "does not restore that, and they take more memory."
            ),
            "See that the destination has the memory, or start them anew after the move.",
        )
