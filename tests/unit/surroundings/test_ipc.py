# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners and modes of System V objects go from one real IPC namespace to another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

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
