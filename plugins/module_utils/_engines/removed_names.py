# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Files that are open under a name that was removed, while they have another name.

PostgreSQL up to 15 makes such files of its log of changes (link(2), then unlink(2)). CRIU gives each of them a new name in the
directory of the old one, ``link_remap.N``, notes that in its images, and opens it by that name when it restores. But it takes
the names away at the end of a dump after which the container may go on (criu/cr-dump.c, cr_dump_finish), and by then no pass
over the files has seen them. So they are given again here, by what the images say, until the last pass has brought them to the
destination.
"""

from __future__ import annotations

import contextlib
import os
import struct
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._criu import core_image
from .._host import deleted_files, namespaces
from .._session.session import Session

# How CRIU's images of many entries begin (criu/include/magic.h): that of all, and their own.
_COMMON = 0x54564319
_REMAPS = ("remap-fpath.img", 0x59133954)
_FILES = ("files.img", 0x56303138)
_SIZE = struct.Struct("<I")
# Of remap_file_path_entry, file_entry and reg_file_entry (images/*.proto).
_ORIGINAL, _REMAP, _TYPE = 1, 2, 3
_LINKED = 0
_ID, _REGULAR, _NAME = 2, 3, 6
_DELETED = " (deleted)"
# Of fcntl.h.
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000

_NOTE = "given_names.json"


class Given(t.NamedTuple):
    """A file and the name that it is to have, both as the container sees them."""

    removed: str
    name: str


def _entries(directory: str, name: str, magic: int) -> list[dict[int, int | bytes]]:
    """The entries of an image, each by the numbers of its fields; the last one counts where a field is repeated.

    :raises ValueError: for what is no such image.
    """
    try:
        with open(os.path.join(directory, name), "rb") as handle:
            data = handle.read()
    except FileNotFoundError:
        return []
    if data[:8] != struct.pack("<II", _COMMON, magic):
        raise ValueError(f"{name} is no such image")
    entries = []
    place = 8
    while place < len(data):
        end = place + _SIZE.size + int.from_bytes(data[place : place + _SIZE.size], "little")
        if end > len(data):
            raise ValueError(f"{name} is cut off")
        message = core_image.parse(data[place + _SIZE.size : end])
        entries.append({number: value for number, _kind, value in message})
        place = end
    return entries


def wanted(directory: str) -> list[Given]:
    """The names by which a restore will look for files.

    :param directory: with the images of a dump.
    :raises ValueError: where the images are not as expected.
    """
    remaps = [one for one in _entries(directory, *_REMAPS) if one.get(_TYPE, _LINKED) == _LINKED]
    if not remaps:
        return []
    names: dict[t.Any, str] = {}
    for entry in _entries(directory, *_FILES):
        regular = entry.get(_REGULAR)
        if isinstance(regular, bytes):
            fields = {number: value for number, _kind, value in core_image.parse(regular)}
            if isinstance(fields.get(_NAME), bytes):
                names[entry.get(_ID)] = os.fsdecode(t.cast("bytes", fields[_NAME]))
    return [
        Given(names[one[_ORIGINAL]], names[one[_REMAP]])
        for one in remaps
        if one.get(_ORIGINAL) in names and one.get(_REMAP) in names
    ]


def _open_files(pids: t.Iterable[int], removed: t.Container[str]) -> dict[str, int]:
    """A descriptor of each file that a process holds under a removed name.

    :param removed: these names.
    """
    found: dict[str, int] = {}
    for place in deleted_files.removed_files(pids):
        with contextlib.suppress(FileNotFoundError):
            name = os.readlink(place)[: -len(_DELETED)]
            if name in removed and name not in found and os.stat(place).st_nlink:
                found[name] = os.open(place, os.O_PATH | os.O_CLOEXEC)
    return found


def give(session: Session, images: str, init: int, pids: t.Sequence[int]) -> None:
    """Give the files of a container that has been dumped, and stands still, the names that a restore wants.

    :param images: the directory of its images.
    :param init: its first process, as this host numbers it.
    :param pids: all its processes.
    :raises MigrationError: ``dump_failed`` where a name cannot be given.
    """
    try:
        asked = wanted(images)
    except ValueError:
        # Images of another CRIU: whether it misses a name it will say.
        return
    if not asked:
        return
    # Noted first: whoever comes after a crash takes them away.
    durable.write_json(session.memory_path(_NOTE), [one.name for one in asked])
    descriptors = _open_files(pids, {one.removed for one in asked})

    def link() -> None:
        for one in asked:
            if one.removed in descriptors:
                # By the descriptor, so that no path can lead elsewhere.
                with contextlib.suppress(FileExistsError):
                    namespaces.call(
                        "linkat", descriptors[one.removed], b"", _AT_FDCWD, os.fsencode(one.name), _AT_EMPTY_PATH
                    )

    try:
        namespaces.inside(init, ("mnt",), link)
    except OSError as exc:
        raise MigrationError(
            "dump_failed", f"A file is open under a name that was removed, and cannot be given another one: {exc}."
        ) from exc
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def take_back(session: Session) -> None:
    """Take the names away again, where some were given; may be repeated. What cannot be removed stays."""
    names = durable.read_json(session.memory_path(_NOTE))
    if not names:
        return

    def unlink() -> None:
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(name)

    with contextlib.suppress(OSError):
        namespaces.inside(session.data("arming")["pid"], ("mnt",), unlink)
    os.unlink(session.memory_path(_NOTE))
