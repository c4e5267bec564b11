# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The code that an agent is made of: packed on the control node, sent with a module's arguments, unpacked on the host.

Ansible could send the same code as utils of the module. But it would look for them again in every run of a playbook (1.2 s of a
processor for 135 files), and the module would carry them even when it does not need them.
"""

from __future__ import annotations

import base64
import io
import os
import re
import typing as t
import zipfile

PACKAGE = "ansible_collections.livemigrate.criu.plugins.module_utils"
AGENT = "_migration.agent"

# Utils import each other by relative imports alone. Not by parsing, which takes as long as compiling.
_IMPORT = re.compile(r"^[ ]*from (\.+)([\w.]*) import (\([^)]*\)|[^\n#]*)", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?: as \w+)?")
# The oldest time that a zip can tell: the same code is packed into the same bytes wherever its files come from.
_NO_TIME = (1980, 1, 1, 0, 0, 0)

Sources = dict[str, str]
"""The text of each util by its name, as ``_host.tasks``."""


def of_directory(directory: str) -> Sources:
    """All utils.

    :param directory: ``module_utils`` of the collection.
    """
    found = {}
    for place, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            stem, extension = os.path.splitext(name)
            if extension == ".py" and stem != "__init__":
                with open(os.path.join(place, name), encoding="utf-8") as handle:
                    part = os.path.relpath(os.path.join(place, stem), directory)
                    found[part.replace(os.sep, ".")] = handle.read()
    return found


def pack(sources: Sources) -> str:
    """Pack sources into a text for a module's arguments."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, source in sorted(sources.items()):
            archive.writestr(zipfile.ZipInfo(part, _NO_TIME), source, zipfile.ZIP_DEFLATED)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def unpack(packed: str) -> Sources:
    """Unpack what :func:`pack` has packed.

    :raises ValueError: for any other text.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed, validate=True))) as archive:
            return {part: archive.read(part).decode("utf-8") for part in archive.namelist()}
    except zipfile.BadZipFile as exc:
        raise ValueError(str(exc)) from exc


def imported_parts(part: str, source: str, folders: t.Container[str]) -> set[str]:
    """The collection's own utils that a source text imports, at its top or within functions.

    :param part: its own name, ``_host.tasks``.
    :param folders: the names of all folders, see :func:`folders_of`.
    """
    found: set[str] = set()
    for dots, below, names in _IMPORT.findall(source):
        origin = ".".join([*part.split(".")[: -len(dots)], *filter(None, [below])])
        if origin in folders:
            found.update(f"{origin}.{name}" for name in _NAME.findall(re.sub(r"#.*", "", names)))
        else:
            found.add(origin)
    return found


def folders_of(parts: t.Iterable[str]) -> set[str]:
    """The folders that utils are in, one within the other."""
    return {".".join(names[:depth]) for names in (part.split(".") for part in parts) for depth in range(1, len(names))}


def needed(sources: Sources) -> Sources:
    """``_migration/agent.py`` and everything it needs, directly or not."""
    folders = folders_of(sources)
    found: Sources = {}
    wanted = {AGENT}
    while wanted:
        part = wanted.pop()
        found[part] = sources[part]
        wanted.update(imported_parts(part, found[part], folders) - found.keys())
    return found
