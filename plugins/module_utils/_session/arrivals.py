# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The places of this host into which open sessions bring data. No two sessions may bring something into one place: each would
delete what the other has sent.

A session looks whether its places are free and notes them with its phase ``creating``; no other session looks meanwhile.
"""

from __future__ import annotations

import os
import typing as t

from . import turns
from .phases import DESTINATION
from .session import Session

#: the key in the data of the phase ``creating``
NOTED = "arrives_in"
# Its end on this host is noted: nothing more comes in, and what is in its places is known by other means.
_OVER = ("run", "refused", "closed")


def in_turns(session: Session) -> t.ContextManager[None]:
    """In this block, look which places are free and note them. No other session of this host does so meanwhile."""
    return turns.taken(session.state_root)


def places(names: t.Iterable[str], paths: t.Iterable[str]) -> dict[str, list[str]]:
    """What to note under :data:`NOTED`.

    :param names: of volumes.
    :param paths: of directories and files of this host.
    """
    return {"names": sorted(names), "paths": sorted(map(os.path.realpath, paths))}


class Arrivals:
    """What the open sessions of this host have noted, read once.

    :param own: the id of a session that does not count; empty where all do.
    """

    def __init__(self, own: str = "") -> None:
        self._noted: dict[str, t.Mapping[str, t.Sequence[str]]] = {}
        for session in Session.all():
            if session.role == DESTINATION and session.id != own and session.phase not in _OVER:
                self._noted[session.id] = session.data("creating").get(NOTED) or {}

    def into_name(self, name: str) -> list[str]:
        """The ids of the sessions that bring something into a volume."""
        return sorted(session for session, noted in self._noted.items() if name in noted.get("names", ()))

    def into_path(self, path: str) -> list[str]:
        """The ids of the sessions that bring something to a path, into it, or into a directory around it."""
        real = os.path.realpath(path)
        return sorted(
            session
            for session, noted in self._noted.items()
            if any(_within(real, one) or _within(one, real) for one in noted.get("paths", ()))
        )


def _within(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")
