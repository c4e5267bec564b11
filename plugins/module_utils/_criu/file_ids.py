# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which file a number of CRIU's images stands for: the descriptors and maps of the processes that have it.

CRIU numbers the open files of a dump. A name does not tell two of them apart: a program may open the same name twice, and remove
it each time. The number does. ``fdinfo-N.img`` says which descriptors of a process have which number (N is in its
``ids-PID.img``), and ``mm-PID.img`` the same of what it has mapped. (CRIU, images/*.proto)
"""

from __future__ import annotations

import os
import struct
import typing as t

from . import core_image

# How CRIU's images of many entries begin (criu/include/magic.h): that of all, and their own.
_COMMON = 0x54564319
_PROCESSES, _IDS, _DESCRIPTORS, _MEMORY = 0x50273030, 0x54432030, 0x56213732, 0x57492820
_SIZE = struct.Struct("<I")
# Fields of pstree_entry, task_kobj_ids_entry, fdinfo_entry, mm_entry and vma_entry.
_PID = 1
_TABLE = 2
_ID, _DESCRIPTOR = 1, 4
_PROGRAM, _MAPS = 12, 14
_START, _END, _MAPPED = 1, 2, 4

Fields = list[tuple[int, int, t.Union[int, bytes]]]


class Place(t.NamedTuple):
    """Where a process has a file."""

    pid: int
    """The number of the process inside of the container."""
    link: str
    """The link to it below ``/proc/PID``: ``fd/3``, ``map_files/START-END`` or ``exe``."""


def entries(directory: str, name: str, magic: int) -> list[Fields]:
    """The entries of an image, each as ``core_image.parse`` has it; none where there is no such image.

    :param directory: with the images of a dump.
    :param name: of the image.
    :param magic: the number by which CRIU knows its kind.
    :raises ValueError: for what is no such image.
    """
    try:
        with open(os.path.join(directory, name), "rb") as handle:
            data = handle.read()
    except FileNotFoundError:
        return []
    if data[:8] != struct.pack("<II", _COMMON, magic):
        raise ValueError(f"{name} is no such image")
    found = []
    place = 8
    while place < len(data):
        end = place + _SIZE.size + int.from_bytes(data[place : place + _SIZE.size], "little")
        if end > len(data):
            raise ValueError(f"{name} is cut off")
        found.append(core_image.parse(data[place + _SIZE.size : end]))
        place = end
    return found


def numbers(fields: Fields) -> dict[int, int]:
    """Those fields of an entry that are numbers, by the numbers of the fields; of a repeated one the last counts."""
    return {number: value for number, _kind, value in fields if isinstance(value, int)}


def places(directory: str, wanted: t.Collection[int]) -> dict[int, list[Place]]:
    """Where processes have files, by the numbers of these.

    What is mapped is read only where no descriptor has a file: a process may have thousands of maps.

    :param directory: with the images of a dump.
    :param wanted: the numbers of the files.
    :raises ValueError: where the images are not as expected.
    """
    found: dict[int, list[Place]] = {number: [] for number in wanted}
    pids = [numbers(entry)[_PID] for entry in entries(directory, "pstree.img", _PROCESSES) if _PID in numbers(entry)]
    for pid in pids:
        for number, descriptor in _descriptors(directory, pid):
            if number in found:
                found[number].append(Place(pid, f"fd/{descriptor}"))
    missing = {number for number, where in found.items() if not where}
    for pid in pids if missing else ():
        for number, link in _maps(directory, pid):
            if number in missing:
                found[number].append(Place(pid, link))
    return found


def _descriptors(directory: str, pid: int) -> t.Iterator[tuple[int, int]]:
    """The number of each file that a process has open, and the descriptor."""
    for ids in entries(directory, f"ids-{pid}.img", _IDS):
        for entry in entries(directory, f"fdinfo-{numbers(ids).get(_TABLE)}.img", _DESCRIPTORS):
            fields = numbers(entry)
            if _ID in fields and _DESCRIPTOR in fields:
                yield fields[_ID], fields[_DESCRIPTOR]


def _maps(directory: str, pid: int) -> t.Iterator[tuple[int, str]]:
    """The number of each file that a process has mapped, and the link to it. That of its program is among them."""
    for entry in entries(directory, f"mm-{pid}.img", _MEMORY):
        for field, _kind, value in entry:
            if field == _PROGRAM and isinstance(value, int):
                yield value, "exe"
            elif field == _MAPS and isinstance(value, bytes):
                one = numbers(core_image.parse(value))
                if one.keys() >= {_START, _END, _MAPPED}:
                    yield one[_MAPPED], f"map_files/{one[_START]:x}-{one[_END]:x}"
