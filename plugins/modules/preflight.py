#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: preflight
short_description: Judge whether a container can move from one host to another
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Takes what M(livemigrate.criu.criu_check) tells of the source and of the destination, asks every rule about it, and prints all
    findings as one table, errors first. The same is returned as data.
  - Tells which engine would move the container, and how long it is expected to stand still.
  - Fails where there are findings of the severity O(fail_on), or worse. It runs on the control node and touches no host.
  - C(docs/rules.md) lists the rules.
extends_documentation_fragment:
  - livemigrate.criu.attributes.read_only
  - livemigrate.criu.attributes
options:
  source:
    description:
      - What M(livemigrate.criu.criu_check) returned on the source, with its option
        O(livemigrate.criu.criu_check#module:container).
    type: dict
    required: true
  destination:
    description:
      - What M(livemigrate.criu.criu_check) returned on the destination, with its option
        O(livemigrate.criu.criu_check#module:for_container).
    type: dict
    required: true
  engine:
    description:
      - V(runtime) dumps with runc and restores through the runtime shim; V(api) uses the checkpoint calls of the Docker Engine.
      - V(auto) takes V(runtime) where the shim is registered on the destination, else V(api) where that can work.
    type: str
    choices: [auto, runtime, api]
    default: auto
  fail_on:
    description:
      - The severity for which it fails. V(error) is what the move would fail on, or would lose. V(warning) fails for what it
        changes for somebody as well.
    type: str
    choices: [error, warning]
    default: error
  ignore_rules:
    description: Ids of rules whose findings do not count. They are listed all the same.
    type: list
    elements: str
    default: []
  bind_mounts:
    description: Host paths of bind mounts whose content moves.
    type: list
    elements: path
    default: []
  overwrite_data:
    description: Whether content on the destination that is not the container's own may be replaced.
    type: bool
    default: false
  close_connections:
    description: Whether connections that cannot be kept are closed.
    type: bool
    default: false
seealso:
  - module: livemigrate.criu.criu_check
"""

EXAMPLES = r"""
---
- name: Look at the source and the container
  livemigrate.criu.criu_check:
    container: mwp
  become: true
  register: source_facts

- name: Look at the destination
  livemigrate.criu.criu_check:
    for_container: "{{ source_facts.container }}"
  become: true
  delegate_to: beta
  register: destination_facts

- name: Stop where it cannot move, and where anybody would notice
  livemigrate.criu.preflight:
    source: "{{ source_facts }}"
    destination: "{{ destination_facts }}"
    fail_on: warning
    ignore_rules: [privileged]
"""

RETURN = r"""
---
engine:
  description: V(runtime) or V(api).
  returned: always
  type: str
  sample: runtime
engine_reason:
  description: Why that one.
  returned: always
  type: str
  sample: the runtime livemigrate is registered on the destination
findings:
  description: All that was found, errors first.
  returned: always
  type: list
  elements: dict
  contains:
    rule:
      description: Id of the rule.
      type: str
      sample: name_taken
    severity:
      description: V(error), V(warning) or V(info).
      type: str
      sample: error
    message:
      description: The fact.
      type: str
      sample: The destination already has a container mwp (status created).
    remedy:
      description: What to do about it.
      type: str
      sample: Remove or rename it there.
    variable:
      description: The variable of the role P(livemigrate.criu.migrate#role) that lifts it, empty where none does.
      type: str
      sample: ""
ignored:
  description: What rules of O(ignore_rules) found, in the same form.
  returned: always
  type: list
  elements: dict
  sample: []
prediction:
  description:
    - What the move would take. V(null) where there is no running container to judge.
  returned: always
  type: dict
  contains:
    gap_seconds:
      description: How long the container is expected to stand still.
      type: float
      sample: 0.8
    total_seconds:
      description: How long the whole move is expected to take.
      type: float
      sample: 9.1
    memory_bytes:
      description: What a checkpoint of it will hold, about.
      type: int
      sample: 4194304
    data_bytes:
      description:
        - What travels while it runs, that is its writable layer, its volumes, and the image where that is not on the destination.
      type: int
      sample: 20480
    compared_bytes:
      description:
        - How much of that both hosts read first, because the destination has files there already (from an earlier move, or such
          as may be overwritten). Only what differs is sent then; nobody knows beforehand how much that is.
      type: int
      sample: 0
    data_complete:
      description: Whether all of that could be counted in a second.
      type: bool
      sample: true
    link_bytes_per_second:
      description: What the network between the hosts is taken to do.
      type: int
      sample: 125000000
    link_source:
      description: What that rests on.
      type: str
      sample: device eth0 (1000 Mbit/s)
    dirty_bytes_per_second:
      description: What the container writes into its memory, V(null) where nothing can tell.
      type: int
      sample: null
    dirty_reason:
      description: Why it is not known.
      type: str
      sample: the source's kernel tracks no dirty pages (CONFIG_MEM_SOFT_DIRTY)
table:
  description: The table as it was printed.
  returned: always
  type: str
  sample: "error  name_taken  The destination already has a container mwp (status created)."
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.judge import ARGUMENTS


def main() -> None:
    # Only reached where somebody runs it as a module of a host: the work is done by the action plugin of this name.
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    module.fail_json(msg="livemigrate.criu.preflight runs on the control node, through its action plugin.")


if __name__ == "__main__":
    main()
