# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the core share: processes that race, processes that die in the middle, and a wait that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

# conftest.py imports this before tests/conftest.py has made the collection findable, hence the imports inside functions.

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "plugins"
MODULE_UTILS = PLUGINS / "module_utils"
PACKAGE = "ansible_collections.livemigrate.criu.plugins.module_utils"

CONTAINER = "a" * 64
OTHER_CONTAINER = "b" * 64

# What changes a file system. A process that is killed before any of these calls leaves what a crash may leave.
_STEPS = ("open", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir")

_fork = multiprocessing.get_context("fork")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 5.0) -> None:
    """Wait until a condition holds; fail with its name when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


def _racer(number: int, work: Callable[[int], Any], barrier: Any, answers: Any) -> None:
    barrier.wait()
    try:
        answers.put((number, "ok", work(number)))
    except Exception as exc:
        answers.put((number, "error", getattr(exc, "code", type(exc).__name__)))


def race(count: int, work: Callable[[int], Any]) -> list[tuple[str, Any]]:
    """Let as many processes do the same at the same moment.

    :param work: takes the number of the process; what it returns has to be plain data.
    :returns: for each ``("ok", value)``, or ``("error", code)`` with a MigrationError's code or an exception's name.
    """
    barrier, answers = _fork.Barrier(count), _fork.Queue()
    racers = [
        _fork.Process(target=_racer, args=(number, work, barrier, answers), daemon=True) for number in range(count)
    ]
    for racer in racers:
        racer.start()
    found = sorted(answers.get(timeout=30) for _racer in racers)
    for racer in racers:
        racer.join()
    return [(kind, value) for _number, kind, value in found]


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do some work in a process that is killed just before its *step*-th call that changes files.

    :returns: whether it came to that; False means that the work had fewer calls and was done.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _arm(step)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself, see above"
    return False


def _arm(step: int) -> None:
    left = step

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in _STEPS:
        setattr(os, name, counted(getattr(os, name)))


# -- sessions ----------------------------------------------------------------------------------------------------------


def way_to(role: str, phase: str) -> list[str]:
    """The shortest way from the opening of a session to a phase, both included."""
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import TRANSITIONS

    ways = [["opened"]]
    for way in ways:
        if way[-1] == phase:
            return way
        ways.extend([*way, follower] for follower in TRANSITIONS[role][way[-1]] if follower not in way)
    raise AssertionError(f"{phase} cannot be reached on the {role}")


def bring_to(session: Session, phase: str) -> Session:
    """Let a session go the shortest way to a phase; returns it."""
    for step in way_to(session.role, phase)[1:]:
        session.enter(step)
    return session


def hold_lock(session_id: str, roots: dict[str, str], *, alive: bool = True, frozen: bool = False) -> int:
    """Start a process that takes a session's lock and keeps it; returns its number when it has it.

    :param frozen: whether it has something frozen.
    """
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            session = Session(session_id, **roots)
            with session.locked(alive=alive):
                if frozen:
                    session.expect_end(0)
                os.write(writing, b"x")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    return child
