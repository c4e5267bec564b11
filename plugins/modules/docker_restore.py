#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_restore
short_description: Create a container for a checkpoint and restore it
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Runs on the destination of a migration session, see M(livemigrate.criu.migration_session). It creates the container from
    what the source has sent, starts it from the checkpoint, and proves that its processes are those of the source.
  - The proof is the memory layout of every process (where the kernel put stack, heap and code at random), which CRIU restores
    to the byte and which no fresh start can have. An exit code proves nothing, containerd 1.3 and 1.4 start afresh silently.
  - On any failure what was made is taken away again, and the decision V(REFUSED) is written, on which the source acts.
  - With O(container) instead of O(session) it starts a container from one of its own checkpoints, without any of that but the
    look whether it runs.
extends_documentation_fragment:
  - livemigrate.criu.attributes
options:
  session:
    description: Id of the session.
    type: str
  state:
    description:
      - V(created) makes networks, volumes and the container, and opens their places to the channel. The image is pulled by digest
        where that works. Where it is missing (see RV(image)) nothing is made; it has to be sent, and this to be repeated.
      - V(started) restores and proves it.
    type: str
    choices: [created, started]
    default: started
  overwrite_data:
    description: Whether content on this host that no earlier move of this container put here may be replaced.
    type: bool
    default: false
  container:
    description: Name or id of a stopped container that has the checkpoint.
    type: str
  checkpoint:
    description: Name of the checkpoint, with O(container).
    type: str
seealso:
  - module: livemigrate.criu.docker_checkpoint
  - module: livemigrate.criu.checkpoint_transfer
"""

EXAMPLES = r"""
---
- name: Let a stopped container go on from its checkpoint
  livemigrate.criu.docker_restore:
    container: web
    checkpoint: before-upgrade
  become: true
"""

RETURN = r"""
image:
  description: V(present), V(pulled) or V(missing).
  returned: O(state=created)
  type: str
  sample: missing
container_id:
  description: Full id of the container on this host.
  returned: O(state=created), with an image, and O(state=started)
  type: str
created_volumes:
  description: Volumes that were made.
  returned: O(state=created), with an image
  type: list
  elements: str
processes:
  description: How many processes the source had.
  returned: O(state=started) with O(session)
  type: int
recognised:
  description: How many of them run here, proved by their memory layout.
  returned: O(state=started) with O(session)
  type: int
seconds:
  description: How long the engine took to restore it.
  returned: O(state=started)
  type: float
  sample: 0.38
failure:
  description: Why it failed, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: Short stable name.
      type: str
      sample: restore_failed
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


def _step(params: Params, check_mode: bool) -> Result:
    session = Session(params["session"])
    if check_mode:
        return {"changed": True}
    return step_call.call(session, params["state"], {"overwrite_data": params["overwrite_data"]})


def _restore(params: Params, check_mode: bool) -> Result:
    engine = Engine()
    container = valid_names.container_name(params["container"])
    checkpoint = valid_names.checkpoint_name(params["checkpoint"])
    inspect = engine.inspect(container)
    if inspect["State"]["Running"]:
        return {"changed": False, "container_id": inspect["Id"]}
    existing = engine.checkpoints(inspect["Id"])
    if checkpoint not in existing:
        raise MigrationError(
            "checkpoint_not_found",
            f"Container {container} has no checkpoint {checkpoint}; it has {', '.join(existing) or 'none'}.",
            checkpoints=existing,
        )
    if check_mode:
        return {"changed": True, "container_id": inspect["Id"]}
    started = time.monotonic()
    engine.start(inspect["Id"], checkpoint)
    seconds = time.monotonic() - started
    after = engine.inspect(inspect["Id"])
    if not after["State"]["Running"]:
        raise MigrationError(
            "restored_copy_died", f"The restored container ended at once (exit code {after['State']['ExitCode']})."
        )
    return {"changed": True, "container_id": inspect["Id"], "seconds": seconds}


def _body(params: Params, check_mode: bool) -> Result:
    return _step(params, check_mode) if params["session"] is not None else _restore(params, check_mode)


def main() -> None:
    run_module(
        _body,
        argument_spec={
            "session": {"type": "str"},
            "state": {"type": "str", "choices": ["created", "started"], "default": "started"},
            "overwrite_data": {"type": "bool", "default": False},
            "container": {"type": "str"},
            "checkpoint": {"type": "str"},
        },
        required_one_of=[("container", "session")],
        mutually_exclusive=[("container", "session"), ("checkpoint", "session")],
        required_together=[("container", "checkpoint")],
    )


if __name__ == "__main__":
    main()
