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
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._criu import core_image, file_ids
from .._host import namespaces
from .._host.fingerprints import inner_pid
from .._host.tasks import read
from .._session.session import Session

# Images of CRIU, and the numbers by which it knows their kind (criu/include/magic.h).
_REMAPS = ("remap-fpath.img", 0x59133954)
_FILES = ("files.img", 0x56303138)
# Of remap_file_path_entry, file_entry and reg_file_entry (images/*.proto).
_ORIGINAL, _REMAP, _TYPE = 1, 2, 3
_LINKED = 0
_ID, _REGULAR, _NAME = 2, 3, 6
# Of fcntl.h.
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000

_NOTE = "given_names.json"


class Given(t.NamedTuple):
    """A file and the name that it is to have, both as the container sees them."""

    removed: str
    """The name under which it is open. Several files may have had it, one after the other."""
    name: str
    number: int
    """CRIU's number of the open file, which stands for this one alone."""


def wanted(directory: str) -> list[Given]:
    """The names by which a restore will look for files.

    :param directory: with the images of a dump.
    :raises ValueError: where the images are not as expected.
    """
    remaps = [file_ids.numbers(entry) for entry in file_ids.entries(directory, *_REMAPS)]
    remaps = [one for one in remaps if one.get(_TYPE, _LINKED) == _LINKED]
    if not remaps:
        return []
    names: dict[t.Any, str] = {}
    for entry in file_ids.entries(directory, *_FILES):
        number = file_ids.numbers(entry).get(_ID)
        for field, _kind, regular in entry:
            if field == _REGULAR and isinstance(regular, bytes):
                found = [value for which, _type, value in core_image.parse(regular) if which == _NAME]
                names.update((number, os.fsdecode(name)) for name in found if isinstance(name, bytes))
    return [
        Given(names[one[_ORIGINAL]], names[one[_REMAP]], one[_ORIGINAL])
        for one in remaps
        if one.get(_ORIGINAL) in names and one.get(_REMAP) in names
    ]


def _open_files(images: str, pids: t.Iterable[int], asked: t.Sequence[Given]) -> dict[int, int]:
    """A descriptor of our own of each file that is to have a name, by CRIU's number of it.

    :raises MigrationError: ``dump_failed`` for a file that no process has: one of those that had the same name might be taken
        for it.
    """
    hosts: dict[str, int] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            hosts[inner_pid(read(f"/proc/{pid}/status"))] = pid
    places = file_ids.places(images, {one.number for one in asked})
    found: dict[int, int] = {}
    try:
        for one in asked:
            for place in places[one.number] if one.number not in found else ():
                with contextlib.suppress(OSError):
                    descriptor = _with_a_name(f"/proc/{hosts.get(str(place.pid))}/{place.link}")
                    if descriptor is not None:
                        found[one.number] = descriptor
                        break
            if one.number not in found:
                raise MigrationError(
                    "dump_failed",
                    f"A file is open under the name {one.removed}, which was removed, and nobody can tell which file that is: no "
                    "process has it open or mapped. It may be on its way through a socket.",
                )
    except BaseException:
        _close(found)
        raise
    return found


def _with_a_name(path: str) -> int | None:
    """A descriptor of what a link below /proc leads to; None for a file without any name, which is none of ours."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def _close(descriptors: t.Mapping[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def _link(descriptor: int, name: str) -> None:
    """Give a file a name, by its descriptor, so that no path can lead elsewhere.

    :raises FileExistsError: where another file has the name: left by an earlier dump, for one.
    """
    try:
        namespaces.call("linkat", descriptor, b"", _AT_FDCWD, os.fsencode(name), _AT_EMPTY_PATH)
    except FileExistsError:
        # A second attempt finds what the first one has given.
        if not os.path.samestat(os.lstat(name), os.fstat(descriptor)):
            raise


def give(session: Session, images: str, init: int, pids: t.Sequence[int]) -> None:
    """Give the files of a container that has been dumped, and stands still, the names that a restore wants.

    :param images: the directory of its images.
    :param init: its first process, as this host numbers it.
    :param pids: all its processes.
    :raises MigrationError: ``dump_failed`` where a name cannot be given, or where it is not certain which file is to have it.
    """
    try:
        asked = wanted(images)
    except ValueError:
        # Images of another CRIU: whether it misses a name it will say.
        return
    if not asked:
        return
    try:
        descriptors = _open_files(images, pids, asked)
    except ValueError as exc:
        raise MigrationError(
            "dump_failed", f"A file is open under a name that was removed, and CRIU's images do not tell which: {exc}."
        ) from exc
    # Noted first: whoever comes after a crash takes them away.
    noted = [[one.name, *(durable.identity(descriptors[one.number]) or ())] for one in asked]
    durable.write_json(session.memory_path(_NOTE), noted)

    def link() -> None:
        for one in asked:
            _link(descriptors[one.number], one.name)

    try:
        namespaces.inside(init, ("mnt",), link)
    except OSError as exc:
        raise MigrationError(
            "dump_failed", f"A file is open under a name that was removed, and cannot be given another one: {exc}."
        ) from exc
    finally:
        _close(descriptors)


def take_back(session: Session) -> None:
    """Take the names away again, where some were given; may be repeated. What cannot be removed stays."""
    noted = durable.read_json(session.memory_path(_NOTE))
    if not noted:
        return

    def unlink() -> None:
        for name, *identity in noted:
            with contextlib.suppress(OSError):
                status = os.lstat(name)
                if [status.st_dev, status.st_ino] == identity:
                    os.unlink(name)

    with contextlib.suppress(OSError):
        namespaces.inside(session.data("arming")["pid"], ("mnt",), unlink)
    os.unlink(session.memory_path(_NOTE))
