# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent: complete, isolated, and running under every Python that a managed host may have."""

from __future__ import annotations

import ast
import io
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code, agent_package
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.static import house
from tests.unit.helpers.support import MODULE_UTILS, PACKAGE, PLUGINS, ROOT

PARTS = agent_code.needed(agent_code.of_directory(str(MODULE_UTILS)))
FOLDERS = agent_code.folders_of(agent_code.of_directory(str(MODULE_UTILS)))

MakeSession = Callable[..., Session]

# The oldest Python of a managed host.
FLOOR = (3, 9)


def _pythons() -> dict[tuple[int, ...], str]:
    """The interpreters of this machine that a managed host could have, oldest first; one for each minor version."""
    candidates = [Path(sys.executable)]
    for directory in (
        *os.environ["PATH"].split(":"),
        *(str(path) for path in Path.home().glob(".pyenv/versions/*/bin")),
    ):
        if "shims" not in directory:
            candidates += [
                path for path in Path(directory).glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name)
            ]
    found: dict[tuple[int, ...], str] = {}
    for path in candidates:
        code = "import sys; print(*sys.version_info[:2])"
        done = subprocess.run([str(path), "-I", "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            version = tuple(map(int, done.stdout.split()))
            if version >= FLOOR:
                found.setdefault(version, str(path))
    return dict(sorted(found.items()))


PYTHONS = _pythons()
oldest_and_newest = pytest.mark.parametrize(
    "python",
    list(dict.fromkeys((next(iter(PYTHONS.values())), list(PYTHONS.values())[-1]))),
    ids=list(dict.fromkeys(f"{version[0]}.{version[1]}" for version in (next(iter(PYTHONS)), list(PYTHONS)[-1]))),
)


def _name(path: Path) -> str:
    """``_host.tasks`` for the file of that util."""
    return ".".join(path.relative_to(MODULE_UTILS).with_suffix("").parts)


def _file(name: str) -> Path:
    return MODULE_UTILS.joinpath(*name.split(".")).with_suffix(".py")


def _imports(path: Path) -> set[str]:
    """The collection's own utils that a file imports anywhere in it, but for those that only type checkers see."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    if MODULE_UTILS in path.parents:
        return {name.replace("/", ".") for name in house.imports(MODULE_UTILS, _name(path).replace(".", "/"), tree)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            origin = node.module.removeprefix(PACKAGE).lstrip(".")
            found.update([origin] if _file(origin).exists() else [f"{origin}.{alias.name}" for alias in node.names])
    return found


def _closure(start: set[str]) -> set[str]:
    seen: set[str] = set()
    while start - seen:
        part = (start - seen).pop()
        seen.add(part)
        start |= _imports(_file(part))
    return seen


# -- what is in it ---------------------------------------------------------------------------------------------------


def test_it_holds_all_that_it_imports_and_nothing_else() -> None:
    expected = _closure({"_migration.agent"})
    assert set(PARTS) == expected
    names = zipfile.ZipFile(io.BytesIO(agent_package.build(PARTS))).namelist()
    modules = [f"{PACKAGE}.{part}" for part in expected]
    folders = {"/".join(module.split(".")[:depth]) for module in modules for depth in range(1, len(module.split(".")))}
    files = {f"{module.replace('.', '/')}.pyc" for module in modules}
    assert set(names) == {"__main__.py"} | {f"{folder}/__init__.py" for folder in folders} | files
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted(MODULE_UTILS.rglob("*.py")), ids=_name)
def test_every_import_of_a_util_is_one_that_the_package_sees(path: Path) -> None:
    assert agent_code.imported_parts(_name(path), path.read_text(), FOLDERS) == _imports(path)


@pytest.mark.parametrize(
    ("part", "source", "parts"),
    [
        ("_host.tasks", "from .._base import durable", {"_base.durable"}),
        (
            "_host.tasks",
            "from .._base import durable, errors as told  # noqa: F401 command",
            {"_base.durable", "_base.errors"},
        ),
        (
            "_host.tasks",
            "from .._base import (\n    durable,  # why\n    errors,\n)\n",
            {"_base.durable", "_base.errors"},
        ),
        ("_host.tasks", "from .namespaces import inside, durable", {"_host.namespaces"}),
        ("_host.tasks", "from . import namespaces", {"_host.namespaces"}),
        (
            "_docker.spec.create",
            "import os\nfrom ..._base.errors import (\n    MigrationError,\n)\nfrom . import fields\n",
            {"_base.errors", "_docker.spec.fields"},
        ),
        ("_docker.spec.create", "def f():\n    from .. import engine\n", {"_docker.engine"}),
        ("_docker.spec.create", "from ..engine import Engine", {"_docker.engine"}),
        ("_host.tasks", '"""from .._base import durable"""', set()),
        ("_host.tasks", "from os import path", set()),
    ],
)
def test_all_forms_of_an_import_are_understood(part: str, source: str, parts: set[str]) -> None:
    assert agent_code.imported_parts(part, source, FOLDERS) == parts


# -- running it ------------------------------------------------------------------------------------------------------


def _run_agent(
    python: str, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", "-B", *words], capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=30
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function that has an agent built by an interpreter, as a module running in that would; returns its path."""
    directory = tmp_path_factory.mktemp("agents")

    def build(python: str) -> str:
        path = directory / f"{Path(python).name}.pyz"
        if not path.exists():
            code = (
                f"import sys; sys.path.insert(0, {str(ROOT / '.tree')!r})\n"
                f"from {PACKAGE}._session import agent_code, agent_package\n"
                f"sources = agent_code.needed(agent_code.of_directory({str(MODULE_UTILS)!r}))\n"
                "sys.stdout.buffer.write(agent_package.build(sources))"
            )
            done = subprocess.run([python, "-I", "-B", "-c", code], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode()
            path.write_bytes(done.stdout)
        return str(path)

    return build


@oldest_and_newest
def test_it_runs_with_nothing_but_the_standard_library(python: str, built: Callable[[str], str]) -> None:
    agent = built(python)
    usage = _run_agent(python, agent)
    assert (usage.returncode, usage.stdout) == (2, "")
    assert usage.stderr.startswith("usage: agent settle SESSION")
    unknown = "20261123T000001Z-ffffff"
    done = _run_agent(python, agent, "serve", unknown, "ping")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"There is no session {unknown}" in done.stderr


@oldest_and_newest
def test_rsync_s_server_side_answers_as_the_others_do_and_loads_less(python: str, built: Callable[[str], str]) -> None:
    agent = built(python)
    unknown = "20261123T000001Z-ffffff"
    loaded = {}
    for command in ("ping", "rsync --server . layer"):
        done = _run_agent(python, "-X", "importtime", agent, "serve", unknown, command)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"There is no session {unknown}" in done.stderr
        loaded[command] = set(re.findall(rf"{PACKAGE}\.(_\w+\.[\w.]+)", done.stderr))
    # What needs little of the code loads little of it.
    assert len(loaded["ping"]) < len(PARTS) / 4
    assert loaded["rsync --server . layer"] <= {
        "_channel.server",
        "_session.session",
        "_session.decision",
        "_session.phases",
        "_session.claims",
        "_host.boot",
        "_host.procfs",
        "_base.durable",
        "_session.holder",
        "_base.valid_names",
        "_base.command",
        "_base.errors",
        "_channel.authorized_keys",
        "_host.confinement",
        "_host.mountinfo",
        "_host.namespaces",
        "_host.system_directories",
        "_base.printable",
        "_host.memory_filesystem",
    }


@oldest_and_newest
def test_every_part_of_it_is_in_it_and_can_be_imported(python: str, built: Callable[[str], str]) -> None:
    agent = built(python)
    code = (
        f"import sys; sys.path[:] = [{agent!r}, *(p for p in sys.path if 'site-packages' not in p)]\n"
        "import importlib\n"
        f"for part in {sorted(PARTS)!r}:\n"
        f"    module = importlib.import_module({PACKAGE!r} + '.' + part)\n"
        f"    assert module.__spec__.origin.startswith({agent!r}), module.__spec__.origin\n"
    )
    done = subprocess.run([python, "-I", "-B", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_has_no_docstrings(built: Callable[[str], str]) -> None:
    """Nobody reads them there, and each command through the channel loads them."""
    script = f"import sys; sys.path.insert(0, sys.argv[1]); import {PACKAGE}._session.session as one; print(one.Session.__doc__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, built(sys.executable)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_it_has_only_what_somebody_reads_there(built: Callable[[str], str]) -> None:
    """Annotations of attributes are the fields of a NamedTuple. A traceback names the line of the source, and no column."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        f"import {PACKAGE}._session.session as one, {PACKAGE}._surroundings.descriptors as two;"
        "code = one.Session.path.__code__;"
        "columns = {place[3] for place in code.co_positions()} if hasattr(code, 'co_positions') else {0};"
        "print(one.Session.path.__annotations__, len(two.Descriptor._fields) > 2, code.co_firstlineno, columns - {None})"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, built(sys.executable)], capture_output=True, text=True, check=False
    )
    line = Session.path.__code__.co_firstlineno
    assert (done.stdout, done.stderr) == (f"{{}} True {line} {{0}}\n", "")


def test_nothing_around_it_gets_into_it(built: Callable[[str], str], tmp_path: Path) -> None:
    for name in ("json", "_session", "_base", "ansible_collections", "sitecustomize", "usercustomize", "shlex"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nraise SystemExit(99)\n")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": str(tmp_path / "json.py"),
        "HOME": str(tmp_path),
    }
    done = _run_agent(
        sys.executable, built(sys.executable), "serve", "20261123T000001Z-ffffff", "ping", cwd=tmp_path, env=env
    )
    assert done.returncode == 1
    assert not (tmp_path / "pwned").exists()
    assert not list(tmp_path.rglob("*.pyc")), "-B: root leaves no code beside the agent"


def test_a_session_gets_the_agent_that_opens_it_private(make_session: MakeSession, tmp_path: Path) -> None:
    session = make_session()
    opening = tmp_path / "opening.pyz"
    opening.write_bytes(agent_package.build(PARTS))
    command = agent_package.install(session, str(opening))
    assert command == (sys.executable, "-I", "-B", session.path("agent.pyz"))
    assert stat.S_IMODE(os.stat(session.path("agent.pyz")).st_mode) == 0o600
    assert _run_agent(command[0], *command[3:]).returncode == 2
    assert agent_package.install(session, str(opening)) == command


# -- the floor -------------------------------------------------------------------------------------------------------


def test_every_plugin_is_python_3_9() -> None:
    """By the grammar of this Python, and by the compiler of the oldest one here."""
    files = sorted(PLUGINS.rglob("*.py"))
    assert len(files) > 20
    for path in files:
        ast.parse(path.read_text(), filename=str(path), feature_version=FLOOR)
    code = (
        "import sys\nfor path in sys.argv[1:]:\n    with open(path, 'rb') as file: compile(file.read(), path, 'exec')"
    )
    done = _run_agent(next(iter(PYTHONS.values())), "-W", "error", "-c", code, *map(str, files))
    assert (done.returncode, done.stderr) == (0, "")


def test_every_util_can_be_imported_by_the_oldest_python() -> None:
    """Not only compiled: what annotations and aliases mean at run time has to be there, too."""
    if next(iter(PYTHONS)) != FLOOR:
        pytest.skip(f"the oldest Python here is {'.'.join(map(str, next(iter(PYTHONS))))}, the floor is 3.9")
    # _module is the one that needs Ansible, which no host has at a fixed place.
    parts = sorted(path.stem for path in MODULE_UTILS.glob("_*.py") if path.stem not in ("_module", "__init__"))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / '.tree')!r})\n"
        "import importlib, typing\n"
        f"for part in {parts!r}:\n"
        f"    importlib.import_module({PACKAGE!r} + '.' + part)\n"
    )
    done = _run_agent(PYTHONS[FLOOR], "-W", "error", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
