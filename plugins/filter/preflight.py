# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight
short_description: Judge whether containers can move from one host to another
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Takes what M(livemigrate.criu.criu_check) tells of the source and of the destination, and returns which engine would move a
    container and what stands in the way of that, all of it at once.
options:
  _input:
    description: What M(livemigrate.criu.criu_check) returned on the source.
    type: dict
    required: true
  destination:
    description: What M(livemigrate.criu.criu_check) returned on the destination.
    type: dict
    required: true
  engine:
    description:
      - V(runtime) dumps with runc and restores through the runtime shim; V(api) uses the checkpoint calls of the Docker Engine.
      - V(auto) takes V(runtime) where the shim is registered on the destination, else V(api) where that can work.
    type: str
    choices: [auto, runtime, api]
    default: auto
positional: destination, engine
"""

EXAMPLES = r"""
- name: Stop where the hosts are not fit
  ansible.builtin.assert:
    that: verdict.findings | length == 0
    fail_msg: "{{ verdict.findings | map(attribute='message') | join(' ') }}"
  vars:
    verdict: "{{ source_facts | livemigrate.criu.preflight(destination_facts) }}"
"""

RETURN = r"""
_value:
  description:
    - V(engine), V(runtime) or V(api), and V(engine_reason), why that one.
    - V(findings), a list of what stands in the way, each with V(rule), V(message) and V(remedy). Empty where the hosts are fit.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge


def preflight(
    source: t.Mapping[str, t.Any], destination: t.Mapping[str, t.Any], engine: str = "auto"
) -> dict[str, t.Any]:
    if engine not in ("auto", "runtime", "api"):
        raise AnsibleFilterError(f"engine is {engine!r}; it has to be auto, runtime or api")
    verdict = judge(source, destination, engine)
    return dict(verdict._asdict(), findings=[finding._asdict() for finding in verdict.findings])


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"preflight": preflight}
