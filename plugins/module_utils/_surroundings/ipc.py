# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The System V objects of a container's IPC namespace: shared memory, semaphores and message queues, and who may use them.

CRIU makes them anew with their keys, owners and modes. Their creator is root from then on, because nobody can set that. The
kernel gives a creator the rights of an owner, so this matters only where the two were not the same.

CRIU does not know the rest of what programs see of them (run with 4.2.1), so that is set on the held copy: the most that a
message queue may hold, whether shared memory is locked and whether it goes with its last user, and that semaphores were used.
Programs wait for the latter before they use semaphores that another one makes (semget(2), NOTES).

Not carried: when and by which process each was used last, and what the kernel undoes when a process ends (SEM_UNDO). The
preflight has a rule for that, see ``_host/semaphores.py``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import typing as t
import zlib

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
# What of them is the same after a move, by the columns of the file. Another one is a different object.
_SAME = {"shm": ("size",), "sem": ("nsems",), "msg": ("qnum", "cbytes")}
# What can be set on a copy, and what is said where it is another there.
_SETTABLE = {
    "shm": {"goes": "does not go with its last user (SHM_DEST)", "locked": "is not locked in memory (SHM_LOCKED)"},
    "sem": {"used": "looks as if nobody had used it (sem_otime is 0)", "values": "has other values"},
    "msg": {"most": "has another limit of bytes (msg_qbytes)"},
}
# By sys/ipc.h, sys/sem.h, sys/shm.h and linux/sem.h.
_IPC_RMID, _IPC_SET, _IPC_STAT, _SHM_LOCK, _GETALL = 0, 1, 2, 11, 13
_IPC_NOWAIT, _SHM_DEST, _SHM_LOCKED = 0o4000, 0o1000, 0o2000
# struct sembuf: which semaphore, what is added, flags.
_OPERATION = struct.Struct("=Hhh")
# struct ipc_perm begins with key, uid, gid, cuid, cgid and mode. No structure of the three kinds is larger than the buffer.
_PERMISSIONS = struct.Struct("=iIIIII")
_BUFFER = 512
# msg_qbytes in struct msqid_ds of the 64-bit architectures: behind the permissions, three times and two numbers.
_QUEUE_LIMIT, _QUEUE_LIMIT_AT = struct.Struct("=Q"), 88

# Loaded once: it costs more than the calls.
_LIBC = ctypes.CDLL(None, use_errno=True)

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
                one = {name: int(row[name]) for name in wanted}
                # Beside the mode it has flags of the kernel.
                one["mode"] = int(row["perms"], 8) & 0o777
                # One that is removed at this moment is gone.
                with contextlib.suppress(OSError):
                    found[kind][row[column]] = {**one, **_more(kind, row[column], row)}
    return found


def _more(kind: str, number: str, row: t.Mapping[str, str]) -> dict[str, int]:
    """What :data:`_SETTABLE` names, and of shared memory how often it is attached.

    :param row: of the file below /proc/sysvipc.
    :raises OSError: where the object is gone.
    """
    if kind == "shm":
        flags = int(row["perms"], 8)
        return {"goes": flags & _SHM_DEST, "locked": flags & _SHM_LOCKED, "nattch": int(row["nattch"])}
    if kind == "sem":
        values = ctypes.create_string_buffer(2 * int(row["nsems"]))
        _control(kind, int(number), _GETALL, values)
        # There may be thousands. That they are the same is enough.
        return {"used": int(row["otime"] != "0"), "values": zlib.crc32(values.raw)}
    buffer = ctypes.create_string_buffer(_BUFFER)
    _control(kind, int(number), _IPC_STAT, buffer)
    return {"most": _QUEUE_LIMIT.unpack_from(buffer, _QUEUE_LIMIT_AT)[0]}


def carry(side: Side, source: t.Any) -> None:
    """Give each its owner and mode, and what :data:`_SETTABLE` names, where it has another.

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
                if now is None:
                    continue
                # What fails shows in the comparison.
                with contextlib.suppress(OSError):
                    if _owner(now) != _owner(wanted) or now.get("most") != wanted.get("most"):
                        user, group, mode = _owner(wanted)
                        limit = wanted.get("most")
                        _set(kind, int(number), users.outside(user), groups.outside(group), mode, limit)
                with contextlib.suppress(OSError):
                    _put(kind, int(number), wanted, now)

    namespaces.inside(side.init, ["ipc"], work)


def _owner(one: t.Mapping[str, int]) -> tuple[int, int, int]:
    return one["uid"], one["gid"], one["mode"]


def _set(kind: str, number: int, user: int, group: int, mode: int, limit: int | None) -> None:
    """Set owner and mode, and of a message queue the bytes that it may hold."""
    buffer = ctypes.create_string_buffer(_BUFFER)
    _control(kind, number, _IPC_STAT, buffer)
    key, _user, _group, *creator, before = _PERMISSIONS.unpack_from(buffer)
    _PERMISSIONS.pack_into(buffer, 0, key, user, group, *creator, before & ~0o777 | mode)
    if kind == "msg" and limit is not None:
        _QUEUE_LIMIT.pack_into(buffer, _QUEUE_LIMIT_AT, limit)
    _control(kind, number, _IPC_SET, buffer)


def _put(kind: str, number: int, wanted: t.Mapping[str, int], now: t.Mapping[str, int]) -> None:
    """Set what of shared memory and semaphores is lacking."""
    if kind == "sem" and wanted["used"] and not now["used"]:
        _use(number)
    if kind == "shm" and wanted["locked"] and not now["locked"]:
        _control(kind, number, _SHM_LOCK, None)
    # One that nobody has attached would go at once, with what it holds.
    if kind == "shm" and wanted["goes"] and not now["goes"] and now["nattch"]:
        _control(kind, number, _IPC_RMID, None)


def _use(number: int) -> None:
    """Have the kernel note that semaphores were used, and leave them as they are.

    One call that adds 1 to the first and takes 1 away again: the kernel does both or none, and wakes nobody. One that has its
    highest value goes down first. Neither has to wait, and neither is undone when we end.
    """
    up, down = _OPERATION.pack(0, 1, _IPC_NOWAIT), _OPERATION.pack(0, -1, _IPC_NOWAIT)
    if any(_LIBC.semop(number, both, 2) == 0 for both in (up + down, down + up)):
        return
    error = ctypes.get_errno()
    raise OSError(error, os.strerror(error))


def _control(kind: str, number: int, command: int, buffer: t.Any) -> None:
    arguments = (number, 0, command, buffer) if kind == "sem" else (number, command, buffer)
    if getattr(_LIBC, f"{kind}ctl")(*arguments) < 0:
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
            elif any(one[name] != other[name] for name in _SETTABLE[kind]):
                wrong = [text for name, text in _SETTABLE[kind].items() if one[name] != other[name]]
                found.append(f"{label} {' and '.join(wrong)}")
            elif not _entitled(one) <= _entitled(other):
                found.append(
                    f"{label} was made by user {one['cuid']} and group {one['cgid']}, who lose their rights to it"
                )
    return found


def _entitled(one: t.Mapping[str, int]) -> set[tuple[str, int]]:
    """Who has the rights of an owner or of its group: the creator has the same."""
    return {("user", one["uid"]), ("user", one["cuid"]), ("group", one["gid"]), ("group", one["cgid"])}
