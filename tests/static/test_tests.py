# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test of a source file is found by its name: that of ``_host/tasks.py`` is ``tests/unit/host/test_tasks.py``.

A source file that is tested elsewhere is in the list below, with where that is and why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.static import house

TESTS = house.HOUSE.parents[1] / "tests" / "unit"

_RULES = "preflight/test_rules.py", "the rules are in one table of cases, each with and without its finding"
_NETWORK = (
    "surroundings/test_network.py",
    "what these files do together is seen only between two real network namespaces",
)
_MOVED = "subjects/container/test_original.py", "a source is tested with what it moves"

# Source file: its test below tests/unit, and why it has none of its name.
ELSEWHERE = {
    "_channel/login": ("channel/test_client.py", "it needs the host with a real SSH daemon"),
    "_docker/engine": (
        "subjects/container/test_keeper.py",
        "it is docker-py: most of it is seen on the lab's hosts alone",
    ),
    "_host/memory_tree": ("surroundings/test_memory_files.py", "it reads what is set there, in one mount namespace"),
    "_host/process_sockets": ("surroundings/test_sockets.py", "it lends the sockets on which options are set there"),
    "_host/unix_peers": ("surroundings/test_socket_peers.py", "it needs the processes of other users"),
    "_migration/opening": ("session/test_step_call.py", "it is called in the agent, which is a program"),
    "_migration/source": _MOVED,
    "_migration/steps": ("session/test_step_call.py", "it is a table of steps, which the agent is asked for"),
    "_network/match": _NETWORK,
    "_network/plan": _NETWORK,
    "_network/state": _NETWORK,
    "_preflight/facts/network": _NETWORK,
    "_preflight/rules/destination": _RULES,
    "_preflight/rules/destination_data": _RULES,
    "_preflight/rules/destination_network": _RULES,
    "_preflight/rules/engines": _RULES,
    "_preflight/rules/hosts": _RULES,
    "_preflight/rules/kernels": _RULES,
    "_preflight/rules/mounts": _RULES,
    "_preflight/rules/network": ("network/test_sockets.py", "its rules are about the sockets that are read there"),
    "_preflight/rules/processes": _RULES,
    "_preflight/rules/room": _RULES,
    "_preflight/rules/surroundings": _RULES,
    "_preflight/rules/surroundings_network": _RULES,
    "_session/phases": ("session/test_session.py", "it is a table: a session goes by it"),
    "_subjects/subject": ("subjects/test_by_kind.py", "it holds no code, only what is asked of each kind"),
    "_surroundings/side": ("surroundings/test_surroundings.py", "it is what every topic is asked with"),
    "_surroundings/socket_options": ("surroundings/test_sockets.py", "it is a table, each row of which is set there"),
}


def place_of_test(name: str) -> str:
    """The path of a source file's test below ``tests/unit``.

    :param name: ``_host/tasks``.
    """
    *folders, file = name.lstrip("_").split("/")
    return "/".join([*folders, f"test_{file}.py"])


def without_a_test(source: Path, tests: Path) -> set[str]:
    """The source files that have no test of their name."""
    names = {path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.py")}
    return {name for name in names if not name.endswith("__init__") and not (tests / place_of_test(name)).exists()}


def test_every_source_file_has_a_test_of_its_name_or_is_in_the_list() -> None:
    """Whoever adds a source file adds its test; whoever adds a test takes its source file out of the list."""
    assert without_a_test(house.HOUSE, TESTS) == set(ELSEWHERE)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_list_says_where_the_test_is(name: str) -> None:
    place, why = ELSEWHERE[name]
    assert (TESTS / place).is_file()
    assert why


def test_a_source_file_without_a_test_is_found(tmp_path: Path) -> None:
    source, tests = tmp_path / "module_utils", tmp_path / "unit"
    for path in (source / "_host/one.py", source / "_docker/spec/one.py", source / "_host/__init__.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert without_a_test(source, tests) == {"_host/one", "_docker/spec/one"}
    # A test of that name in another folder is one of another source file.
    (tests / "host").mkdir(parents=True)
    (tests / "host" / "test_one.py").touch()
    assert without_a_test(source, tests) == {"_docker/spec/one"}
