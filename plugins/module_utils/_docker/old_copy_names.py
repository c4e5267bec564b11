# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The name under which a move keeps its old copy, and whether one is in use again. Pure."""

from __future__ import annotations

import typing as t

from .._base import valid_names

Inspect = t.Mapping[str, t.Any]


class Move(t.Protocol):
    """The session that has left the old copy."""

    @property
    def id(self) -> str:
        """Its own id."""

    @property
    def subject_name(self) -> str:
        """The name that the container had."""


def name_of(session: Move) -> str:
    """The name under which the old copy of a session is kept: ``NAME-moved-SESSION``."""
    return valid_names.moved_name(session.subject_name, session.id)


def name_now(inspect: Inspect) -> str:
    """The name that a container has now."""
    return str(inspect.get("Name") or "").lstrip("/")


def why_in_use(session: Move, inspect: Inspect) -> str:
    """Why an old copy is not one any more, and must not be removed; empty where it may be: stopped, and under its moved name.

    Who starts it again, or gives it another name, has put it to a use of which we know nothing.
    """
    name = name_now(inspect)
    if inspect["State"]["Running"]:
        return f"The container {name}, the old copy of session {session.id}, has been started again and is running"
    if name != name_of(session):
        return f"The container {name}, the old copy of session {session.id}, has been given this name by somebody"
    return ""


def remedy(session: Move) -> str:
    """What to do about one that is in use, for a person who wants it to be removed, or does not."""
    return (
        f"If nothing of it is needed, stop it and name it {name_of(session)} again (docker stop, docker rename), and repeat; or "
        "remove it yourself (docker rm). It is left alone as long as it is as it is."
    )
