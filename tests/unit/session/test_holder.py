# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The holder of a lock, which is ended when it shows no sign of life: itself, and nobody who only has its number."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import procfs
from ansible_collections.livemigrate.criu.plugins.module_utils._session import holder
from tests.conftest import ROOT
from tests.unit.helpers.support import PACKAGE, wait_for

_HOLDS = f"""
import fcntl, sys
sys.path.insert(0, {str(ROOT / ".tree")!r})
from {PACKAGE}._session import holder
lock = open(sys.argv[1], "w")
if sys.argv[4] == "locks":
    fcntl.flock(lock, fcntl.LOCK_EX)
holder.note(sys.argv[2], step=sys.argv[3] == "step")
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def _held(place: Path, *, step: bool = True, locks: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock, or only says so."""
    argv = [str(place / "lock"), str(place / "note"), "step" if step else "settling", "locks" if locks else "does not"]
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def _end(place: Path, *, alive: bool) -> bool:
    return holder.end(str(place / "lock"), str(place / "note"), lambda: alive)


def test_a_step_that_is_silent_is_ended_and_one_that_lives_is_not(tmp_path: Path) -> None:
    with _held(tmp_path) as process:
        assert not _end(tmp_path, alive=True)
        assert process.poll() is None
        assert _end(tmp_path, alive=False)
        assert process.wait(10) == -signal.SIGKILL
        assert not _end(tmp_path, alive=False)


@pytest.mark.parametrize("step", [True, False])
def test_one_that_is_stopped_is_ended_whatever_it_does(step: bool, tmp_path: Path) -> None:
    with _held(tmp_path, step=step) as process:
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: procfs.stat_fields(process.pid)[procfs.STATE] == "T", "it is stopped")
        assert _end(tmp_path, alive=True)
        assert process.wait(10) == -signal.SIGKILL


def test_one_that_settles_may_be_silent(tmp_path: Path) -> None:
    with _held(tmp_path, step=False) as process:
        assert not _end(tmp_path, alive=False)
        assert process.poll() is None


def test_nobody_is_ended_for_a_lock_that_another_holds(tmp_path: Path) -> None:
    with _held(tmp_path, locks=False) as process:
        assert not _end(tmp_path, alive=False)
        assert process.poll() is None


def test_nobody_is_ended_who_only_has_the_number(tmp_path: Path) -> None:
    with _held(tmp_path) as process:
        number, started, kind = (tmp_path / "note").read_text().split()
        (tmp_path / "note").write_text(f"{number} {int(started) - 1} {kind}")
        assert not _end(tmp_path, alive=False)
        assert process.poll() is None


@pytest.mark.parametrize("note", [None, "", "1", "no 1 step", "1 2 3 4"])
def test_without_a_note_nobody_is_ended(note: str | None, tmp_path: Path) -> None:
    with _held(tmp_path) as process:
        (tmp_path / "note").unlink()
        if note is not None:
            (tmp_path / "note").write_text(note)
        assert not _end(tmp_path, alive=False)
        assert process.poll() is None


def test_a_session_that_is_closed_gets_no_note(tmp_path: Path) -> None:
    holder.note(str(tmp_path / "gone" / "note"), step=True)
    assert not (tmp_path / "gone").exists()
