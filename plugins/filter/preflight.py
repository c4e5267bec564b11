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
  - Takes what M(livemigrate.criu.criu_check) tells of the source and of the destination and returns what stands in the way of
    a migration, all of it at once. An empty list means that the hosts are fit.
options:
  _input:
    description: What M(livemigrate.criu.criu_check) returned on the source.
    type: dict
    required: true
  destination:
    description: What M(livemigrate.criu.criu_check) returned on the destination.
    type: dict
    required: true
positional: destination
"""

EXAMPLES = r"""
- name: Stop where the hosts are not fit
  ansible.builtin.assert:
    that: findings | length == 0
    fail_msg: "{{ findings | map(attribute='message') | join(' ') }}"
  vars:
    findings: "{{ source_facts | livemigrate.criu.preflight(destination_facts) }}"
"""

RETURN = r"""
_value:
  description: The findings, each with V(rule), V(message) and V(remedy).
  type: list
  elements: dict
"""

import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge


def preflight(source: t.Mapping[str, t.Any], destination: t.Mapping[str, t.Any]) -> list[dict[str, str]]:
    return [finding._asdict() for finding in judge(source, destination)]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"preflight": preflight}
