#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: checkpoint_transfer
short_description: Bring what a migrating container needs to the other host
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Runs on the source and sends through the channel of a migration session, see M(livemigrate.criu.migration_session).
  - The channel is SSH with a key made for this session alone; the destination takes it for one forced command that can write
    into the places prepared for this session and nowhere else. Files travel with rsync, the image from engine to engine.
extends_documentation_fragment:
  - livemigrate.criu.attributes
attributes:
  idempotent:
    support: partial
    details:
      - rsync sends only what differs; the module always says that it changed something.
options:
  session:
    description: Id of the session.
    type: str
    required: true
  what:
    description:
      - V(image) the image of the container, for a destination that has no other way to get it.
      - V(content) writable layer, log, volumes and named bind mounts while the container runs, so that little is left for the
        time when it is frozen. The destination is ready then. It is decided what becomes of the connections of the container, and
        the step fails where O(close_connections) is needed and was not given.
      - V(checkpoint) the last pass over the same while it is frozen, then the checkpoint and its manifest.
    type: str
    choices: [image, content, checkpoint]
    required: true
  close_connections:
    description:
      - With O(what=content), whether lasting connections that the container has opened itself may be closed where its address
        changes. Clients' connections to it are closed in any case then, and those of both kinds go on where the address stays.
    type: bool
    default: false
seealso:
  - module: livemigrate.criu.docker_checkpoint
  - module: livemigrate.criu.docker_restore
"""

EXAMPLES = r"""
---
- name: Send the files ahead while the container runs
  livemigrate.criu.checkpoint_transfer:
    session: "{{ opened.session }}"
    what: content
  become: true
"""

RETURN = r"""
bytes:
  description: Bytes that went through the channel.
  returned: success
  type: int
  sample: 1812345
seconds:
  description: How long that took.
  returned: success
  type: float
  sample: 0.42
failure:
  description: Why it failed, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: Short stable name.
      type: str
      sample: transfer_failed
    message:
      description: The same sentence as RV(ignore:msg).
      type: str
    details:
      description: Facts.
      type: dict
"""

import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module
from ansible_collections.livemigrate.criu.plugins.module_utils._session import step_call
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session


def _body(params: dict[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    session = Session(params["session"])
    if check_mode:
        return {"changed": True, "bytes": 0, "seconds": 0.0}
    return step_call.call(session, f"{params['what']}_sent", {"close_connections": params["close_connections"]})


def main() -> None:
    run_module(
        _body,
        argument_spec={
            "session": {"type": "str", "required": True},
            "what": {"type": "str", "required": True, "choices": ["image", "content", "checkpoint"]},
            "close_connections": {"type": "bool", "default": False},
        },
    )


if __name__ == "__main__":
    main()
