# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether a container can go from one host to the other: all rules over the facts of both hosts and of the container, at once.

The rules are in ``rules/`` by topic; this puts their case together, chooses the engine, and sorts what comes out.
"""

from __future__ import annotations

import difflib
import typing as t

from .._base.errors import MigrationError
from .._docker import shim
from . import finding
from . import prediction as predictions
from .finding import ERROR, SEVERITIES, WARNING, Case, Facts, Finding, Rule, Settings
from .rules import container as rules_container
from .rules import destination as rules_destination
from .rules import destination_data as rules_destination_data
from .rules import destination_network as rules_destination_network
from .rules import engines as rules_engines
from .rules import hosts as rules_hosts
from .rules import kernels as rules_kernels
from .rules import mounts as rules_mounts
from .rules import network as rules_network
from .rules import processes as rules_processes
from .rules import room as rules_room
from .rules import surroundings as rules_surroundings
from .rules import surroundings_network as rules_surroundings_network

# The order in which the findings of one severity are shown: it begins with the hosts.
TOPICS = {
    "The hosts": rules_hosts,
    "Their engines": rules_engines,
    "Their kernels, processors and CRIU": rules_kernels,
    "The container, as it was created": rules_container,
    "Its mounts": rules_mounts,
    "Its processes": rules_processes,
    "Its processes, and what is not their memory": rules_surroundings,
    "Its network": rules_network,
    "Its network, as programs have changed it": rules_surroundings_network,
    "The destination": rules_destination,
    "Its networks, addresses and ports": rules_destination_network,
    "Its data": rules_destination_data,
    "Room": rules_room,
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

    #: ``api`` or ``runtime``, see docs/decisions/0023
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
    return sorted(finding.RULES.values(), key=lambda rule: modules.index(rule.judge.__module__))


def require_known(ids: t.Iterable[str]) -> None:
    """Refuse ids of rules that do not exist: a slip of the pen would heed what is meant to be ignored.

    :raises MigrationError: ``rule_unknown``.
    """
    for wanted in ids:
        if wanted not in finding.RULES and wanted != finding.SURROUNDINGS_DIFFER:
            close = difflib.get_close_matches(wanted, finding.RULES, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise MigrationError("rule_unknown", f"There is no rule {wanted!r} to be ignored (docs/rules.md).{hint}")


def case_of(source: Facts, destination: Facts, settings: Settings) -> Case:
    """The case, from the facts of criu_check on both hosts."""
    asked = source.get("container") or {}
    container = asked if asked.get("found") else None
    there = destination.get("for_container") if container else None
    view = None
    if container is not None and there is not None:
        view = rules_network.view(container, there, close_connections=settings.close_connections)
    return Case(source, destination, container, there, view, settings)


def choose_engine(case: Case, wanted: str = "auto") -> tuple[str, str]:
    """Which engine moves the container, and why.

    :param wanted: ``api``, ``runtime`` or ``auto``.
    """
    if wanted != "auto":
        return wanted, "asked for"
    destination = case.destination or {}
    if (destination["docker"].get("shim") or {}).get("registered"):
        return "runtime", f"the runtime {shim.RUNTIME} is registered on the destination"
    as_api = case._replace(settings=case.settings._replace(engine="api"))
    of_api = [rule for rule in rules() if rule.id in ("experimental_on", "engine_restores")]
    if not finding.findings(as_api, (), of_api):
        return "api", f"the destination has no runtime {shim.RUNTIME}, but its engine can restore"
    return "runtime", f"the destination's engine cannot restore by itself; the runtime {shim.RUNTIME} is what it needs"


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
    found = finding.findings(case, (), rules())
    prediction = None
    if case.container is not None and case.container.get("memory"):
        task = predictions.task_seconds(source, destination, judged_at)
        prediction = predictions.predict(source, case.container, case.there, chosen, task)
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
