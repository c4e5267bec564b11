# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the code itself writes durably about a session: every call of Session.enter() and Session.decide(), by its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from tests.unit.helpers.support import MODULE_UTILS


class Write(NamedTuple):
    """A function of the code, as "_folder.file.function" or "_folder.file.Class.function", and the phase or decision that it
    writes."""

    function: str
    value: str


def functions() -> set[str]:
    """The names of all functions of the code."""
    return {name for name, _body in _functions()}


def writes() -> set[Write]:
    """All that the code writes."""
    return {Write(name, value) for name, body in _functions() for value in _values(body)}


def _functions() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(MODULE_UTILS.rglob("*.py")):
        file = ".".join(path.relative_to(MODULE_UTILS).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                yield f"{file}.{node.name}", node
            elif isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        yield f"{file}.{node.name}.{inner.name}", inner


def _values(body: ast.AST) -> Iterator[str]:
    for node in ast.walk(body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            value = node.args[0]
            if node.func.attr == "enter" and isinstance(value, ast.Constant):
                yield str(value.value)
            elif node.func.attr == "decide":
                # A name of the module _session, imported or with that before it.
                yield value.attr if isinstance(value, ast.Attribute) else ast.unparse(value)
