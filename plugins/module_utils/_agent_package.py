# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The agent's code as one file in the session's directory, exactly the code that this module run has.

The watchdog and the channel's forced command outlive every Ansible task and must not depend on what Ansible leaves behind,
nor on another version of the collection coming along in mid-session. So the session carries its own copy, as a zip
application for the interpreter that runs the modules.
"""

from __future__ import annotations

import importlib.util
import io
import sys
import typing as t
import zipfile

from ansible_collections.livemigrate.criu.plugins.module_utils import _durable
from ansible_collections.livemigrate.criu.plugins.module_utils._session import Session

if t.TYPE_CHECKING:
    from importlib.abc import InspectLoader

_PACKAGE = "ansible_collections.livemigrate.criu.plugins.module_utils"

# Everything that _agent.py imports, directly or not. tests/unit checks that it is complete.
PARTS = (
    "_agent",
    "_agent_package",
    "_channel",
    "_channel_server",
    "_checkpoint_dir",
    "_command",
    "_destination",
    "_durable",
    "_engine",
    "_errors",
    "_names",
    "_networks",
    "_proof",
    "_session",
    "_source",
    "_spec",
    "_spec_checks",
    "_spec_create",
    "_spec_fields",
    "_spec_mounts",
    "_spec_networks",
    "_spec_view",
    "_tasks",
    "_trees",
    "_watchdog",
)

_MAIN = f"from {_PACKAGE}._agent import main\nraise SystemExit(main())\n"


def build() -> bytes:
    """The zip application."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", _MAIN)
        packages = _PACKAGE.split(".")
        for depth in range(1, len(packages) + 1):
            archive.writestr("/".join(packages[:depth]) + "/__init__.py", "")
        for part in PARTS:
            # Through the loader: a module's own code lies in a zip of Ansible's, not in a directory.
            spec = importlib.util.find_spec(f"{_PACKAGE}.{part}")
            # zipimporter has get_source() without being registered as an InspectLoader.
            source = t.cast("InspectLoader", spec.loader).get_source(spec.name) if spec and spec.loader else None
            if source is None:
                raise RuntimeError(f"the source of {part} cannot be read")
            archive.writestr("/".join(packages) + f"/{part}.py", source)
    return buffer.getvalue()


def install(session: Session) -> t.Tuple[str, ...]:
    """Put the agent into a session's directory; returns its command line."""
    path = session.path("agent.pyz")
    _durable.write(path, build())
    # -I: nothing from the caller's environment or working directory gets imported by what runs as root.
    return (sys.executable, "-I", "-B", path)
