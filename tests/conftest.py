# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every test has: the checkout as a collection, programs run with a log and a time limit, and the lab.

`pytest tests` is one session from the cheapest check to the dearest: ORDER says which directory comes when. `make test`
runs the same tests in several processes (lanes.py says which of them may run at the same time).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

import ansible.release
import pytest

from tests import lanes
from tests.lab import Lab
from tests.lab.shell import bound

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cache" / "logs"
LOCKS = ROOT / ".cache" / "locks"
LAB_SCRIPT = ROOT / "tests" / "lab" / "lab.py"
LANES = LOCKS / "lanes.json"
# The session that has started the lab of this checkout and takes it down at its end.
LAB_OWNER = LOCKS / "lab-owner"
SESSION = "LIVEMIGRATE_TEST_SESSION"
ORDER = ("static", "unit", "lab", "workloads", "modules", "scenarios", "moves_api", "preflight", "moves_runtime", "vm")
UNIT_SECONDS = 180
TAIL_LINES = 150

_COLOURS = re.compile(r"\x1b(\[[0-9;]*m|\]8;;.*?(\x1b\\\\|\x07))")

RunTool = Callable[..., str]


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the environment that tests and the programs they start share."""
    # The same as the Makefile does, so that a bare `pytest` works as well.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".tree")
    link = ROOT / ".tree" / "ansible_collections" / "livemigrate" / "criu"
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../..")
    sys.path.insert(0, str(ROOT / ".tree"))
    LOGS.mkdir(parents=True, exist_ok=True)
    LOCKS.mkdir(parents=True, exist_ok=True)
    if not lanes.is_worker():
        # Inherited by the workers.
        os.environ[SESSION] = f"{os.getpid()}-{time.time_ns()}"
    # An end from outside takes the way of Ctrl-C, so that the lab is torn down then too.
    distributing = not lanes.is_worker() and config.getoption("numprocesses", default=None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt_workers if distributing else signal.default_int_handler)
    if distributing:
        config.pluginmanager.register(_WholeLines(config))


def _interrupt_workers(number: int, frame: FrameType | None) -> None:
    """Ctrl-C for this process and for its workers: a terminal would send it to all of them."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)
    signal.default_int_handler(number, frame)


class _WholeLines:
    """Ends the line of a test that begins: the next one to write may be any process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.flush()


def pytest_unconfigure() -> None:
    """Take the lab down if this session has started it; its workers, if there were any, have ended."""
    if lanes.is_worker() or not _lab_is_ours():
        return
    if os.environ.get("LIVEMIGRATE_LAB_KEEP", "0") in ("", "0"):
        with (LOGS / "lab-down.log").open("w") as log:
            done = subprocess.run(
                [sys.executable, LAB_SCRIPT, "down"], stdout=log, stderr=log, timeout=300, check=False
            )
        if done.returncode != 0:
            raise pytest.UsageError(f"the lab did not go down: see {LOGS / 'lab-down.log'}")
    LAB_OWNER.unlink(missing_ok=True)


def pytest_report_header() -> str:
    return f"ansible-core: {ansible.release.__version__}; logs: {LOGS.relative_to(ROOT)}"


def _rank(item: pytest.Item) -> int:
    place = item.path.relative_to(ROOT / "tests").parts[0]
    return ORDER.index(place) if place in ORDER else len(ORDER)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap checks first; within a directory the order stays as collected. Marks what needs the lab."""
    items.sort(key=_rank)
    if lanes.is_worker():
        lanes.arrange(items)
    for item in items:
        if "lab_ground" in getattr(item, "fixturenames", ()):
            item.add_marker("lab")
        if _rank(item) == ORDER.index("unit") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(UNIT_SECONDS))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if lanes.is_worker():
        lanes.write_plan(session.items, LANES)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> lanes.Scheduler:
    return lanes.Scheduler(config, log, LANES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Nobody else uses a test's hosts while it runs."""
    with lanes.alone(item, LOCKS):
        return (yield)


class Terminal:
    """Writes to the person at the terminal while a test runs, past pytest's capture."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")

    def line(self, text: str) -> None:
        if lanes.is_worker():
            # It has no reporter; its standard error is that of the whole session.
            with self._capture.global_and_fixture_disabled():
                print(f"    {os.environ['PYTEST_XDIST_WORKER']} {text}", file=sys.stderr, flush=True)
            return
        if self._reporter is None:
            return
        with self._capture.global_and_fixture_disabled():
            self._reporter.ensure_newline()
            self._reporter.write_line(f"    {text}")
            self._reporter.flush()


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it started: asked first, so that it can tidy up."""
    for number, seconds in ((signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _follow(stream: IO[str], log: Path, show: str, terminal: Terminal) -> deque[str]:
    """Copy a program's output into its log; lines that match show are told at once. Returns the last lines."""
    pattern = re.compile(show) if show else None
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with log.open("w", encoding="utf-8") as file:
        for raw in stream:
            # Not every program honours NO_COLOR.
            line = _COLOURS.sub("", raw)
            file.write(line)
            file.flush()
            tail.append(line)
            if pattern and pattern.search(line):
                terminal.line(line.strip()[:110].rstrip(" *"))
    return tail


@pytest.fixture(scope="session")
def run_tool(request: pytest.FixtureRequest) -> RunTool:
    """A function that runs a program and fails the test with the end of its output when the program fails.

    run_tool(argv, name=, cwd=ROOT, env={}, timeout=600, show="") -> the output, stdout and stderr as they came.
    name: of the log .cache/logs/NAME.log. env: added to the environment. timeout: seconds.
    show: a regular expression; matching lines are printed while the program runs.
    """
    terminal = Terminal(request.config)

    def run(
        argv: Sequence[str | Path],
        *,
        name: str,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        timeout: float = 600,
        show: str = "",
    ) -> str:
        log = LOGS / f"{name}.log"
        words = [str(word) for word in argv]
        environment = {**os.environ, "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
        process = subprocess.Popen(
            # A process of tests that is interrupted may be ended while it waits for this.
            bound(*words),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        late = threading.Event()

        def out_of_time() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(timeout, out_of_time)
        timer.start()
        try:
            assert process.stdout is not None
            tail = _follow(process.stdout, log, show, terminal)
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                _end(process)
        if code != 0 or late.is_set():
            reason = f"was ended after {timeout:.0f} s" if late.is_set() else f"exited with {code}"
            shown = "".join(tail)
            pytest.fail(f"{shown}\n{' '.join(words)}\n{reason}; all of its output: {log}", pytrace=False)
        return log.read_text(encoding="utf-8")

    return run


@pytest.fixture(scope="session")
def repository_files() -> list[Path]:
    """The files of the repository, relative to its root: tracked ones, and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(set(listed.stdout.split("\0")) - {""})
    return [Path(name) for name in names if (ROOT / name).is_file()]


def _lab_is_ours() -> bool:
    return LAB_OWNER.exists() and LAB_OWNER.read_text() == os.environ[SESSION]


@pytest.fixture(scope="session")
def lab_ground(run_tool: RunTool) -> Lab:
    """The lab, with whatever hosts it has: a test's other fixtures start those that it needs.

    A lab of this checkout that already runs is used as it is and left running. One that was started here goes
    down at the end of the session, however it ends, unless LIVEMIGRATE_LAB_KEEP=1.
    """
    with (LOCKS / "lab").open("w") as lock:
        # Of several workers the first one decides.
        fcntl.flock(lock, fcntl.LOCK_EX)
        present = Lab.load()
        if not _lab_is_ours() and not any(machine.is_running() for machine in present.machines()):
            if present.settings.directory.exists():
                # What a killed session may have left: disks that are not as new.
                run_tool([sys.executable, LAB_SCRIPT, "down"], name="lab-down")
            LAB_OWNER.write_text(os.environ[SESSION])
        if _lab_is_ours():
            # A name that no other checkout comes to: labs run side by side when their bridges differ.
            mark = hashlib.sha256(str(present.settings.directory).encode()).hexdigest()[:5]
            os.environ.setdefault("LIVEMIGRATE_LAB_BRIDGE", f"lmlab{mark}")
    return Lab.load()


@pytest.fixture(scope="session")
def lab(lab_ground: Lab, run_tool: RunTool) -> Lab:
    """The lab's hosts alpha, beta and gamma, running."""
    run_tool([sys.executable, LAB_SCRIPT, "up"], name="lab-up", timeout=1200, show=r"\S")
    return lab_ground


@pytest.fixture
def pipelined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Playbooks hand modules over by Ansible's pipelining, which saves a fifth of their time.

    Not for tests that cut off the control node alone: without it a module dies with its connection, with it it goes on. Nor
    for all the others: it is not Ansible's default.
    """
    monkeypatch.setenv("ANSIBLE_PIPELINING", "1")
