# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The descriptors of a container's processes: what they are, how they are open, and whose the thing behind them is.

A pipe, a terminal, a socket and a file without a name have an owner and a mode that no file system keeps. Opening
``/dev/stdout`` asks for them. CRIU up to 4.2.1 makes pipes anew as root's with mode 0600, and runc gives the standard streams
to the container's user only when it creates a container. So they are noted here, and set while the copy is held.

Files that have a name have their owner from the copy of the container's files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import typing as t

from .._host.borrowed_descriptor import borrowed
from .._host.tasks import read
from .ids import Ids
from .side import Side

NAME = "descriptors"
OF_PROCESSES = True

# What fcntl(2) can change of a description that is open; the others are given by open(2) alone.
_CHANGEABLE = os.O_APPEND | os.O_ASYNC | os.O_DIRECT | os.O_NOATIME | os.O_NONBLOCK
# What a program notices of a description. How its file was looked up (O_DIRECTORY and so on) has no effect on it any more.
_NOTICED = _CHANGEABLE | os.O_ACCMODE | os.O_CLOEXEC | os.O_DSYNC | os.O_SYNC | os.O_PATH
_TERMINAL = "terminal"
# Major numbers of the terminals that devpts makes.
_TERMINALS = range(136, 144)

# Of the lines of fdinfo (see proc(5)), by their key: which words behind it are the descriptor's own. The others are times that
# go by, and numbers of this host.
_DETAILS: dict[str, tuple[int, ...]] = {
    "eventfd-count": (0,),
    "sigmask": (0,),
    "clockid": (0,),
    # tfd: 5 events: 19 data: 5 pos:0 ino:61 sdev:9
    "tfd": (0, 2, 4),
}


class Descriptor(t.NamedTuple):
    """One descriptor; a list in JSON."""

    kind: str
    """What is behind it, in words."""
    flags: int
    """Those of open(2)."""
    details: t.Sequence[str]
    """What the kernel tells more, of an eventfd and its like."""
    owner: t.Sequence[int] | None
    """User, group and mode of what is behind it, as the container counts them; None where a file system keeps them."""


Table = dict[str, Descriptor]
"""The descriptors of one process by number."""


def look_ahead(side: Side) -> t.Any:
    """Nothing: programs open and close all the time."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """Every descriptor of every process, by the number that the process has inside of the container."""
    look = _Look(side)
    return {number: look.table(pid) for number, pid in side.processes.items()}


class _Look:
    def __init__(self, side: Side) -> None:
        self.users, self.groups = Ids.of(side.init, "uid"), Ids.of(side.init, "gid")
        self._pipes, self._sockets = _device_of_pipes(), _device_of_sockets()

    def table(self, pid: int) -> Table:
        """All of a process."""
        found: Table = {}
        directory = f"/proc/{pid}/fd/"
        for name in os.listdir(directory):
            place = directory + name
            status = os.stat(place)
            flags, details = _information(f"/proc/{pid}/fdinfo/{name}")
            found[name] = Descriptor(_kind(status, place), flags, details, self.owner(status))
        return found

    def owner(self, status: os.stat_result) -> tuple[int, int, int] | None:
        """User, group and mode, of what no file system keeps."""
        if not self._is_nameless(status):
            return None
        return self.users.inside(status.st_uid), self.groups.inside(status.st_gid), stat.S_IMODE(status.st_mode)

    def lacks(self, pid: int, number: int, wanted: t.Sequence[int] | None) -> bool:
        """Whether a descriptor of a process seems to have another owner or mode, as far as it is to have one."""
        if wanted is None:
            return False
        now = self.owner(os.stat(f"/proc/{pid}/fd/{number}"))
        return now is not None and list(now) != list(wanted)

    def _is_nameless(self, status: os.stat_result) -> bool:
        mode = status.st_mode
        if stat.S_ISFIFO(mode):
            return status.st_dev == self._pipes or not status.st_nlink
        if stat.S_ISCHR(mode):
            return os.major(status.st_rdev) in _TERMINALS
        if stat.S_ISSOCK(mode):
            # Another one is the name of a socket, open with O_PATH.
            return status.st_dev == self._sockets
        return stat.S_ISREG(mode) and not status.st_nlink


def _device_of_pipes() -> int:
    ends = os.pipe()
    try:
        return os.fstat(ends[0]).st_dev
    finally:
        for end in ends:
            os.close(end)


def _device_of_sockets() -> int:
    with socket.socket(socket.AF_UNIX) as one:
        return os.fstat(one.fileno()).st_dev


# Before Linux 5.6 nothing can be borrowed; a filter of system calls may forbid it; and what is open with O_PATH cannot be set so.
_NOT_BORROWED = (errno.ENOSYS, errno.EPERM, errno.EBADF)

_KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
}


def _kind(status: os.stat_result, place: str) -> str:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        # anon_inode:[eventfd] and its like.
        return os.readlink(place)
    if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _TERMINALS:
        return _TERMINAL
    return kind


def _information(path: str) -> tuple[int, list[str]]:
    """Flags and details out of fdinfo."""
    flags, details = 0, []
    for line in read(path).splitlines():
        key, _colon, rest = line.partition(":")
        if key == "flags":
            flags = int(rest, 8)
        elif key in _DETAILS:
            fields = rest.split()
            details.append(" ".join([key, *(fields[number] for number in _DETAILS[key])]))
    return flags, sorted(details)


def carry(side: Side, source: t.Any) -> None:
    """Give everything without a name its owner and mode, and every description the flags that can be changed.

    :raises ValueError: for numbers that are none: they become paths.
    """
    for name in (name for table in source.values() for name in table):
        if not (name.isascii() and name.isdecimal()):
            raise ValueError(f"{name!r} is no descriptor")
    look = _Look(side)
    # What runs already may have changed them itself.
    frozen = side.group.frozen
    for number, table in source.items():
        pid = side.processes.get(number)
        if pid is None:
            continue
        for name, found in table.items():
            wanted = Descriptor(*found)
            # What is not there or cannot be changed shows in the comparison.
            with contextlib.suppress(OSError):
                owner = wanted.owner if look.lacks(pid, int(name), wanted.owner) else None
                flags = wanted.flags if frozen and wanted.flags & _CHANGEABLE else None
                if owner is not None or flags is not None:
                    try:
                        with borrowed(pid, int(name)) as ours:
                            _set(look, ours, owner, flags)
                    except OSError as exc:
                        if owner is None or not frozen or exc.errno not in _NOT_BORROWED:
                            raise
                        _give(look, f"/proc/{pid}/fd/{name}", owner)


def _give(look: _Look, place: int | str, wanted: t.Sequence[int]) -> None:
    """Set owner and mode of what has no name: a file of the container may have come in its place.

    :param place: a descriptor of our own; or a path below /proc, of a process that is frozen: it cannot lead elsewhere meanwhile.
    """
    now = look.owner(os.stat(place))
    if now is None:
        return
    user, group, mode = wanted
    if now[:2] != (user, group):
        os.chown(place, look.users.outside(user), look.groups.outside(group))
    os.chmod(place, mode)


def _set(look: _Look, ours: int, owner: t.Sequence[int] | None, flags: int | None) -> None:
    """Set owner, mode and flags of what another process has open, through a descriptor of our own for it.

    Its number may stand for something else at any moment where the process runs, and so may its path below /proc. So what is
    changed is what was looked at.
    """
    if owner is not None:
        _give(look, ours, owner)
    if flags is not None:
        is_now = fcntl.fcntl(ours, fcntl.F_GETFL)
        if (is_now ^ flags) & _CHANGEABLE:
            fcntl.fcntl(ours, fcntl.F_SETFL, (is_now & ~_CHANGEABLE) | (flags & _CHANGEABLE))


def compare(side: Side, source: t.Any) -> list[str]:
    """The descriptors that a held copy does not have as the source had them. One that runs opens and closes as it likes."""
    return differences(source, take(side, None)) if side.group.frozen else []


def differences(source: t.Mapping[str, t.Any], copy: t.Mapping[str, t.Any]) -> list[str]:
    """The descriptors that differ.

    :param source: what :func:`take` returned.
    :param copy: the same of the copy.
    """
    found = []
    for number, table in source.items():
        others = copy.get(number, {})
        for name in sorted({*table, *others}, key=int):
            label = f"descriptor {name} of process {number}"
            if name not in others:
                found.append(f"{label} ({table[name][0]}) is missing")
            elif name not in table:
                found.append(f"{label} ({others[name][0]}) is too much")
            else:
                found.extend(f"{label} {text}" for text in _of_one(Descriptor(*table[name]), Descriptor(*others[name])))
    return found


def _of_one(one: Descriptor, other: Descriptor) -> t.Iterator[str]:
    if one.kind != other.kind:
        yield f"is a {other.kind} and no {one.kind}"
        return
    # Of a terminal that was opened by ioctl(TIOCGPTPEER), as runc does, Linux tells O_CLOEXEC whether it is set or not.
    noticed = _NOTICED & ~os.O_CLOEXEC if one.kind == _TERMINAL else _NOTICED
    if (one.flags ^ other.flags) & noticed:
        yield f"({one.kind}) has the flags {other.flags:#o} and not {one.flags:#o}"
    if sorted(one.details) != sorted(other.details):
        yield f"({one.kind}) is in another state"
    if list(one.owner or ()) != list(other.owner or ()):
        yield f"({one.kind}) belongs to {_owner(other.owner)} and not to {_owner(one.owner)}"


def _owner(owner: t.Sequence[int] | None) -> str:
    if owner is None:
        return "a file"
    user, group, mode = owner
    return f"{user}:{group} with mode {mode:04o}"
