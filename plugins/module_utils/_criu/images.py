# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A checkpoint on disk: which files it has, and that they arrived as they left."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import typing as t

from .._base import durable
from .._base.errors import MigrationError

_CHUNK = 1 << 20

# Process memory on a disk: where containerd unpacks a checkpoint to restore it.
_LEFTOVER_ROOT = "/tmp"  # noqa: S108 (containerd's choice, not ours)
_LEFTOVER_PREFIX = "ctrd-checkpoint"

Manifest = dict[str, dict[str, t.Union[int, str]]]

# What every complete set of images has (CRIU writes the inventory last but for the statistics).
_REQUIRED = ("inventory.img", "pstree.img")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as handle:
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            count = handle.readinto(buffer)
            if not count:
                return digest.hexdigest()
            digest.update(buffer[:count])


def files(directory: str) -> list[str]:
    """The names of all files and links of a checkpoint, as paths from its directory."""
    found: list[str] = []
    for base, directories, names in os.walk(directory):
        links = [name for name in directories if os.path.islink(os.path.join(base, name))]
        found.extend(os.path.relpath(os.path.join(base, name), directory) for name in (*names, *links))
    return sorted(found)


def _regular_size(path: str) -> int:
    """The size of a regular file; -1 for anything else (a link to one, a pipe that would never end)."""
    status = os.lstat(path)
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def manifest(directory: str) -> Manifest:
    """Size in bytes and SHA-256 of every file of a checkpoint.

    :raises MigrationError: ``checkpoint_incomplete``.
    """
    result: Manifest = {}
    for name in files(directory):
        path = os.path.join(directory, name)
        if os.path.islink(path):
            result[name] = {"size": 0, "link": os.readlink(path)}
        else:
            result[name] = {"size": os.path.getsize(path), "sha256": _sha256(path)}
    _require_complete(result)
    return result


def arrived(inbox: str) -> tuple[Manifest, dict[str, str]]:
    """The manifest and the fingerprints of the processes that the source has sent.

    :param inbox: the directory into which it sends them.
    :raises MigrationError: ``checkpoint_incomplete``.
    """
    content = durable.read_json(os.path.join(inbox, "manifest.json"))
    fingerprints = durable.read_json(os.path.join(inbox, "fingerprints.json"))
    if content is None or fingerprints is None:
        raise MigrationError("checkpoint_incomplete", "The checkpoint's manifest has not arrived on the destination.")
    return content, fingerprints


def total_bytes(content: Manifest) -> int:
    """The size of all files together."""
    return sum(int(entry["size"]) for entry in content.values())


def remove_leftovers(content: Manifest) -> None:
    """Delete containerd's copies of THIS checkpoint, which it makes for every restore and never deletes (containerd#10166).

    It may be that of a restore that failed half way, so one counts as ours when it has files of the
    manifest only, and the content of at least one of them.
    """
    for entry in os.listdir(_LEFTOVER_ROOT) if content else ():
        path = os.path.join(_LEFTOVER_ROOT, entry)
        if not entry.startswith(_LEFTOVER_PREFIX) or os.path.islink(path) or not os.path.isdir(path):
            continue
        status = os.stat(path)
        if status.st_uid == 0 and status.st_mode & 0o077 == 0 and _is_copy(path, content):
            shutil.rmtree(path, ignore_errors=True)


def _is_copy(directory: str, content: Manifest) -> bool:
    present = files(directory)
    if not set(present) <= set(content):
        return False
    # Names are alike in all checkpoints; what is in a file of some size (registers, memory) is not.
    telling = [name for name in present if _regular_size(os.path.join(directory, name)) > 512]
    return any(content[name].get("sha256") == _sha256(os.path.join(directory, name)) for name in telling)


def compare(received: Manifest, sent: Manifest) -> None:
    """Check what arrived, hashed on its way in, against what was hashed on its way out.

    :raises MigrationError: ``checkpoint_corrupt``; ``checkpoint_incomplete`` where the dump did not finish.
    """
    _require_complete(sent)
    names = set(received).union(sent)
    _require_none(sorted(name for name in names if received.get(name) != sent.get(name)))


def _require_complete(content: Manifest) -> None:
    for name in _REQUIRED:
        if name not in content:
            raise MigrationError(
                "checkpoint_incomplete", f"The checkpoint has no {name}: the dump did not finish.", file=name
            )


def _require_none(wrong: list[str]) -> None:
    if wrong:
        shown = ", ".join(wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        raise MigrationError(
            "checkpoint_corrupt",
            f"The checkpoint that arrived is not the one that was dumped: {len(wrong)} file(s) differ or are missing ({shown}).",
            files=wrong[:50],
        )


def verify(directory: str, content: Manifest) -> None:
    """Check a checkpoint against the manifest that was made where it was dumped.

    :raises MigrationError: ``checkpoint_corrupt``, naming the first few files that differ.
    """
    if not content:
        raise MigrationError("checkpoint_incomplete", "There is no manifest of the checkpoint to check it against.")
    present = set(files(directory))
    wrong = sorted(present.symmetric_difference(content))
    for name in sorted(present.intersection(content)):
        expected = content[name]
        path = os.path.join(directory, name)
        if "link" in expected:
            good = os.path.islink(path) and os.readlink(path) == expected["link"]
        else:
            # The size first: it is free, and tells a transfer that was cut off.
            good = _regular_size(path) == expected["size"] and _sha256(path) == expected["sha256"]
        if not good:
            wrong.append(name)
    _require_none(wrong)
