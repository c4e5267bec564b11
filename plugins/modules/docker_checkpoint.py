#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_checkpoint
short_description: Create, list and delete checkpoints of Docker containers
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Dumps the memory of a running container with CRIU through the Docker Engine, lists the checkpoints a container has, and
    deletes them.
  - The Engine has to run with C(experimental) on; the role P(livemigrate.criu.checkpointing#role) sees to that.
  - A checkpoint is the memory of the processes, with every secret in it. The Engine keeps it readable for root only, below
    its data root; delete it when it has served.
extends_documentation_fragment:
  - livemigrate.criu.attributes
options:
  container:
    description:
      - Name or id of the container.
      - Required unless O(session) is given.
    type: str
  checkpoint:
    description:
      - Name of the checkpoint, 2 to 128 characters out of letters, digits, underscore, dot and dash, the first one a letter or
        a digit.
      - Required for O(state=present) and O(state=absent) unless O(session) is given.
    type: str
  state:
    description:
      - V(present) dumps the container unless it has a checkpoint of that name.
      - V(absent) deletes the checkpoint.
      - V(listed) only tells which checkpoints there are.
    type: str
    choices: [present, absent, listed]
    default: present
  leave_running:
    description:
      - Whether the container goes on after the dump. Without it the container ends, and one with a restart policy would be
        started afresh by the Engine at once; such containers are refused.
    type: bool
    default: true
  session:
    description:
      - The migration whose container is to be frozen and dumped, see M(livemigrate.criu.migration_session).
      - The container is left frozen, with the watchdog of the session behind it, and its restart policy is put aside. When
        freezing or dumping fails the container goes on at once and the session is over.
    type: str
seealso:
  - module: livemigrate.criu.docker_restore
  - module: livemigrate.criu.checkpoint_transfer
"""

EXAMPLES = r"""
---
- name: Dump a container and let it go on
  livemigrate.criu.docker_checkpoint:
    container: web
    checkpoint: before-upgrade
  become: true

- name: Which checkpoints does it have
  livemigrate.criu.docker_checkpoint:
    container: web
    state: listed
  become: true
  register: web

- name: Delete them all
  livemigrate.criu.docker_checkpoint:
    container: web
    checkpoint: "{{ item }}"
    state: absent
  loop: "{{ web.checkpoints }}"
  become: true
"""

RETURN = r"""
checkpoints:
  description: Names of the checkpoints the container has now (in check mode, would have).
  returned: always, but not with O(session)
  type: list
  elements: str
  sample: [before-upgrade]
bytes:
  description: Size of the checkpoint in bytes.
  returned: with O(session)
  type: int
  sample: 1802240
seconds:
  description: How long the dump took.
  returned: when a checkpoint was made
  type: float
  sample: 0.31
failure:
  description: Why it failed, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: Short stable name.
      type: str
      sample: dump_failed
    message:
      description: The same sentence as RV(ignore:msg).
      type: str
    details:
      description: Facts.
      type: dict
"""

import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._base import valid_names
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._session import step_call
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

Params = dict[str, t.Any]
Result = dict[str, t.Any]


def _dump(engine: Engine, container: str, checkpoint: str, leave_running: bool) -> float:
    inspect = engine.inspect(container)
    if not inspect["State"]["Running"]:
        raise MigrationError(
            "container_not_running", f"Container {container} is not running; it has no memory to dump."
        )
    policy = inspect["HostConfig"]["RestartPolicy"].get("Name") or "no"
    if not leave_running and (policy != "no" or inspect["HostConfig"].get("AutoRemove")):
        raise MigrationError(
            "would_restart",
            f"Container {container} has the restart policy {policy!r} or --rm: when its dump ends it, the engine would start it "
            "afresh or delete it with its checkpoint. Use leave_running: true, or 'docker update --restart=no' first.",
        )
    started = time.monotonic()
    engine.checkpoint(container, checkpoint, leave_running=leave_running)
    seconds = time.monotonic() - started
    # The engine answers some hundred milliseconds before it has taken notice of the container's end.
    while (
        not leave_running
        and engine.inspect(container)["State"]["Running"]
        and time.monotonic() - started < 30 + seconds
    ):
        time.sleep(0.05)
    return seconds


def _body(params: Params, check_mode: bool) -> Result:
    if params["session"] is not None:
        session = Session(params["session"])
        return {"changed": True} if check_mode else step_call.call(session, "dumped", {})
    engine = Engine()
    container = valid_names.container_name(params["container"])
    inspect = engine.inspect(container)
    existing = engine.checkpoints(inspect["Id"])
    if params["state"] == "listed":
        return {"checkpoints": existing}
    name = valid_names.checkpoint_name(params["checkpoint"])
    result: Result = {"changed": (name in existing) == (params["state"] == "absent")}
    if params["state"] == "absent":
        if result["changed"] and not check_mode:
            engine.remove_checkpoint(inspect["Id"], name)
        return dict(result, checkpoints=[entry for entry in existing if entry != name])
    if result["changed"] and not check_mode:
        result["seconds"] = _dump(engine, container, name, params["leave_running"])
    return dict(result, checkpoints=sorted({*existing, name}))


def main() -> None:
    run_module(
        _body,
        argument_spec={
            "container": {"type": "str"},
            "checkpoint": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent", "listed"], "default": "present"},
            "leave_running": {"type": "bool", "default": True},
            "session": {"type": "str"},
        },
        required_one_of=[("container", "session")],
        mutually_exclusive=[("container", "session"), ("checkpoint", "session")],
    )


if __name__ == "__main__":
    main()
