# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The seam: the machine of a migration knows nothing of a container, neither by an import nor by a word."""

from __future__ import annotations

import ast
import io
import shutil
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.static import house

_MACHINE = ("_session", "_channel", "_migration")
_BELOW_THE_SEAM = ("_docker/", "_engines/", "_subjects/container/")
_WORD = "container"

# Where the word stands all the same: file, and the line without the blanks around it.
_ALLOWED = {
    # Records of the released version do not say what they are about.
    ("_session/session", 'FIRST_KIND = "container"'),
    # What a host may be in, not what is moved.
    (
        "_session/watchdog",
        "# boot). Unlike /proc/uptime no container manager replaces that, and reading it starts no process.",
    ),
}
# Of typing.
_TYPE = "t.Container["


def _machine(root: Path) -> Iterator[tuple[str, str]]:
    """The files of the machine: name and text."""
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).with_suffix("").as_posix()
        # The Protocols are what the machine sees of the other side; by_kind.py is the one door in the wall.
        if name.startswith(tuple(f"{folder}/" for folder in _MACHINE)):
            yield name, path.read_text(encoding="utf-8")


def imports_through_the_seam(root: Path) -> list[str]:
    return [
        f"{name} -> {other}"
        for name, text in _machine(root)
        for other in sorted(house.imports(root, name, ast.parse(text)))
        if f"{other}/".startswith(_BELOW_THE_SEAM)
    ]


def words_of_a_container(root: Path) -> list[tuple[str, str]]:
    """Lines with the word: in names, strings, docstrings and comments."""
    found = set()
    for name, text in _machine(root):
        lines = text.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            for number, part in enumerate(token.string.lower().splitlines(), token.start[0]):
                if _WORD in part and _WORD in lines[number - 1].replace(_TYPE, "").lower():
                    found.add((name, lines[number - 1].strip()))
    return sorted(found)


def test_the_machine_imports_nothing_of_a_container() -> None:
    assert len(list(_machine(house.HOUSE))) > 25
    assert imports_through_the_seam(house.HOUSE) == []


def test_the_machine_has_no_word_for_a_container() -> None:
    assert set(words_of_a_container(house.HOUSE)) == _ALLOWED


@pytest.fixture
def another_house(tmp_path: Path) -> Path:
    return Path(shutil.copytree(house.HOUSE, tmp_path / "module_utils"))


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("from .._docker.engine import Engine", "_docker/engine"),
        ("from .._engines import by_name as engines", "_engines/by_name"),
        ("from .._subjects.container import old_copy", "_subjects/container/old_copy"),
        ("from .._subjects.container.kind import Containers", "_subjects/container/kind"),
    ],
)
@pytest.mark.parametrize("file", ["_migration/freeze", "_session/stories", "_channel/server"])
def test_an_import_that_is_put_back_is_found(file: str, line: str, reported: str, another_house: Path) -> None:
    path = another_house / f"{file}.py"
    path.write_text(f"{path.read_text()}\n\ndef _late() -> None:\n    {line}\n")
    assert imports_through_the_seam(another_house) == [f"{file} -> {reported}"]


@pytest.mark.parametrize(
    "line",
    [
        '_KEY = "container_id"',
        "container = 1",
        "# Of a container.",
        '_TEXT = """a\nContainer"""',
        "if_container = None",
    ],
)
def test_a_word_of_containers_that_is_put_back_is_found(line: str, another_house: Path) -> None:
    path = another_house / "_migration" / "freeze.py"
    path.write_text(f"{path.read_text()}\n{line}\n")
    assert set(words_of_a_container(another_house)) - _ALLOWED == {("_migration/freeze", line.splitlines()[-1])}
