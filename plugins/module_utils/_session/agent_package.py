# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The agent's code as one file, and in the session's directory.

The watchdog and the channel's forced command outlive every Ansible task. They must not depend on files that Ansible leaves
behind, nor change when another version of the collection is used in the middle of a session. So each session has its own copy,
as a zip application for the interpreter that runs the modules.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import io
import marshal
import os
import time
import zipfile

from .._base import durable
from . import agent_code
from .agent_code import PACKAGE, Sources
from .session import AGENT, Session

# How long an agent of another version is kept for those who use it.
_KEPT_SECONDS = 24 * 3600

# rsync's server side needs little of the agent, and is started while what is moved stands still: a third of the time.
_MAIN = f"""\
import sys
if len(sys.argv) == 4 and sys.argv[1] == "serve" and sys.argv[3].startswith("rsync "):
    from {PACKAGE}._channel.server import serve_rsync as main
else:
    from {PACKAGE}.{agent_code.AGENT} import main
raise SystemExit(main(sys.argv[1:]))
"""


def keep(directory: str, packed: str) -> str:
    """Return the agent as a file. It is made when there is none yet of this code for this interpreter, which takes 0.4 s of a
    processor.

    A session makes its own copy of it; after that the file is not needed for the session any more.

    :param directory: of root alone, in memory; made if need be. Agents of other versions go when nobody has used them for a day.
    :param packed: its code, see ``_session/agent_code.py``.
    :returns: the file.
    :raises ValueError: where *packed* is not such code.
    """
    key = hashlib.sha256(importlib.util.MAGIC_NUMBER + packed.encode("ascii", "replace"))
    for needed in (os.path.dirname(directory), directory):
        os.makedirs(needed, mode=0o700, exist_ok=True)
    path = os.path.join(directory, f"{key.hexdigest()[:32]}.pyz")
    if os.path.exists(path):
        # It has been used today.
        os.utime(path)
        return path
    durable.write(path, build(agent_code.needed(agent_code.unpack(packed))))
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_mtime < time.time() - _KEPT_SECONDS:
                os.unlink(entry.path)
    return path


def build(sources: Sources) -> bytes:
    """The zip application.

    :param sources: what :func:`agent_code.needed` returned.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("__main__.py", _MAIN)
        for folder in sorted(agent_code.folders_of(f"{PACKAGE}.{part}" for part in sources)):
            archive.writestr(f"{folder.replace('.', '/')}/__init__.py", "")
        for part, source in sorted(sources.items()):
            # Compiled: nothing caches the code of a zip, and every command through the channel is a start of the agent
            # (measured on the lab: 141 ms from source, 62 ms compiled). The interpreter is the one that will run it.
            archive.writestr(f"{PACKAGE}.{part}".replace(".", "/") + ".pyc", _compiled(part, source))
    return buffer.getvalue()


def _compiled(part: str, source: str) -> bytes:
    """A part as a .pyc that is used unchecked, since there is no source beside it (PEP 552).

    What nobody reads on a managed host is left out: docstrings, annotations of parameters and results, and the columns of each
    instruction, which Python 3.11 and newer keep. With all of it the package is 1.6 times as large. A traceback still names file
    and line.
    """
    tree = _without_what_nobody_reads(ast.parse(source))
    code = compile(tree, f"agent.pyz/{part.replace('.', '/')}.py", "exec", dont_inherit=True, optimize=2)
    return (
        importlib.util.MAGIC_NUMBER + b"\x01\0\0\0" + importlib.util.source_hash(source.encode()) + marshal.dumps(code)
    )


def _without_what_nobody_reads(tree: ast.Module) -> ast.Module:
    """The same program. The annotations of a class's attributes stay: a NamedTuple has its fields by them."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        line = getattr(node, "lineno", None)
        if line is not None:
            vars(node).update(end_lineno=line, col_offset=0, end_col_offset=0)
    return tree


def install(session: Session, agent: str) -> tuple[str, ...]:
    """Give a session its own copy of the agent that runs this.

    :param agent: its file.
    :returns: the command line of the session's own agent.
    """
    with open(agent, "rb") as handle:
        durable.write(session.path(AGENT), handle.read())
    return session.agent
