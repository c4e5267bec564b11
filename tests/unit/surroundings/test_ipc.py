# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners and modes of System V objects go from one real IPC namespace to another."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import namespaces
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import ipc
from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.inhabitants import inhabited

OWN = ["unshare", "--ipc"]
# A shared memory, semaphores and a queue; of the user 1001 where it is asked for.
_MAKE = """
import ctypes, os
libc = ctypes.CDLL(None)
{before}
libc.shmget(0x1111, 4096, 0o1000 | {mode}), libc.semget(0x2222, 3, 0o1000 | {mode}), libc.msgget(0x3333, 0o1000 | {mode})
"""
ORIGINAL = _MAKE.format(before="os.setresgid(1002, 1002, 1002), os.setresuid(1001, 1001, 1001)", mode="0o624")
# As an older CRIU would make them, and as CRIU makes a second one that somebody gave away.
COPY = _MAKE.format(before="", mode="0o600")


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


def _sent(data: Any) -> Any:
    return json.loads(json.dumps(data))


def test_owners_and_modes_are_carried(group: Group) -> None:
    """Of each kind."""
    with inhabited(group, "original", ORIGINAL, *OWN) as original, inhabited(group, "copy", COPY, *OWN) as copy:
        source = _sent(ipc.take(original, None))
        assert ipc.compare(copy, source) == [
            "shared memory 0 (key 0x1111) has another owner or mode",
            "semaphores 0 (key 0x2222) has another owner or mode",
            "message queue 0 (key 0x3333) has another owner or mode",
        ]
        ipc.carry(copy, source)
        assert ipc.compare(copy, source) == []
        found = ipc.take(copy, None)
        for kind, number in (("shm", "0"), ("sem", "0"), ("msg", "0")):
            one = found[kind][number]
            assert (one["uid"], one["gid"], one["mode"], one["cuid"]) == (1001, 1002, 0o624, 0)


def test_a_creator_who_gave_it_away_loses_it(group: Group) -> None:
    """Nobody can make another one the creator, so that is told."""
    # IPC_SET with another owner, by the creator.
    away = ORIGINAL + (
        "import struct\nbuffer = ctypes.create_string_buffer(512)\nlibc.shmctl(0, 2, buffer)\n"
        "struct.pack_into('=I', buffer, 4, 7)\nassert libc.shmctl(0, 1, buffer) == 0\n"
    )
    with inhabited(group, "original", away, *OWN) as original, inhabited(group, "copy", COPY, *OWN) as copy:
        source = _sent(ipc.take(original, None))
        ipc.carry(copy, source)
        assert ipc.compare(copy, source) == [
            "shared memory 0 (key 0x1111) was made by user 1001 and group 1002, who lose their rights to it"
        ]


def test_what_is_missing_or_another_one(group: Group) -> None:
    """By key and size; an object that programs of the copy cannot find is none."""
    other = COPY.replace("0x1111, 4096", "0x1111, 8192").replace("0x2222", "0x4444") + "libc.msgctl(0, 0, None)\n"
    with inhabited(group, "original", COPY, *OWN) as original, inhabited(group, "copy", other, *OWN) as copy:
        source = _sent(ipc.take(original, None))
        ipc.carry(copy, source)
        assert ipc.compare(copy, source) == [
            "shared memory 0 (key 0x1111) is another one",
            "semaphores 0 (key 0x2222) is another one",
            "message queue 0 (key 0x3333) is missing",
        ]


def test_the_hosts_namespace_is_left_alone(group: Group) -> None:
    """A container with --ipc host shares it."""
    with inhabited(group, "original", "") as original:
        assert ipc.take(original, None) is None


def test_no_other_function_is_called(group: Group) -> None:
    """The name of a kind comes from another host, and is a part of a function's."""
    with inhabited(group, "copy", COPY, *OWN) as copy, pytest.raises(ValueError, match="no objects of the kinds"):
        ipc.carry(copy, {"epoll_": {"0": {}}})


# Semaphores that were used, a queue with a limit of its own, and two shared memories: one goes with its last user, one is locked.
_OBJECTS = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
def operate(*numbers):
    for number, change in numbers:
        assert libc.semop(0, struct.pack("=Hhh", number, change, 0), 1) == 0
libc.semget(0x2222, 3, 0o1600), libc.msgget(0x3333, 0o1600)
libc.shmget(0x4444, 4096, 0o1600), libc.shmget(0x5555, 4096, 0o1600)
libc.shmat.restype = ctypes.c_void_p
libc.shmat(0, None, 0)
buffer = ctypes.create_string_buffer(512)
"""
USED = _OBJECTS + (
    "operate((0, {first}), (2, 7))\n"
    "libc.msgctl(0, 2, buffer)\nstruct.pack_into('=Q', buffer, 88, 5000)\nassert libc.msgctl(0, 1, buffer) == 0\n"
    "assert libc.shmctl(0, 0, None) == 0\nassert libc.shmctl(1, 11, None) == 0\n"
)
# What CRIU makes of it: the values by one call for all of them, and nothing of the rest.
RESTORED = _OBJECTS + "assert libc.semctl(0, 0, 17, struct.pack('=3H', {first}, 0, 7)) == 0\n"


def _semaphores(side: Any) -> list[int]:
    def values() -> list[int]:
        return [ctypes.CDLL(None).semctl(0, number, 12) for number in range(3)]

    return namespaces.inside(side.init, ["ipc"], values)


@pytest.mark.parametrize("first", [1, 0, 32767])
def test_what_criu_does_not_know_is_carried(group: Group, first: int) -> None:
    """The highest value that a semaphore can have is 32767: it cannot be made larger for a moment."""
    original_program, copy_program = USED.replace("{first}", str(first)), RESTORED.replace("{first}", str(first))
    if first == 0:
        # A call that waits for 0 counts as a use.
        original_program = original_program.replace("(2, 7)", "(0, 0), (2, 7)")
    # The key goes with the removal; CRIU makes one without a key then.
    copy_program = copy_program.replace("0x4444", "0")
    with inhabited(group, "original", original_program, *OWN) as original:
        source = _sent(ipc.take(original, None))
        with inhabited(group, "copy", copy_program, *OWN) as copy:
            assert ipc.compare(copy, source) == [
                "shared memory 0 (key 0x0) does not go with its last user (SHM_DEST)",
                "shared memory 1 (key 0x5555) is not locked in memory (SHM_LOCKED)",
                "semaphores 0 (key 0x2222) looks as if nobody had used it (sem_otime is 0)",
                "message queue 0 (key 0x3333) has another limit of bytes (msg_qbytes)",
            ]
            ipc.carry(copy, source)
            assert ipc.compare(copy, source) == []
            assert _semaphores(copy) == [first, 0, 7]
            # It is still there for who has attached it.
            assert ipc.take(copy, None)["shm"]["0"]["nattch"] == 1


def test_other_values_are_another_lock(group: Group) -> None:
    """Whoever waits for a semaphore would go on too early, or for ever not."""
    used = _OBJECTS + "operate((0, {}))\n"
    with inhabited(group, "original", used.format(1), *OWN) as original:
        source = _sent(ipc.take(original, None))
        with inhabited(group, "copy", used.format(2), *OWN) as copy:
            ipc.carry(copy, source)
            assert ipc.compare(copy, source) == ["semaphores 0 (key 0x2222) has other values"]


def test_memory_that_nobody_has_attached_is_not_removed(group: Group) -> None:
    """It would go at once, with what it holds: rather a move is refused."""
    with inhabited(group, "original", USED.replace("{first}", "1"), *OWN) as original:
        source = _sent(ipc.take(original, None))
        unattached = RESTORED.replace("libc.shmat(0", "libc.shmat(1").replace("0x4444", "0").replace("{first}", "1")
        with inhabited(group, "copy", unattached, *OWN) as copy:
            ipc.carry(copy, source)
            assert ipc.compare(copy, source) == ["shared memory 0 (key 0x0) does not go with its last user (SHM_DEST)"]
