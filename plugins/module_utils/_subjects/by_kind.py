# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The kinds of things that can be moved, by their names.

Each is imported when it is asked for: a start of the agent loads no more than it needs.
"""

from __future__ import annotations

import typing as t

from .._base.errors import MigrationError
from .._session.session import Session
from .subject import Kind


def _containers() -> Kind:
    from .container.kind import Containers

    return Containers()


#: by the noun that people have for one, which is what ``Session.kind`` says
KINDS: dict[str, t.Callable[[], Kind]] = {"container": _containers}


def named(kind: str) -> Kind:
    """A kind by its name.

    :raises MigrationError: ``kind_unknown``.
    """
    if kind not in KINDS:
        raise MigrationError(
            "kind_unknown", f"This version can move no {kind}; it can move: {', '.join(sorted(KINDS))}."
        )
    return KINDS[kind]()


def all_of_them() -> dict[str, Kind]:
    """All kinds, by their names."""
    return {noun: make() for noun, make in KINDS.items()}


def of(session: Session) -> Kind:
    """The kind of what a session moves.

    :raises MigrationError: ``kind_unknown``.
    """
    return named(session.kind)
