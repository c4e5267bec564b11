# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The folders of the code: imports go one way, no file and no function is too long, each folder says what belongs there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.static import house

_FOLDERS_AT_MOST = 12
_LINES_OF_A_FILE = 400
_LINES_OF_A_FUNCTION = 60


def test_imports_go_one_way() -> None:
    files = house.read()
    assert {file.folder for file in files} == set(house.ORDER)
    assert len(house.ORDER) <= _FOLDERS_AT_MOST
    assert house.against_the_order(files) == []
    assert house.circle(files) == []


@pytest.fixture
def another_house(tmp_path: Path) -> Path:
    return Path(shutil.copytree(house.HOUSE, tmp_path / "module_utils"))


@pytest.mark.parametrize("line", ["from .._docker.engine import Engine", "from .._docker import engine"])
def test_an_import_that_is_turned_round_is_found(another_house: Path, line: str) -> None:
    file = another_house / "_host" / "tasks.py"
    file.write_text(f"{file.read_text()}\n\ndef _late() -> None:\n    {line}\n")
    assert house.against_the_order(house.read(another_house)) == ["_host/tasks -> _docker/engine"]


def test_a_circle_within_a_folder_is_found(another_house: Path) -> None:
    for one, other in (("boot", "swap"), ("swap", "boot")):
        file = another_house / "_host" / f"{one}.py"
        file.write_text(f"{file.read_text()}\nfrom . import {other}\n")
    assert set(house.circle(house.read(another_house))) == {"_host/boot", "_host/swap"}


def test_nothing_is_too_long() -> None:
    files = house.read()
    assert [f"{file.name}: {file.lines}" for file in files if file.lines > _LINES_OF_A_FILE] == []
    functions = [one for file in files for one in file.functions]
    assert len(functions) > 1000
    assert [f"{one.where}: {one.lines}" for one in functions if one.lines > _LINES_OF_A_FUNCTION] == []


def test_lines_of_code_are_counted_without_what_is_no_code(tmp_path: Path) -> None:
    text = '''"""A docstring
of two lines."""

# A comment.


def f(  # 1
    a,  # 2
):  # 3 is not counted: nothing of the syntax tree begins or ends here
    """Another."""
    return """a
    b"""
'''
    (tmp_path / "_base").mkdir()
    (tmp_path / "_base" / "one.py").write_text(text)
    (file,) = house.read(tmp_path)
    assert (file.lines, [one.lines for one in file.functions]) == (4, [4])


@pytest.mark.parametrize("folder", house.ORDER)
def test_each_folder_says_what_belongs_there_and_what_it_may_import(folder: str) -> None:
    text = (house.HOUSE / folder / "README.md").read_text()
    assert text.startswith(f"# {folder}\n")
    number = house.ORDER.index(folder)
    if number not in (0, len(house.ORDER) - 1):
        assert ", ".join(f"`{other}`" for other in house.ORDER[:number]) in " ".join(text.split())
