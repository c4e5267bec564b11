# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The last look at a container on its own host, before a session touches it: by the same rules as the preflight."""

from __future__ import annotations

import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _container_facts, _finding, _names
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._finding import ERROR, Case, Finding
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

# Registers the rules that are asked here.
from ansible_collections.livemigrate.criu.plugins.module_utils import _preflight  # isort: skip

Inspect = dict[str, t.Any]


def examine(
    engine: Engine, container: str, *, ignore_rules: t.Container[str] = (), volatile: bool = False
) -> tuple[Inspect, list[Finding]]:
    """A running container's inspect data, and why it cannot be moved, if so.

    :param ignore_rules: ids of rules that the user does not heed.
    :param volatile: whether to ask only what may have changed since it was asked last.
    :raises MigrationError: ``container_not_found``, ``container_not_running``.
    """
    inspect = engine.inspect(_names.container_name(container))
    TaskGroup.of_container(inspect)
    # Nobody waits for what nobody asks about: just before the freeze, which has patience of its own.
    patient = "exec_session_running" not in ignore_rules
    facts = _container_facts.gather(engine, inspect["Id"], sizes=False, lasting=False, patient=patient)
    rules = [rule for rule in _preflight.rules() if rule.severity == ERROR and (rule.volatile or not volatile)]
    found = _finding.findings(Case(container=facts if facts["found"] else None), ignore_rules, rules)
    return inspect, found


def require_movable(
    engine: Engine, container: str, *, ignore_rules: t.Container[str] = (), volatile: bool = False
) -> Inspect:
    """The inspect data of a container that can be moved as far as its own host can tell.

    :param ignore_rules: see :func:`examine`.
    :param volatile: see :func:`examine`.
    :raises MigrationError: ``cannot_move`` with all findings at once, or as :func:`examine`.
    """
    inspect, found = examine(engine, container, ignore_rules=ignore_rules, volatile=volatile)
    _finding.refuse(f"Container {container}", found)
    return inspect
