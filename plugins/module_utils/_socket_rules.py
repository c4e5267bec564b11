# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a move would break of what a container has open on the network, for the step before the freeze.

The rules themselves are in ``_rules_network.py``, where the preflight asks them too.
"""

from __future__ import annotations

import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _finding
from ansible_collections.livemigrate.criu.plugins.module_utils._finding import ERROR, WARNING, Case, Finding, Rule
from ansible_collections.livemigrate.criu.plugins.module_utils._rules_network import (
    RULES,
    Addresses,
    View,
    addresses_after,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._sockets import Socket, Sockets

__all__ = ["Addresses", "addresses_after", "refusals", "warnings"]


def refusals(
    sockets: Sockets,
    connections: t.Sequence[Socket],
    after: Addresses,
    *,
    close_connections: bool,
    ignore_rules: t.Container[str] = (),
) -> list[Finding]:
    """What forbids a move.

    :param connections: those to judge: what ``_sockets.lasting`` returns, so that a request under way does not count.
    :param close_connections: whether the user takes it that connections which cannot be kept are closed.
    :param ignore_rules: ids of rules that the user does not heed.
    """
    view = View(sockets, tuple(connections), after, close_connections)
    return _finding.findings(Case(network=view), ignore_rules, _of(ERROR))


def warnings(sockets: Sockets, after: Addresses, *, close_connections: bool) -> list[Finding]:
    """What a person should know before a move: connections that will be closed, those of clients first of all."""
    view = View(sockets, tuple(sockets.connections), after, close_connections)
    return _finding.findings(Case(network=view), (), _of(WARNING))


def _of(severity: str) -> list[Rule]:
    return [rule for rule in RULES if rule.severity == severity]
