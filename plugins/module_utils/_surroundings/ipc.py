# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The System V objects of a container's IPC namespace: shared memory, semaphores and message queues, and who may use them.

CRIU makes them anew with their keys, owners and modes. Their creator is root from then on, because nobody can set that. The
kernel gives a creator the rights of an owner, so this matters only where the two were not the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import typing as t

from .._host import namespaces
from .ids import Ids
from .side import Side

NAME = "ipc"
OF_PROCESSES = False

# The file below /proc/sysvipc and how its column of ids is called; and what it holds, for a person.
_KINDS = {
    "shm": ("shmid", "shared memory"),
    "sem": ("semid", "semaphores"),
    "msg": ("msqid", "message queue"),
}
# What of them is the same after a move. `perms` has flags of the kernel beside the mode.
_SAME = {"shm": ("size",), "sem": ("nsems",), "msg": ("qnum", "cbytes")}
_IPC_SET, _IPC_STAT = 1, 2
# struct ipc_perm begins with key, uid, gid, cuid, cgid and mode. No structure of the three kinds is larger than the buffer.
_PERMISSIONS = struct.Struct("=iIIIII")
_BUFFER = 512

Objects = dict[str, dict[str, dict[str, int]]]
"""By kind and id what /proc/sysvipc tells of an object."""


def look_ahead(side: Side) -> t.Any:
    """Nothing: programs make them at any time."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """All objects; nothing where the namespace is the host's, whose objects stay there."""
    if not side.owns("ipc"):
        return None
    users, groups = Ids.of(side.init, "uid"), Ids.of(side.init, "gid")
    found = namespaces.inside(side.init, ["ipc"], _objects)
    for one in (one for objects in found.values() for one in objects.values()):
        one.update({name: users.inside(one[name]) for name in ("uid", "cuid")})
        one.update({name: groups.inside(one[name]) for name in ("gid", "cgid")})
    return found


def _objects() -> Objects:
    found: Objects = {}
    for kind, (column, _noun) in _KINDS.items():
        found[kind] = {}
        # A kernel without CONFIG_SYSVIPC has none.
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sysvipc/{kind}", encoding="ascii") as handle:
            names = handle.readline().split()
            wanted = ("key", "uid", "gid", "cuid", "cgid", *_SAME[kind])
            for line in handle:
                row = dict(zip(names, line.split()))
                found[kind][row[column]] = {name: int(row[name]) for name in wanted}
                found[kind][row[column]]["mode"] = int(row["perms"], 8) & 0o777
    return found


def carry(side: Side, source: t.Any) -> None:
    """Give each its owner and mode, where it has another one.

    :raises ValueError: for a kind of objects that there is not: a function is called by it.
    """
    if not source.keys() <= _KINDS.keys():
        raise ValueError(f"there are no objects of the kinds {sorted(source)}")
    if not any(source.values()):
        return
    copy: Objects = take(side, None) or {}
    users, groups = Ids.of(side.init, "uid"), Ids.of(side.init, "gid")

    def work() -> None:
        for kind, objects in source.items():
            for number, wanted in objects.items():
                now = copy.get(kind, {}).get(number)
                if now is not None and _owner(now) != _owner(wanted):
                    user, group, mode = _owner(wanted)
                    # What fails shows in the comparison.
                    with contextlib.suppress(OSError):
                        _set(kind, int(number), users.outside(user), groups.outside(group), mode)

    namespaces.inside(side.init, ["ipc"], work)


def _owner(one: t.Mapping[str, int]) -> tuple[int, int, int]:
    return one["uid"], one["gid"], one["mode"]


def _set(kind: str, number: int, user: int, group: int, mode: int) -> None:
    buffer = ctypes.create_string_buffer(_BUFFER)
    _control(kind, number, _IPC_STAT, buffer)
    key, _user, _group, *creator, before = _PERMISSIONS.unpack_from(buffer)
    _PERMISSIONS.pack_into(buffer, 0, key, user, group, *creator, before & ~0o777 | mode)
    _control(kind, number, _IPC_SET, buffer)


def _control(kind: str, number: int, command: int, buffer: t.Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (number, 0, command, buffer) if kind == "sem" else (number, command, buffer)
    if getattr(libc, f"{kind}ctl")(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def compare(side: Side, source: t.Any) -> list[str]:
    """The objects that a held copy does not have as the source had them."""
    if not any(source.values()) or not side.group.frozen:
        return []
    return differences(source, take(side, None) or {})


def differences(source: t.Mapping[str, t.Any], copy: t.Mapping[str, t.Any]) -> list[str]:
    """The objects that differ.

    :param source: what :func:`take` returned.
    :param copy: the same of the copy.
    """
    found = []
    for kind, objects in source.items():
        for number, one in objects.items():
            label = f"{_KINDS[kind][1]} {number} (key {one['key'] & 0xFFFFFFFF:#x})"
            other = copy.get(kind, {}).get(number)
            if other is None:
                found.append(f"{label} is missing")
            elif any(one[name] != other[name] for name in ("key", *_SAME[kind])):
                found.append(f"{label} is another one")
            elif _owner(one) != _owner(other):
                found.append(f"{label} has another owner or mode")
            elif not _entitled(one) <= _entitled(other):
                found.append(
                    f"{label} was made by user {one['cuid']} and group {one['cgid']}, who lose their rights to it"
                )
    return found


def _entitled(one: t.Mapping[str, int]) -> set[tuple[str, int]]:
    """Who has the rights of an owner or of its group: the creator has the same."""
    return {("user", one["uid"]), ("user", one["cuid"]), ("group", one["gid"]), ("group", one["cgid"])}
