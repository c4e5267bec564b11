# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The directories above bind mounts: whose they are and who may enter them is the same on the destination, where they are made.

A bind mount brings its own directory's owner and mode along, because that travels. Those above it are made, and what only they
kept from other users would be open to all.
"""

from __future__ import annotations

import os
import typing as t

from ..._base import durable
from ..._host import directory_attributes
from . import made_places

_ACCESS_LIST = "system.posix_acl_access"
_GROUP_BITS = 0o070
# chown(2) takes the number above that for "leave it as it is".
_LAST_ID = 2**32 - 2
_MODE_BITS = 0o7777

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def of(paths: t.Iterable[str]) -> dict[str, dict[str, int]]:
    """On the source: ``uid``, ``gid`` and ``mode`` of all directories above some paths, by their own paths."""
    found: dict[str, dict[str, int]] = {}
    for path in paths:
        place = os.path.dirname(os.path.normpath(path))
        while place not in found and place != os.path.dirname(place):
            status = os.stat(place)
            mode = status.st_mode & _MODE_BITS
            # With an access list these bits are what it allows anybody at most, not what the group may.
            if _ACCESS_LIST in directory_attributes.names(place):
                mode &= ~_GROUP_BITS
            found[place] = {"uid": status.st_uid, "gid": status.st_gid, "mode": mode}
            place = os.path.dirname(place)
    return found


def _valid(described: t.Any) -> tuple[int, int, int] | None:
    """Owner, group and mode, where what another host says of a directory can be that."""
    if not isinstance(described, dict):
        return None
    numbers = [described.get(key) for key in ("uid", "gid", "mode")]
    limits = (_LAST_ID, _LAST_ID, _MODE_BITS)
    for number, limit in zip(numbers, limits):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= limit:
            return None
    return t.cast("tuple[int, int, int]", tuple(numbers))


def give(
    places: t.Sequence[t.Mapping[str, t.Any]], made: t.Mapping[str, t.Any], described: t.Mapping[str, t.Any]
) -> None:
    """On the destination: give the directories above bind mounts their owners and modes. All else has been made by then.

    One of which the source has said nothing valid stays root's alone.

    :param places: what ``made_places.missing_directories`` returned.
    :param made: which of them were made, by ``made_places.make_directories``.
    :param described: what :func:`of` returned on the source.
    :raises OSError: where one of them is not there any more.
    """
    # Innermost first: as long as those around it are root's alone, nobody can put another one in its place.
    for place in reversed(list(places)):
        path = place["path"]
        attributes = _valid(described.get(path))
        if place["leaf"] or path not in made or attributes is None:
            continue
        with made_places.parent_of(path, places, made) as (parent, _top):
            directory = os.open(os.path.basename(path), _OPEN_DIRECTORY, dir_fd=parent)
            try:
                if durable.lasting_identity(directory) == made[path]:
                    os.fchown(directory, attributes[0], attributes[1])
                    os.fchmod(directory, attributes[2])
            finally:
                os.close(directory)
