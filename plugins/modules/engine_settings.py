#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: engine_settings
short_description: Read how a Docker Engine and CRIU are configured on a host
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Reads the configuration files of the Docker Engine and of CRIU, has C(dockerd) judge its own, and tells how the engine is
    started.
  - It is what the role P(livemigrate.criu.checkpointing#role) has to know before it changes anything, in one step. As separate
    tasks it took ten times as long.
  - A file that is not there is reported and is no error, and so is an engine that is not installed.
extends_documentation_fragment:
  - livemigrate.criu.attributes.read_only
  - livemigrate.criu.attributes
options:
  daemon_config:
    description: The configuration file of the Docker Engine.
    type: path
    default: /etc/docker/daemon.json
  criu_config:
    description: The CRIU configuration that runc reads.
    type: path
    default: /etc/criu/runc.conf
  files:
    description: Other files that are to be read, by any names.
    type: dict
    default: {}
seealso:
  - module: livemigrate.criu.criu_check
"""

EXAMPLES = r"""
---
- name: Read how the engine is configured
  livemigrate.criu.engine_settings:
  become: true
  register: settings

- name: Tell whether dockerd would start with its configuration
  ansible.builtin.assert:
    that: settings.daemon.refused == ''
    fail_msg: "{{ settings.daemon.refused }}"
"""

RETURN = r"""
daemon:
  description: The configuration file of the Docker Engine, with the keys of RV(criu) and these.
  returned: always
  type: dict
  contains:
    json_error:
      description: Why it is no JSON, with line and column; empty where it is. An empty file is an empty object, as for dockerd.
      type: str
      sample: "Expecting ',' delimiter: line 3 column 3 (char 27)"
    refused:
      description: Why dockerd does not take it, as it reports itself. Empty where it does, and where that cannot be asked.
      type: str
      sample: ""
criu:
  description: The CRIU configuration.
  returned: always
  type: dict
  contains:
    exists:
      description: Whether there is a file.
      type: bool
      sample: true
    content:
      description: Its content in Base64.
      type: str
      sample: e30K
    mode:
      description: Its mode.
      type: str
      sample: "0644"
    uid:
      description: Its owner.
      type: int
      sample: 0
    gid:
      description: Its group.
      type: int
      sample: 0
files:
  description: The files of O(files) by their names, with the keys of RV(criu).
  returned: always
  type: dict
  sample: {}
validates:
  description: Whether dockerd can judge a configuration file (from Docker 23 on). V(false) where there is no dockerd.
  returned: always
  type: bool
  sample: true
exec_start:
  description: How systemd starts the engine; empty where there is no systemd or no unit C(docker.service).
  returned: always
  type: str
  sample: "{ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// ; ... }"
"""

import base64
import json
import os
import stat
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module

# By sd_booted(3).
_SYSTEMD = "/run/systemd/system"

Facts = dict[str, t.Any]


def _file(path: str) -> Facts:
    try:
        with open(path, "rb") as handle:
            status, content = os.fstat(handle.fileno()), handle.read()
    except FileNotFoundError:
        return {"exists": False, "content": "", "mode": "0644", "uid": 0, "gid": 0}
    except OSError as exc:
        raise MigrationError("file_unreadable", f"Cannot read {path}: {exc.strerror}. Nothing was changed.") from exc
    return {
        "exists": True,
        "content": base64.b64encode(content).decode(),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _json_error(file: Facts) -> str:
    content = base64.b64decode(file["content"])
    try:
        # As text: of bytes this parser takes more encodings than dockerd.
        json.loads(content.decode() if content.strip() else "{}")
    except ValueError as exc:
        return str(exc)
    return ""


def _run_program(argv: t.Sequence[str]) -> tuple[int, str, str]:
    """What a program says; as if it had said nothing where it is not there."""
    try:
        return run(argv)
    except MigrationError as exc:
        if exc.code != "program_missing":
            raise
        return 0, "", ""


def _read(params: Facts, check_mode: bool) -> Facts:  # noqa: ARG001 - it changes nothing anyway
    path = params["daemon_config"]
    daemon = _file(path)
    json_error, refused = _json_error(daemon), ""
    # An unknown key, for instance, only dockerd can tell.
    validates = "--validate" in _run_program(["dockerd", "--help"])[1]
    if validates and daemon["exists"] and not json_error:
        code, _output, error = _run_program(["dockerd", "--validate", "--config-file", path])
        refused = (error.strip() or "it does not say why") if code != 0 else ""
    code, started_by, error = _run_program(["systemctl", "show", "docker.service", "--property=ExecStart", "--value"])
    if code != 0 and os.path.isdir(_SYSTEMD):
        # A unit that is not there is no error to it. What nobody tells must not be taken for a unit without flags.
        raise MigrationError("systemd_silent", f"systemd does not tell how the engine is started: {error.strip()}")
    return {
        "changed": False,
        "daemon": {**daemon, "json_error": json_error, "refused": refused},
        "criu": _file(params["criu_config"]),
        "files": {name: _file(str(other)) for name, other in params["files"].items()},
        "validates": validates,
        "exec_start": started_by.strip(),
    }


def main() -> None:
    run_module(
        _read,
        argument_spec={
            "daemon_config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "criu_config": {"type": "path", "default": "/etc/criu/runc.conf"},
            "files": {"type": "dict", "default": {}},
        },
    )


if __name__ == "__main__":
    main()
