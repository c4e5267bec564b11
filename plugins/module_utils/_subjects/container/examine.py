# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The last look at a container on its own host, before a session touches it: by the same rules as the preflight."""

from __future__ import annotations

import typing as t

from ..._docker.engine import Engine
from ..._host.tasks import TaskGroup
from ..._preflight import finding
from ..._preflight.facts import container as facts_of_container
from ..._preflight.finding import ERROR, Case, Finding

# Registers the rules that are asked here.
from ..._preflight import judge as preflight_judge  # isort: skip

Inspect = t.Mapping[str, t.Any]


def examine(
    engine: Engine, inspect: Inspect, *, ignore_rules: t.Container[str] = (), volatile: bool = False
) -> list[Finding]:
    """The findings why a running container cannot be moved; empty where it can.

    :param inspect: its inspect data, read just now.
    :param ignore_rules: ids of rules that the user ignores.
    :param volatile: whether to ask only what may have changed since it was asked last.
    :raises MigrationError: ``container_not_running``.
    """
    TaskGroup.of_container(inspect)
    # Nobody waits for what nobody asks about: just before the freeze, which has patience of its own.
    patient = "exec_session_running" not in ignore_rules
    facts = facts_of_container.of_inspect(engine, inspect, sizes=False, lasting=False, patient=patient)
    rules = [rule for rule in preflight_judge.rules() if rule.severity == ERROR and (rule.volatile or not volatile)]
    return finding.findings(Case(container=facts), ignore_rules, rules)


def require_movable(
    engine: Engine, inspect: Inspect, *, called: str, ignore_rules: t.Container[str] = (), volatile: bool = False
) -> None:
    """Refuse a container that cannot be moved, as far as its own host can tell.

    :param inspect: see :func:`examine`.
    :param called: what the message calls it.
    :param ignore_rules: see :func:`examine`.
    :param volatile: see :func:`examine`.
    :raises MigrationError: ``cannot_move`` with all findings at once, or as :func:`examine`.
    """
    finding.refuse(f"Container {called}", examine(engine, inspect, ignore_rules=ignore_rules, volatile=volatile))
