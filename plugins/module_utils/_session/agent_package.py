# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The agent's code as one file, exactly the code that this module run has, and in the session's directory.

The watchdog and the channel's forced command outlive every Ansible task and must not depend on what Ansible leaves behind,
nor on another version of the collection coming along in mid-session. So the session carries its own copy, as a zip
application for the interpreter that runs the modules.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import marshal
import os
import re
import time
import typing as t
import zipfile

from .._base import durable
from .session import AGENT, Session

if t.TYPE_CHECKING:
    from importlib.abc import InspectLoader
    from importlib.machinery import ModuleSpec

# How long an agent of another version is kept for those who use it.
_KEPT_SECONDS = 24 * 3600

_PACKAGE = "ansible_collections.livemigrate.criu.plugins.module_utils"

_AGENT = "_migration.agent"
# Utils import each other by relative imports alone. Not by parsing, which takes as long as compiling: who opens a session looks
# for what is compiled already.
_IMPORT = re.compile(r"^[ ]*from (\.+)([\w.]*) import (\([^)]*\)|[^\n#]*)", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?: as \w+)?")
# rsync's server side needs little of the agent, and is started while the container stands still: a third of the time.
_MAIN = f"""\
import sys
if len(sys.argv) == 4 and sys.argv[1] == "serve" and sys.argv[3].startswith("rsync "):
    from {_PACKAGE}._channel.server import serve_rsync as main
else:
    from {_PACKAGE}.{_AGENT} import main
raise SystemExit(main(sys.argv[1:]))
"""


def _spec_of(part: str) -> ModuleSpec:
    spec = importlib.util.find_spec(f"{_PACKAGE}.{part}")
    if spec is None:
        raise RuntimeError(f"{part} cannot be found")
    return spec


def _source_of(part: str) -> str:
    # Through the loader: a module's own code lies in a zip of Ansible's, not in a directory. (zipimporter has get_source()
    # without being registered as an InspectLoader.)
    spec = _spec_of(part)
    source = t.cast("InspectLoader", spec.loader).get_source(spec.name) if spec.loader else None
    if source is None:
        raise RuntimeError(f"the source of {part} cannot be read")
    return source


@functools.cache
def _is_folder(name: str) -> bool:
    return _spec_of(name).submodule_search_locations is not None


def imported_parts(part: str, source: str) -> set[str]:
    """The collection's own utils that a source text imports anywhere in it, within functions as well.

    :param part: its own name, ``_host.tasks``.
    """
    found: set[str] = set()
    for dots, below, names in _IMPORT.findall(source):
        origin = ".".join([*part.split(".")[: -len(dots)], *filter(None, [below])])
        if _is_folder(origin):
            found.update(f"{origin}.{name}" for name in _NAME.findall(re.sub(r"#.*", "", names)))
        else:
            found.add(origin)
    return found


def parts() -> dict[str, str]:
    """``_migration/agent.py`` and everything it needs, directly or not: name to source."""
    sources: dict[str, str] = {}
    wanted = {_AGENT}
    while wanted:
        part = wanted.pop()
        sources[part] = _source_of(part)
        wanted.update(imported_parts(part, sources[part]) - sources.keys())
    return sources


def keep(directory: str) -> str:
    """The agent as a file, made where there is none yet of this code for this interpreter: that takes 0.4 s of a processor.

    A session copies it, and opening a half needs it no longer than that.

    :param directory: of root alone, in memory; made if need be. Agents of other versions go when nobody has used them for a day.
    :returns: the file.
    """
    sources = parts()
    key = hashlib.sha256(importlib.util.MAGIC_NUMBER)
    for part, source in sorted(sources.items()):
        key.update(f"{part} {len(source)} {source}".encode())
    for needed in (os.path.dirname(directory), directory):
        os.makedirs(needed, mode=0o700, exist_ok=True)
    path = os.path.join(directory, f"{key.hexdigest()[:32]}.pyz")
    if os.path.exists(path):
        # It has been used today.
        os.utime(path)
        return path
    durable.write(path, build(sources))
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_mtime < time.time() - _KEPT_SECONDS:
                os.unlink(entry.path)
    return path


def build(sources: t.Mapping[str, str] | None = None) -> bytes:
    """The zip application.

    :param sources: what :func:`parts` returned, where the caller has asked it already.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", _MAIN)
        files = sorted((parts() if sources is None else sources).items())
        for folder in sorted({folder for part, _source in files for folder in _folders(f"{_PACKAGE}.{part}")}):
            archive.writestr(f"{folder}/__init__.py", "")
        for part, source in files:
            # Compiled: nothing caches the code of a zip, and every word through the channel is a start of the agent
            # (measured on the lab: 141 ms from source, 62 ms compiled). The interpreter is the one that will run it.
            archive.writestr(f"{_PACKAGE}.{part}".replace(".", "/") + ".pyc", _compiled(part, source))
    return buffer.getvalue()


def _folders(name: str) -> list[str]:
    """The folders that a module is in, one within the other."""
    folders = name.split(".")[:-1]
    return ["/".join(folders[:depth]) for depth in range(1, len(folders) + 1)]


def _compiled(part: str, source: str) -> bytes:
    """A part as a .pyc that is used unchecked, since there is no source beside it (PEP 552)."""
    code = compile(source, f"agent.pyz/{part.replace('.', '/')}.py", "exec", dont_inherit=True)
    return (
        importlib.util.MAGIC_NUMBER + b"\x01\0\0\0" + importlib.util.source_hash(source.encode()) + marshal.dumps(code)
    )


def install(session: Session, agent: str) -> tuple[str, ...]:
    """Give a session the agent that runs this.

    :param agent: its file.
    :returns: the command line of the session's own.
    """
    with open(agent, "rb") as handle:
        durable.write(session.path(AGENT), handle.read())
    return session.agent
