# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Names that reach a path, a unit name or the engine are validated here first."""

from __future__ import annotations

import difflib
import ipaddress
import re
import secrets
import time
import typing as t

from .errors import MigrationError

# Docker's own rule for containers and checkpoints (moby daemon/names/names.go). Docker checks it only on create:
# DELETE and START join the name to a path unchecked, so it is checked here before every call.
NAME_PATTERN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
ID_PATTERN = re.compile(r"[0-9a-f]{64}")
SESSION_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
# What other hosts send about themselves becomes an argument of programs: it must not look like an option, or like two
# arguments.
_ACCOUNT = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}")
_HOST_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,252}")
_SCOPE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*")
# A name that a user may give to a container in this collection: Docker's rule, with a bound that keeps
# NAME-moved-SESSION a legal file name.
NAME_LIMIT = 200


def container_name(value: str) -> str:
    """A container's name or id as a user wrote it, a leading slash (as in inspect data) taken off.

    :raises MigrationError: ``invalid_name``.
    """
    name = value[1:] if value.startswith("/") else value
    if not NAME_PATTERN.fullmatch(name) or len(name) > NAME_LIMIT:
        raise MigrationError(
            "invalid_name",
            f"{value!r} is not a container name: it takes 2 to {NAME_LIMIT} characters out of letters, digits, '_', '.' "
            "and '-', the first one a letter or a digit. Set the variable container to a name from 'docker ps'.",
            value=value,
        )
    return name


def container_id(value: str) -> str:
    """A full container id of 64 hexadecimal digits.

    :raises MigrationError: ``invalid_id``.
    """
    if not ID_PATTERN.fullmatch(value):
        raise MigrationError("invalid_id", f"{value!r} is not a full container id (64 hexadecimal digits).")
    return value


# How a user may call a thing that is moved, and what its id may be, where its kind has rules of its own.
_NAMES_OF: dict[str, t.Callable[[str], str]] = {"container": container_name}
_IDS_OF: dict[str, t.Callable[[str], str]] = {"container": container_id}
# The same for all other kinds: it becomes the name of a file.
_FILE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:@-]{0,199}")


def subject_name(kind: str, value: str) -> str:
    """The name of something that can be moved, as a user wrote it.

    :param kind: what it is, see ``_subjects/by_kind.py``.
    :raises MigrationError: ``invalid_name``.
    """
    if kind in _NAMES_OF:
        return _NAMES_OF[kind](value)
    if not _FILE_NAME.fullmatch(value):
        raise MigrationError("invalid_name", f"{value!r} is not the name of a {kind}.", value=value)
    return value


def subject_id(kind: str, value: str) -> str:
    """The id of something that can be moved.

    :param kind: what it is.
    :raises MigrationError: ``invalid_id``.
    """
    if kind in _IDS_OF:
        return _IDS_OF[kind](value)
    if not _FILE_NAME.fullmatch(value):
        raise MigrationError("invalid_id", f"{value!r} is not the id of a {kind}.")
    return value


def session_id(value: str) -> str:
    """A session's id as :func:`new_session_id` makes them.

    :raises MigrationError: ``invalid_session``.
    """
    if not SESSION_PATTERN.fullmatch(value):
        raise MigrationError(
            "invalid_session",
            f"{value!r} is not a session id (they look like 20261123T034500Z-3f9a1c; playbooks/recover.yml lists them).",
        )
    return value


def checkpoint_name(value: str) -> str:
    """A checkpoint's name.

    :raises MigrationError: ``invalid_name``.
    """
    if not NAME_PATTERN.fullmatch(value) or len(value) > NAME_LIMIT:
        raise MigrationError(
            "invalid_name",
            f"{value!r} is not a checkpoint name: it takes 2 to {NAME_LIMIT} characters out of letters, digits, '_', '.' "
            "and '-', the first one a letter or a digit.",
            value=value,
        )
    return value


def account(value: str) -> str:
    """The name of an account of a host.

    :raises MigrationError: ``invalid_name``.
    """
    if not _ACCOUNT.fullmatch(value):
        raise MigrationError(
            "invalid_name",
            f"{value!r} is not the name of an account that the channel can use: it takes up to 64 characters out of letters, "
            "digits, '_', '.' and '-', the first one a letter, a digit or '_'. Name another account in migrate_channel_user.",
            value=value,
        )
    return value


def address(value: str) -> str:
    """A host's name or address; an IPv6 address may name the interface that leads to it.

    :raises MigrationError: ``invalid_name``.
    """
    if _HOST_NAME.fullmatch(value):
        return value
    number, percent, scope = value.partition("%")
    try:
        ipaddress.ip_address(number)
    except ValueError:
        number = ""
    if not number or (percent and not _SCOPE.fullmatch(scope)):
        raise MigrationError(
            "invalid_name",
            f"{value!r} is neither a host's name nor an address. Set migrate_destination_address to what the source finds the "
            "destination under.",
            value=value,
        )
    return value


def new_session_id(now: float | None = None) -> str:
    """A new session's id: UTC time for people, six random digits against two in one second."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"{stamp}-{secrets.token_hex(3)}"


def moved_name(name: str, session: str) -> str:
    """The name under which the old copy is kept on the source: NAME-moved-SESSION."""
    return f"{container_name(name)}-moved-{session_id(session)}"


def unknown(name: str, names: t.Sequence[str]) -> str:
    """The sentence for a container that is not there, with the names that look alike."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    if name.isdecimal():
        hint += " (A name that is a number with a leading zero, or is written 0x10 or 1_000, has to stand in quotes.)"
    return f"There is no container {name!r} on this host.{hint}"
