# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether a container can go from one host to the other: all rules over the facts of both hosts and of the container, at once.

The rules are in ``_rules_*.py`` by topic; this puts their case together, chooses the engine, and sorts what comes out.
"""

from __future__ import annotations

import difflib
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _finding,
    _prediction,
    _rules_container,
    _rules_destination,
    _rules_hosts,
    _rules_mounts,
    _rules_network,
    _rules_processes,
    _rules_room,
    _rules_surroundings,
    _rules_surroundings_network,
    _shim,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._finding import (
    ERROR,
    SEVERITIES,
    WARNING,
    Case,
    Facts,
    Finding,
    Rule,
    Settings,
)

# In this order the rules of one severity are told: who reads them begins with the hosts.
TOPICS = {
    "The hosts": _rules_hosts,
    "The container, as it was created": _rules_container,
    "Its mounts": _rules_mounts,
    "Its processes": _rules_processes,
    "Its processes, and what is not their memory": _rules_surroundings,
    "Its network": _rules_network,
    "Its network, as programs have changed it": _rules_surroundings_network,
    "The destination": _rules_destination,
    "Room": _rules_room,
}
# The options of the module preflight, and of the action plugin that does its work.
ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "source": {"type": "dict", "required": True},
    "destination": {"type": "dict", "required": True},
    "engine": {"type": "str", "choices": ["auto", "runtime", "api"], "default": "auto"},
    "fail_on": {"type": "str", "choices": ["error", "warning"], "default": "error"},
    "ignore_rules": {"type": "list", "elements": "str", "default": []},
    "bind_mounts": {"type": "list", "elements": "path", "default": []},
    "overwrite_data": {"type": "bool", "default": False},
    "close_connections": {"type": "bool", "default": False},
}


class Verdict(t.NamedTuple):
    """What came out."""

    #: ``api`` or ``runtime``, see docs/decisions.md
    engine: str
    #: why that one
    engine_reason: str
    #: all that was found and is heeded, errors first
    findings: list[Finding]
    #: what was found by rules that the user does not heed
    ignored: list[Finding]
    #: what a move would take; None where there is no running container to judge
    prediction: dict[str, t.Any] | None

    def failing(self, fail_on: str) -> list[Finding]:
        """The findings for which the move is not begun.

        :param fail_on: ``error`` or ``warning``.
        """
        limit = SEVERITIES.index(fail_on)
        return [one for one in self.findings if SEVERITIES.index(one.severity) <= limit]


def rules() -> list[Rule]:
    """Every rule there is, by topic."""
    modules = [module.__name__ for module in TOPICS.values()]
    return sorted(_finding.RULES.values(), key=lambda rule: modules.index(rule.judge.__module__))


def require_known(ids: t.Iterable[str]) -> None:
    """Refuse ids of rules that do not exist: a slip of the pen would heed what is meant to be ignored.

    :raises MigrationError: ``rule_unknown``.
    """
    for wanted in ids:
        if wanted not in _finding.RULES and wanted != _finding.SURROUNDINGS_DIFFER:
            close = difflib.get_close_matches(wanted, _finding.RULES, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise MigrationError("rule_unknown", f"There is no rule {wanted!r} to be ignored (docs/rules.md).{hint}")


def case_of(source: Facts, destination: Facts, settings: Settings) -> Case:
    """The case out of what criu_check told on both hosts."""
    asked = source.get("container") or {}
    container = asked if asked.get("found") else None
    there = destination.get("for_container") if container else None
    view = None
    if container is not None and there is not None:
        view = _rules_network.view(container, there, close_connections=settings.close_connections)
    return Case(source, destination, container, there, view, settings)


def choose_engine(case: Case, wanted: str = "auto") -> tuple[str, str]:
    """Which engine moves the container, and why.

    :param wanted: ``api``, ``runtime`` or ``auto``.
    """
    if wanted != "auto":
        return wanted, "asked for"
    destination = case.destination or {}
    if (destination["docker"].get("shim") or {}).get("registered"):
        return "runtime", f"the runtime {_shim.RUNTIME} is registered on the destination"
    as_api = case._replace(settings=case.settings._replace(engine="api"))
    of_api = [rule for rule in rules() if rule.id in ("experimental_on", "engine_restores")]
    if not _finding.findings(as_api, (), of_api):
        return "api", f"the destination has no runtime {_shim.RUNTIME}, but its engine can restore"
    return "runtime", f"the destination's engine cannot restore by itself; the runtime {_shim.RUNTIME} is what it needs"


def judge(
    source: Facts,
    destination: Facts,
    engine: str = "auto",
    *,
    settings: Settings | None = None,
    ignore: t.Collection[str] = (),
    judged_at: float | None = None,
) -> Verdict:
    """The engine, and all findings about two hosts and a container, as criu_check tells of them.

    :param engine: ``api``, ``runtime`` or ``auto``; the one in the settings does not count.
    :param ignore: ids of rules that the user does not heed.
    :param judged_at: the wall clock of the control node, on which the hosts were asked.
    :raises MigrationError: ``rule_unknown``.
    """
    require_known(ignore)
    case = case_of(source, destination, settings or Settings())._replace(judged_at=judged_at)
    chosen, reason = choose_engine(case, engine)
    case = case._replace(settings=case.settings._replace(engine=chosen))
    found = _finding.findings(case, (), rules())
    prediction = None
    if case.container is not None and case.container.get("memory"):
        task = _prediction.task_seconds(source, destination, judged_at)
        prediction = _prediction.predict(source, case.container, case.there, chosen, task)
    return Verdict(
        chosen,
        reason,
        [one for one in found if one.rule not in ignore],
        [one for one in found if one.rule in ignore],
        prediction,
    )


__all__ = [
    "ARGUMENTS",
    "ERROR",
    "TOPICS",
    "WARNING",
    "Verdict",
    "case_of",
    "choose_engine",
    "judge",
    "require_known",
    "rules",
]
