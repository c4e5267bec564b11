# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent: complete, isolated, and running under every Python that a managed host may have."""

from __future__ import annotations

import ast
import io
import itertools
import os
import re
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import engine as docker_engine
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent as agent_program
from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code, agent_package
from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.static import house
from tests.unit.helpers.support import MODULE_UTILS, PACKAGE, PLUGINS, ROOT, bring_to, hold_lock, wait_for

PARTS = agent_code.needed(agent_code.of_directory(str(MODULE_UTILS)))
FOLDERS = agent_code.folders_of(agent_code.of_directory(str(MODULE_UTILS)))

MakeSession = Callable[..., Session]
Agent = Callable[..., int]

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


def test_it_is_sent_as_it_is() -> None:
    """And as the same bytes wherever it comes from, so that a host keeps one of a version."""
    sources = agent_code.of_directory(str(MODULE_UTILS))
    packed = agent_code.pack(sources)
    assert agent_code.unpack(packed) == sources
    assert agent_code.pack(dict(reversed(sources.items()))) == packed
    assert {_name(path) for path in MODULE_UTILS.rglob("*.py") if path.name != "__init__.py"} == set(sources)


@pytest.mark.parametrize("packed", ["", "not base64!", "bm8gemlw"])
def test_what_is_no_code_is_reported(packed: str) -> None:
    with pytest.raises(ValueError, match=r"base64|zip|encoded|padding"):
        agent_code.unpack(packed)


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


# -- settling --------------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The agent's main(), in this process and on this process' own sessions; without an engine."""

    def no_engine(*_arguments: object, **_keywords: object) -> None:
        raise MigrationError("engine_unreachable", "Cannot connect to the Docker engine")

    request.getfixturevalue("host_roots")
    monkeypatch.setattr(docker_engine, "Engine", no_engine)
    return lambda *words: agent_program.main(words)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("settle",), 2),
        (("serve", "x"), 2),
        (("serve", "x", "ping", "more"), 2),
        (("nonsense", "20261123T000001Z-3f9a1c"), 2),
        (("open", "--chek"), 2),
        (("serve", "../../etc", "ping"), 1),
        (("start", "20261123T000001Z-3f9a1c"), 1),
        # Closed while systemd still had the start in its queue.
        (("settle", "20261123T000001Z-3f9a1c"), 0),
    ],
)
def test_what_it_gets_has_to_make_sense(
    words: tuple[str, ...], code: int, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent(*words) == code
    reported = capsys.readouterr()
    assert reported.out == ""
    assert reported.err != ""


def _let_the_lease_end(session: Session) -> None:
    (Path(session.volatile) / "lease").unlink()


def test_a_session_that_is_alive_is_left_alone(
    agent: Agent, make_session: MakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session = bring_to(make_session(), "freezing")
    session.renew()
    assert agent("settle", session.id) == 0
    assert (session.phase, session.decision) == ("freezing", None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_a_session_that_has_ended_is_left_alone(role: str, agent: Agent, make_session: MakeSession) -> None:
    session = bring_to(make_session(role), "closed")
    session.close(keep=True)
    before = Path(session.path("journal")).read_bytes()
    assert agent("settle", session.id) == 0
    assert Path(session.path("journal")).read_bytes() == before


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_what_cannot_be_settled_now_is_tried_again(
    role: str, agent: Agent, make_session: MakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session = bring_to(make_session(role), "prepared" if role == SOURCE else "created")
    _let_the_lease_end(session)
    assert agent("settle", session.id) == 75
    assert "cannot be settled yet: Cannot connect to the Docker engine" in capsys.readouterr().err
    assert session.decision is None, "a word that cannot be kept is not given"
    assert session.lease_left == 0, "an attempt is no sign of life: the next one must not wait for it"


@pytest.fixture
def abandoned(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A frozen session whose lease is over, whatever is done with it."""
    session = bring_to(make_session(), "freezing")
    monkeypatch.setattr(sessions.Session, "lease_left", 0.0)
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.1)
    return session


class Holder:
    """A process that holds a session's lock."""

    def __init__(self, session: Session, roots: dict[str, str], *, alive: bool = True) -> None:
        self.pid = hold_lock(session.id, roots, alive=alive)
        self._status: int | None = None

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.ended_by() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def ended_by(self) -> int | None:
        """The signal, None as long as it lives."""
        if self._status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.WTERMSIG(status) if found else None
        return self._status


def test_a_session_that_somebody_settles_is_tried_again(
    agent: Agent, abandoned: Session, roots: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A person's recover.yml shows no signs of life, and is not to be ended for that."""
    with Holder(abandoned, roots, alive=False) as holder:
        assert agent("settle", abandoned.id) == 75
        assert "is at work on this host" in capsys.readouterr().err
        assert holder.ended_by() is None
    assert abandoned.decision is None


@pytest.mark.parametrize("kind", ["silent step", "stopped step", "stopped settler"])
def test_who_holds_the_lock_and_shows_no_sign_of_life_is_ended(
    kind: str, agent: Agent, abandoned: Session, roots: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Holder(abandoned, roots, alive="step" in kind) as holder:
        if "stopped" in kind:
            os.kill(holder.pid, signal.SIGSTOP)
        assert agent("settle", abandoned.id) == 75
        # As far as one gets without an engine.
        assert "cannot be settled yet: Cannot connect to the Docker engine" in capsys.readouterr().err
        wait_for(holder.ended_by, "it has ended")
        assert holder.ended_by() == signal.SIGKILL


def test_a_step_that_does_not_come_back_from_the_kernel_is_ended(
    make_session: MakeSession, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has something frozen, and waits for a network file system. Its thread goes on to renew the lease."""
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(sessions, "_STILL_SECONDS", 1.0)
    session = bring_to(make_session(), "freezing")
    child = hold_lock(session.id, roots, frozen=True)
    began = time.monotonic()
    wait_for(session.end_holder, "it is ended", 15)
    assert time.monotonic() - began > 1, "it had its time"
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_step_that_is_only_slow_to_say_that_it_is_alive_is_left_alone(
    abandoned: Session, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Holder(abandoned, roots) as holder:
        answers = itertools.chain([0.0, 0.0, 0.0], itertools.repeat(5.0))
        monkeypatch.setattr(sessions.Session, "lease_left", property(lambda _self: next(answers)))
        assert not abandoned.end_holder()
        assert holder.ended_by() is None


def test_nobody_else_is_ended(abandoned: Session, roots: dict[str, str]) -> None:
    """A number in the note that is another's by now, a holder that is not of the note, no holder, no note."""
    note = Path(abandoned.volatile) / "holder"
    assert not abandoned.end_holder()
    with Holder(abandoned, roots) as holder, subprocess.Popen(["sleep", "60"]) as stranger:
        printed = note.read_text()
        pid, started, kind = printed.split()
        other = Path(f"/proc/{stranger.pid}/stat").read_text().split()[21]
        for wrong in ("", "x y z", f"{stranger.pid} {other} {kind}", f"{pid} {int(started) + 1} {kind}"):
            note.write_text(wrong)
            assert not abandoned.end_holder()
        assert (holder.ended_by(), stranger.poll()) == (None, None)
        stranger.kill()
        note.write_text(printed)
        assert abandoned.end_holder()


def test_a_session_that_came_back_to_life_while_its_lock_was_waited_for_is_left_alone(
    agent: Agent, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bring_to(make_session(), "freezing")
    answers = iter([0.0, 5.0])
    monkeypatch.setattr(sessions.Session, "lease_left", property(lambda _self: next(answers)))
    assert agent("settle", session.id) == 0
    assert session.decision is None


def test_when_the_session_is_closed_nothing_has_to_be_loaded_any_more(
    agent: Agent, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent's file goes with the session that it has settled."""
    session = bring_to(make_session(), "prepared")
    _let_the_lease_end(session)

    class Gone:
        def find_spec(self, name: str, *_arguments: object) -> None:
            if name.startswith(PACKAGE):
                raise FileNotFoundError(f"{name} was loaded after the end")

    def settle(_session: Session) -> str:
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}._session.stories")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
        return "ABORT"

    monkeypatch.setattr(agent_program, "_settle", settle)
    assert agent("settle", session.id) == 0
    assert capsys.readouterr().out == f"session {session.id}: ABORT\n"
