# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the processes of a container hold that decides whether CRIU can dump them, as /proc shows it.

Parsers (``parse_*``, ``kind_of``) are pure; :func:`look` reads /proc and stops nothing. No argument and no environment is
read, and of memory only how long a task wants to sleep. A process that ends meanwhile is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import typing as t

from . import locked_memory, named_pipes, open_databases, process_sockets, semaphores, sleeping_tasks, speculation
from .deleted_files import saved_bytes

Facts = dict[str, t.Any]

# What lies on no file system, as /proc/PID/fd names it. What CRIU dumps (eventfd, eventpoll, signalfd, timerfd, pidfd,
# memfd) are left out.
_ANONYMOUS = {
    "io_uring": "io_uring",
    "perf_event": "perf",
    "bpf-map": "bpf",
    "bpf-prog": "bpf",
    "bpf_link": "bpf",
    "bpf-link": "bpf",
    "userfaultfd": "userfaultfd",
    "kvm-vm": "kvm",
    "kvm-vcpu": "kvm",
    "dmabuf": "dmabuf",
    "sync_file": "dmabuf",
    "seccomp notify": "seccomp_notify",
    "landlock-ruleset": "landlock",
    "fscontext": "mount_fd",
    "inotify": "inotify",
    "fanotify": "fanotify",
}
# Deleted names that are not files whose content would have to be saved as a file.
_NO_GHOSTS = ("/memfd:", "/SYSV", "/dev/zero", "/[aio]", "/anon_hugepage", "/secretmem")
# Of these, memory that processes share: what it holds is dumped once, whoever has mapped how much of it.
_SHARED = ("/memfd:", "/SYSV", "/dev/zero")
# Devices that CRIU itself knows, or that every container has.
_DEVICES = re.compile(r"/dev/(null|zero|full|random|urandom|tty|console|ptmx|pts/.*|net/tun|shm/.*)$")
# Of /proc/PID/net/protocols, those whose sockets CRIU cannot dump.
_PROTOCOLS = frozenset(
    {
        "MPTCP",
        "MPTCPv6",
        "SCTP",
        "SCTPv6",
        "AF_VSOCK",
        "ALG",
        "TIPC",
        "RDS",
        "XDP",
        "KCM",
        "SMC",
        "SMC6",
        "DCCP",
        "DCCPv6",
    }
)
_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts", "cgroup", "time")
# Where CRIU looks for a watched file of which it has no handle (criu/irmap.c), and how much of it we look at.
_IRMAP_HINTS = (
    *("/etc", "/var/spool", "/var/log", "/usr/share/dbus-1/system-services", "/var/lib/polkit-1/localauthority"),
    *("/usr/share/polkit-1/actions", "/lib/udev"),
)
_MOST_ENTRIES = 20000
# How much of it is named in a message.
_NAMED = 8


def kind_of(target: str) -> str | None:
    """What a descriptor without a file is, if it decides anything: out of ``anon_inode:[io_uring]`` and the like."""
    if target.startswith("/secretmem"):
        return "secretmem"
    found = re.fullmatch(r"anon_inode:\[?([^\]:]+?)(?::\d+)?\]?", target) or re.fullmatch(r"/?(dmabuf):.*", target)
    return _ANONYMOUS.get(found.group(1)) if found else None


def parse_watched(fdinfo: str) -> set[tuple[int, int]]:
    """The files that an inotify or fanotify descriptor watches: device as the kernel numbers it, and inode."""
    found = re.findall(r"^(?:inotify|fanotify) .*\bino:([0-9a-f]+) sdev:([0-9a-f]+)", fdinfo, re.MULTILINE)
    return {(int(device, 16), int(inode, 16)) for inode, device in found}


def kernel_device(number: int) -> int:
    """A device as stat(2) gives it, numbered as the kernel does in fdinfo."""
    return os.major(number) << 20 | os.minor(number)


def parse_flags(text: str) -> int:
    """The flags of open(2) in fdinfo."""
    found = re.search(r"^flags:\s*([0-7]+)$", text, re.MULTILINE)
    return int(found.group(1), 8) if found else 0


def parse_locks(fdinfo: str) -> list[str]:
    """The kinds of the locks that a descriptor holds: ``POSIX``, ``FLOCK``, ``OFDLCK``, ``LEASE``."""
    return re.findall(r"^lock:\s+\d+:\s+(\w+)", fdinfo, re.MULTILINE)


def parse_status(text: str) -> Facts:
    """Of /proc/PID/status: whether a debugger has it, its seccomp mode, its session in each nested process namespace."""
    values = dict(re.findall(r"^(\w+):[ \t]*(.*)$", text, re.MULTILINE))
    sessions = values.get("NSsid", "").split()
    return {
        "name": values.get("Name", "?"),
        "traced": values.get("TracerPid", "0") != "0",
        "seccomp": values.get("Seccomp", "0") == "2",
        "session": sessions,
    }


class Mapped(t.NamedTuple):
    """What of /proc/PID/maps decides."""

    #: kinds as of :func:`kind_of`, and ``aio``
    kinds: tuple[str, ...]
    #: devices by path
    devices: tuple[str, ...]
    #: deleted files: path, and the range by which /proc/PID/map_files has them
    deleted: tuple[tuple[str, str], ...]
    #: shared memory that is no file: ranges in the same form
    shared: tuple[str, ...] = ()


def parse_maps(text: str) -> Mapped:
    """Rings, devices and deleted files that are mapped."""
    kinds: set[str] = set()
    devices: set[str] = set()
    deleted: dict[str, str] = {}
    shared: list[str] = []
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6:
            continue
        path = fields[5]
        kind = "aio" if path.startswith("/[aio]") else kind_of(path.removesuffix(" (deleted)"))
        if kind:
            kinds.add(kind)
        elif path.startswith("/dev/") and not path.endswith(" (deleted)") and not _DEVICES.match(path):
            devices.add(path)
        elif path.endswith(" (deleted)") and path.startswith("/") and not path.startswith(_NO_GHOSTS):
            deleted.setdefault(path.removesuffix(" (deleted)"), _range(fields[0]))
        elif path.endswith(" (deleted)") and path.startswith(_SHARED) and fields[1].endswith("s"):
            shared.append(_range(fields[0]))
    return Mapped(tuple(sorted(kinds)), tuple(sorted(devices)), tuple(deleted.items()), tuple(shared))


def _range(text: str) -> str:
    """A range of addresses as map_files writes it: without leading zeros."""
    first, last = (f"{int(number, 16):x}" for number in text.split("-"))
    return f"{first}-{last}"


def parse_protocols(text: str) -> dict[str, int]:
    """Of /proc/PID/net/protocols: how many sockets there are of protocols that CRIU does not know."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[0] in _PROTOCOLS and fields[2].isdecimal() and int(fields[2]):
            found[fields[0]] = int(fields[2])
    return found


def _protocols(pids: t.Sequence[int], init: int, *, own_network: bool) -> dict[str, int]:
    """How many sockets of protocols that CRIU does not know there are: in a network that others use too, the container's own."""
    there = parse_protocols(read(f"/proc/{init}/net/protocols"))
    if there and not own_network:
        # Where they cannot be asked whose they are, they count: a dump that fails is worse than a question too many.
        with contextlib.suppress(OSError):
            return process_sockets.protocols(pids)
    return there


# Memory of a process' own, swapped or not: what a dump writes for each process, also where a fork has left it shared between two.
# Clean pages of files are not dumped.
_DUMPED = ("Anonymous", "Swap", "Private_Hugetlb", "Shared_Hugetlb")
# The same where a page that several processes have counts once, as in the host's memory.
_TAKEN = ("Pss_Anon", "Pss_Shmem", "SwapPss", "Private_Hugetlb", "Shared_Hugetlb")


class Memory(t.NamedTuple):
    """Bytes of one process' memory."""

    dumped: int
    """What a dump writes of it, shared memory left out."""
    taken: int
    """Its share of what the host gives."""


def parse_rollup(text: str) -> Memory:
    """Out of /proc/PID/smaps_rollup; nothing where the kernel does not tell."""
    kib = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return Memory(*(sum(kib.get(name, 0) for name in names) << 10 for names in (_DUMPED, _TAKEN)))


# -- looking ------------------------------------------------------------------------------------------------------


def read(path: str) -> str:
    """A small file, of /proc or elsewhere; empty where it is gone or may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def _namespace(pid: int, kind: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


class _Seen:
    """What is gathered over all processes."""

    def __init__(self, init: int) -> None:
        self.init = init
        self.users: dict[str, set[str]] = {}
        self.devices: set[str] = set()
        self.deleted: dict[tuple[int, int], Facts] = {}
        self.mount_namespaces: dict[str, int] = {}
        self.locks = 0
        self.seccomp = 0
        self.memory = Memory(0, 0)
        self.shared: dict[tuple[int, int], int] = {}
        self.sleeping: list[sleeping_tasks.Sleep] = []
        self.pipes = named_pipes.Pipes()
        self.databases = open_databases.Databases()
        root = os.stat(f"/proc/{init}/root/")
        self.levels = len(parse_status(read(f"/proc/{init}/status"))["session"])
        self.queues = _device(f"/proc/{init}/root/dev/mqueue")
        self.overlay = kernel_device(root.st_dev) if _root_is_overlay(init) else None
        self.namespaces = {kind: _namespace(init, kind) for kind in _NAMESPACES}

    def found_by_criu(self, wanted: set[int]) -> set[int]:
        """Those of the inodes that CRIU finds by looking where programs usually watch."""
        found: set[int] = set()
        left = _MOST_ENTRIES
        for hint in _IRMAP_HINTS if wanted else ():
            top = f"/proc/{self.init}/root{hint}"
            for directory, _subdirectories, files in os.walk(top):
                for name in (".", *files):
                    with contextlib.suppress(OSError):
                        found.add(os.lstat(os.path.join(directory, name)).st_ino)
                left -= 1 + len(files)
                if left < 0 or wanted <= found:
                    return found
        return found

    def add_user(self, kind: str, program: str) -> None:
        self.users.setdefault(kind, set()).add(program)

    def delete(self, path: str, place: str, program: str) -> None:
        with contextlib.suppress(OSError):
            found = os.stat(place)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                self.deleted[found.st_dev, found.st_ino] = {
                    "path": path,
                    "bytes": saved_bytes(found),
                    "program": program,
                }

    def share(self, place: str) -> None:
        with contextlib.suppress(OSError):
            found = os.stat(place)
            self.shared[found.st_dev, found.st_ino] = found.st_blocks * 512

    def process(self, pid: int, *, measured: bool = True) -> None:
        """Look at one process.

        :param measured: whether its memory is to be counted, which takes longer than all the rest of a large one.
        """
        text = read(f"/proc/{pid}/status")
        status = parse_status(text)
        program = status["name"]
        if locked_memory.has_some(text) and locked_memory.is_all(read(f"/proc/{pid}/smaps")):
            self.add_user("locked_memory", program)
        lines = {key: value.strip() for key, _colon, value in (line.partition(":") for line in text.splitlines())}
        if any(speculation.state(name, lines) == speculation.ASKED_FOR for name in speculation.LABELS):
            self.add_user("speculation", program)
        # Since Linux 6.16; before that nobody else can see it.
        if "ksm_merge_any: yes" in read(f"/proc/{pid}/ksm_stat"):
            self.add_user("merged_memory", program)
        if status["traced"]:
            self.add_user("traced", program)
        # One of a namespace further in is that namespace's business.
        if len(status["session"]) == self.levels > 1 and status["session"][-1] == "0":
            self.add_user("session_outside", program)
        self.seccomp += status["seccomp"]
        for kind, own in self.namespaces.items():
            other = _namespace(pid, kind)
            if other and own and other != own:
                if kind == "mnt":
                    # CRIU knows these; what is mounted there is looked at.
                    self.mount_namespaces.setdefault(other, pid)
                else:
                    self.add_user(f"namespace_{kind}", program)
        if read(f"/proc/{pid}/personality").strip("0\n"):
            self.add_user("personality", program)
        mapped = parse_maps(read(f"/proc/{pid}/maps"))
        for kind in mapped.kinds:
            self.add_user(kind, program)
        self.devices.update(f"{path} ({program})" for path in mapped.devices)
        for path, place in mapped.deleted:
            self.delete(path, f"/proc/{pid}/map_files/{place}", program)
        self.sleeping += sleeping_tasks.look(pid, program)
        for place in mapped.shared:
            self.share(f"/proc/{pid}/map_files/{place}")
        if measured:
            memory = parse_rollup(read(f"/proc/{pid}/smaps_rollup"))
            self.memory = Memory(self.memory.dumped + memory.dumped, self.memory.taken + memory.taken)
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    self.descriptor(pid, name, program)

    def undo(self, pid: int) -> None:
        """Note a process for which the kernel may have to undo semaphores."""
        self.add_user("semaphore_undo", parse_status(read(f"/proc/{pid}/status"))["name"])

    def descriptor(self, pid: int, name: str, program: str) -> None:
        place = f"/proc/{pid}/fd/{name}"
        target = os.readlink(place)
        kind = kind_of(target)
        if kind in ("inotify", "fanotify"):
            watched = {
                inode for device, inode in parse_watched(read(f"/proc/{pid}/fdinfo/{name}")) if device == self.overlay
            }
            if watched - self.found_by_criu(watched):
                self.add_user(f"{kind}_overlay", program)
        elif kind:
            self.add_user(kind, program)
        elif target.startswith("pipe:"):
            if parse_flags(read(f"/proc/{pid}/fdinfo/{name}")) & os.O_DIRECT:
                self.add_user("pipe_packets", program)
        elif target.startswith("/"):
            found = os.stat(place)
            mode = found.st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                if not _DEVICES.match(target):
                    self.devices.add(f"{target} ({program})")
            elif stat.S_ISFIFO(mode):
                reader = named_pipes.Reader(pid, int(name), program, target)
                self.pipes.see((found.st_dev, found.st_ino), reader, read(f"/proc/{pid}/fdinfo/{name}"))
            elif found.st_dev == self.queues:
                self.add_user("mqueue", program)
            elif stat.S_ISREG(mode):
                self.locks += len(parse_locks(read(f"/proc/{pid}/fdinfo/{name}")))
                self.databases.see(pid, int(name), found)
                if target.startswith("/memfd:"):
                    self.share(place)
                if target.endswith(" (deleted)") and not target.startswith(_NO_GHOSTS):
                    self.delete(target.removesuffix(" (deleted)"), place, program)


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _root_is_overlay(pid: int) -> bool:
    return any(
        fields[4] == "/" and " - overlay " in line
        for line in read(f"/proc/{pid}/mountinfo").splitlines()
        for fields in [line.split()]
        if len(fields) > 4
    )


def look(pids: t.Sequence[int], init: int, seconds: float = 1.0, *, own_network: bool = True) -> Facts:
    """What the processes of a container hold.

    :param pids: all of them, as this host numbers them.
    :param init: its first one.
    :param seconds: after which the memory of the rest is not counted, and ``complete`` is false. What they hold is looked at all
        the same: what stands in the way of a move must not be passed over because a container is large.
    :param own_network: whether nobody else is in its network namespace.
    """
    deadline = time.monotonic() + seconds
    seen = _Seen(init)
    complete = True
    for pid in pids:
        complete = complete and time.monotonic() <= deadline
        seen.process(pid, measured=complete)
    for pid in semaphores.with_undo_list(pids, init):
        seen.undo(pid)
    deleted = sorted(seen.deleted.values(), key=lambda one: -int(one["bytes"]))
    sleeping = sorted(set(seen.sleeping), key=lambda one: -one.seconds)
    return {
        "count": len(pids),
        "complete": complete,
        "held": {kind: sorted(programs)[:_NAMED] for kind, programs in sorted(seen.users.items())},
        "devices": sorted(seen.devices)[:_NAMED],
        "deleted": deleted[:_NAMED],
        "locks": seen.locks,
        "sleeping": [one._asdict() for one in sleeping[:_NAMED]],
        "databases": [one._asdict() for one in seen.databases.found()],
        "pipes_without_writer": seen.pipes.without_writer()[:_NAMED],
        "seccomp": seen.seccomp,
        "own_user_namespace": seen.namespaces["user"] != _namespace(1, "user"),
        "protocols": _protocols(pids, init, own_network=own_network),
        # What is in deleted files goes into the images too.
        "dump_bytes": seen.memory.dumped + sum(seen.shared.values()) + sum(int(one["bytes"]) for one in deleted),
        "taken_bytes": seen.memory.taken,
        # A process of each, for who wants to look.
        "mount_namespaces": sorted(seen.mount_namespaces.values()),
    }
