#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: program_files
short_description: Install a few small programs into one directory
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Writes the files of a directory that belong together, each of them in one step. Who calls one of them at any moment calls the
    old one or the new one.
  - By it the role P(livemigrate.criu.checkpointing#role) installs the runtime. M(ansible.builtin.copy) takes two steps for each
    file.
  - Directory and files are root's, and executable for everybody.
extends_documentation_fragment:
  - livemigrate.criu.attributes
attributes:
  diff_mode:
    support: none
    details:
      - It tells which files it would write, and not how they differ.
options:
  directory:
    description: Where they are to be. It is made, with what is missing above it.
    type: path
    required: true
  files:
    description: The content of each file, by its name.
    type: dict
    required: true
seealso:
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
---
- name: Install two programs
  livemigrate.criu.program_files:
    directory: /usr/local/lib/example
    files:
      first: "{{ lookup('ansible.builtin.file', 'first', rstrip=false) }}"
      second: "{{ lookup('ansible.builtin.file', 'second', rstrip=false) }}"
  become: true
"""

RETURN = r"""
written:
  description: The names of the files that were written, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [first]
"""

import contextlib
import os
import stat
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module

_MODE = 0o755

Facts = dict[str, t.Any]


def _is_as_wanted(path: str, content: bytes) -> bool:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as handle:
        status = os.lstat(path)
        ours = stat.S_ISREG(status.st_mode) and (status.st_uid, status.st_gid) == (0, 0)
        return ours and stat.S_IMODE(status.st_mode) == _MODE and handle.read() == content
    return False


def _directory_is_as_wanted(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (_MODE, 0, 0)
    return False


def _install(params: Facts, check_mode: bool) -> Facts:
    directory, contents = params["directory"], {name: str(text).encode() for name, text in params["files"].items()}
    strange = [name for name in contents if name in ("", ".", "..") or "/" in name]
    if strange:
        raise MigrationError(
            "not_a_name", f"These are no names of files in a directory: {', '.join(map(repr, strange))}."
        )
    # A file has its mode when its name appears.
    os.umask(0o777 & ~_MODE)
    try:
        there = _directory_is_as_wanted(directory)
        wanted = [
            name for name, content in contents.items() if not _is_as_wanted(os.path.join(directory, name), content)
        ]
        if not check_mode and not there:
            os.makedirs(directory, mode=_MODE, exist_ok=True)
            os.chmod(directory, _MODE)
            os.chown(directory, 0, 0)
        if not check_mode:
            for name in wanted:
                durable.write(os.path.join(directory, name), contents[name], _MODE)
    except OSError as exc:
        raise MigrationError("not_installed", f"Cannot install programs into {directory}: {exc}.") from exc
    return {"changed": bool(wanted) or not there, "written": wanted}


def main() -> None:
    run_module(
        _install,
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
        },
    )


if __name__ == "__main__":
    main()
