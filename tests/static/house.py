# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The folders of plugins/module_utils, their lines of code, and which folder imports from which.

    .venv/bin/python -m tests.static.house

A line of code is one that holds neither a comment, nor a docstring, nor nothing.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).resolve().parents[2] / "plugins" / "module_utils"

# Each folder may import from those before it.
ORDER = (
    "_base",
    "_host",
    "_network",
    "_criu",
    "_docker",
    "_session",
    "_channel",
    "_surroundings",
    "_preflight",
    "_engines",
    "_subjects",
    "_migration",
)


class Function(NamedTuple):
    """A function, with the methods of classes."""

    where: str
    lines: int
    """Of code."""


class File(NamedTuple):
    """A file of the house."""

    name: str
    """``_host/tasks``."""
    lines: int
    """Of code."""
    functions: tuple[Function, ...]
    imports: frozenset[str]
    """Names of files."""

    @property
    def folder(self) -> str:
        return self.name.partition("/")[0]


def read(house: Path = HOUSE) -> list[File]:
    """All files, by name."""
    return [_read(house, path) for path in sorted(house.rglob("*.py"))]


def _read(house: Path, path: Path) -> File:
    name = path.relative_to(house).with_suffix("").as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    code = _lines_of_code(tree)
    functions = tuple(
        Function(f"{name}.py:{node.lineno} {node.name}", sum(node.lineno <= line <= _end(node) for line in code))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    )
    return File(name, len(code), functions, frozenset(imports(house, name, tree)))


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _lines_of_code(tree: ast.Module) -> set[int]:
    """The lines on which something of the syntax tree begins or ends, docstrings apart."""
    texts = {
        id(node.body[0])
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None
    }
    found: set[int] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in texts:
            continue
        if isinstance(node, (ast.stmt, ast.expr, ast.arg, ast.alias, ast.keyword, ast.ExceptHandler)):
            found.update((node.lineno, node.end_lineno or node.lineno))
        waiting += ast.iter_child_nodes(node)
    return found


def imports(house: Path, name: str, tree: ast.Module) -> set[str]:
    """The files of the house that one imports, anywhere in it.

    :param name: its own, ``_host/tasks``.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            origin = "/".join([*name.split("/")[: -node.level], *(node.module or "").split(".")]).rstrip("/")
            if (house / f"{origin}.py").exists():
                found.add(origin)
            else:
                found.update(f"{origin}/{alias.name}" for alias in node.names)
    return found


def arrows(files: list[File]) -> dict[str, dict[str, list[str]]]:
    """From folder to folder, the imports that make it so: ``_engines/api -> _docker/engine``."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        for other in sorted(file.imports):
            folder = other.partition("/")[0]
            if folder != file.folder:
                found[file.folder][folder].append(f"{file.name} -> {other}")
    return {folder: dict(others) for folder, others in found.items()}


def against_the_order(files: list[File]) -> list[str]:
    """Imports from a folder that comes later, or that is none of the house's."""
    place = {folder: number for number, folder in enumerate(ORDER)}
    return [
        text
        for folder, others in arrows(files).items()
        for other, texts in others.items()
        if place.get(other, len(place)) > place.get(folder, -1)
        for text in texts
    ]


def circle(files: list[File]) -> list[str]:
    """Files that import each other in a circle; none where there is none."""
    imports = {file.name: file.imports for file in files}
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(imports.get(name, ())):
            found = walk(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in imports if (found := walk(name, []))), [])


def main() -> None:
    """Print it."""
    files = read()
    drawn = arrows(files)
    for folder in ORDER:
        inside = [file for file in files if file.folder == folder]
        others = [other for other in ORDER if other in drawn.get(folder, {})]
        print(f"{folder:14} {len(inside):3} files {sum(file.lines for file in inside):5} lines  <- {' '.join(others)}")
    print(f"{'':14} {len(files):3} files {sum(file.lines for file in files):5} lines")
    print("longest files:")
    for file in sorted(files, key=lambda one: -one.lines)[:5]:
        print(f"  {file.lines:4} {file.name}.py")
    print("longest functions:")
    for function in sorted((one for file in files for one in file.functions), key=lambda one: -one.lines)[:5]:
        print(f"  {function.lines:4} {function.where}")


if __name__ == "__main__":
    main()
