# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a rule is, what it says, and the list of all of them.

A rule is a small pure function over a :class:`Case`. The decorator :func:`rule` gives it an id (its name), a severity, a
title and where it comes from; ``_preflight/rules/`` holds the rules by topic, ``_preflight/judge.py`` evaluates them, and
``docs/rules.md`` is written from this list.
"""

from __future__ import annotations

import typing as t

from .._base import printable
from .._base.errors import MigrationError

Facts = t.Mapping[str, t.Any]

ERROR = "error"
WARNING = "warning"
INFO = "info"
SEVERITIES = (ERROR, WARNING, INFO)


class _Finding(t.NamedTuple):
    #: id of the rule: a stable name in snake_case
    rule: str
    #: the fact, one sentence
    message: str
    #: what to do about it, one sentence
    remedy: str
    #: ``error`` (the move would fail, or lose something), ``warning`` (it changes something for somebody), ``info``
    severity: str = ERROR
    #: the variable of the role migrate that lifts it, where one does
    variable: str = ""


class Finding(_Finding):
    """Something a person should know. Never holds a secret: no environment, no arguments, no label values.

    Names that a container or the other host has given are made visible here, whoever shows them later (see
    ``_base/printable.py``).
    """

    __slots__ = ()

    def __new__(cls, rule: str, message: str, remedy: str, severity: str = ERROR, variable: str = "") -> Finding:
        """Both sentences are one line each: a line end in them is not ours."""
        return super().__new__(cls, rule, printable.text(message), printable.text(remedy), severity, variable)

    @property
    def code(self) -> str:
        """The same as ``rule``, by the name that errors have for it."""
        return self.rule


class Settings(t.NamedTuple):
    """What the user has decided, as far as rules ask."""

    #: ``api`` or ``runtime``
    engine: str = "runtime"
    #: host paths of bind mounts whose content moves
    bind_mounts: tuple[str, ...] = ()
    #: whether content on the destination that is not the container's own may be replaced
    overwrite_data: bool = False
    #: whether connections that cannot be kept are closed
    close_connections: bool = False


class Case(t.NamedTuple):
    """What a rule judges. Whatever is not known is None, and rules that need it are left out."""

    #: what criu_check tells of the source
    source: Facts | None = None
    #: what criu_check tells of the destination
    destination: Facts | None = None
    #: the container, see ``_preflight/facts/container.py``; or just ``{"inspect": ...}``
    container: Facts | None = None
    #: what the destination has for it, see ``_preflight/facts/destination.py``
    there: Facts | None = None
    #: what it has open on the network and what becomes of its addresses: ``View`` of ``_preflight/rules/network.py``
    network: t.Any = None
    settings: Settings = Settings()
    #: the control node's wall clock when both hosts had answered
    judged_at: float | None = None

    @property
    def inspect(self) -> Facts:
        """The container's inspect data, whole or as far as rules read them."""
        found: Facts = (self.container or {}).get("inspect") or {}
        return found

    def hosts(self) -> t.Iterator[tuple[str, Facts]]:
        """Both hosts, for rules that hold for each by itself."""
        for where, facts in (("source", self.source), ("destination", self.destination)):
            if facts is not None:
                yield where, facts

    def both_hosts(self) -> tuple[Facts, Facts]:
        """Source and destination, for rules that compare them."""
        if self.source is None or self.destination is None:
            raise ValueError("a rule about both hosts was asked without them")
        return self.source, self.destination

    def both_sides(self) -> tuple[Facts, Facts]:
        """The container, and what the destination has for it."""
        if self.container is None or self.there is None:
            raise ValueError("a rule about the destination of a container was asked without them")
        return self.container, self.there


#: message and remedy
Told = tuple[str, str]
Judge = t.Callable[[Case], t.Iterator[Told]]

# What a rule may need: fields of Case; `processes` and `mounts` are parts of the container that cost more to look at than its
# inspect data.
NEEDS = ("source", "destination", "container", "processes", "there", "network")


class Rule(t.NamedTuple):
    """A rule with what there is to say about it."""

    id: str
    severity: str
    #: what it sees, for the list: no full sentence
    title: str
    #: what it rests on: an issue, a document, or `run`
    source: str
    #: see NEEDS
    needs: tuple[str, ...]
    judge: Judge
    #: the variable that lifts it
    variable: str = ""
    #: of which engine alone it holds; empty for both
    engine: str = ""
    #: whether it may change from one moment to the next, so that it is asked again just before the freeze
    volatile: bool = False

    def findings(self, case: Case) -> t.Iterator[Finding]:
        """What it says of a case; nothing where it lacks what it needs."""
        if self.engine in ("", case.settings.engine) and all(_known(case, need) for need in self.needs):
            for message, remedy in self.judge(case):
                yield Finding(self.id, message, remedy, self.severity, self.variable)


def _known(case: Case, need: str) -> bool:
    if need == "processes":
        return (case.container or {}).get("processes") is not None
    return getattr(case, need) is not None


RULES: dict[str, Rule] = {}

#: what is found only while the copy is held, so that it is no rule of the preflight; it can be ignored like one
SURROUNDINGS_DIFFER = "surroundings_differ"


def rule(
    severity: str,
    title: str,
    source: str,
    *needs: str,
    variable: str = "",
    engine: str = "",
    volatile: bool = False,
) -> t.Callable[[Judge], Judge]:
    """Make a rule out of a function that yields a message and a remedy for all that it finds.

    :raises ValueError: a severity or a need that does not exist, or an id that is taken.
    """

    def register(judge: Judge) -> Judge:
        if severity not in SEVERITIES or not needs or set(needs) - set(NEEDS) or judge.__name__ in RULES:
            raise ValueError(f"rule {judge.__name__}: {severity}, {needs}")
        made = Rule(judge.__name__, severity, title, source, needs, judge, variable, engine, volatile)
        RULES[made.id] = made
        return judge

    return register


def findings(case: Case, ignore: t.Container[str] = (), rules: t.Iterable[Rule] | None = None) -> list[Finding]:
    """All that rules say of a case, errors first and each severity in the order of the rules.

    :param ignore: ids of rules that are not asked.
    :param rules: those to ask; all without it.
    """
    asked = RULES.values() if rules is None else rules
    found = [one for each in asked if each.id not in ignore for one in each.findings(case)]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def refuse(subject: str, found: t.Sequence[Finding]) -> None:
    """Refuse to move something, if there is anything that stands in the way.

    :param subject: with a capital letter, as ``Container web``.
    :raises MigrationError: ``cannot_move`` with all findings at once.
    """
    if found:
        text = " ".join(f"[{one.rule}] {one.message} {one.remedy}" for one in found)
        raise MigrationError(
            "cannot_move",
            f"{subject} cannot be moved: {text}",
            # `code` is what they had before rules had ids of their own.
            findings=[{**one._asdict(), "code": one.rule} for one in found],
        )
