# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A unit that waits for what it is to run: real processes, with a systemd-run that runs what it is given at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.runc import dump, root_of, unit_ready
from ansible_collections.livemigrate.criu.plugins.module_utils._host.waiting_unit import WaitingUnit
from tests.unit.helpers.support import wait_for

SYSTEMD = ["systemd-run", "--quiet", "--wait", "--pipe"]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemd-run was told, a line each; after the number of the process of the unit."""
    log = tmp_path / "calls"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemd-run").write_text(
        f'#!/bin/sh\necho "$$ $*" >>{log}\nwhile [ "${{1#-}}" != "$1" ]; do shift; done\nexec "$@"\n'
    )
    (programs / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return log


def _runs(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


def _unit(calls: Path) -> int:
    return int(calls.read_text().split()[0])


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_it_runs_what_it_gets_and_reports_how_it_ended(code: int, calls: Path) -> None:
    with WaitingUnit(SYSTEMD) as unit:
        done = unit([*SYSTEMD, "sh", "-c", f"echo out; echo error >&2; exit {code}"])
    assert (done.rc, done.output) == (code, "out\nerror")
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.usefixtures("calls")
def test_words_arrive_as_they_are(tmp_path: Path) -> None:
    words = ["a b", "", "$HOME", "`id`", "\\", "'", '"', "*", "-n", f"$(touch {tmp_path}/made)", "; exit 7"]
    with WaitingUnit(SYSTEMD) as unit:
        done = unit([*SYSTEMD, "printf", "[%s]", *words])
    assert done.rc == 0
    assert done.stdout == "".join(f"[{word}]" for word in words)
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("calls")
def test_the_program_does_not_hear_what_the_unit_hears() -> None:
    with WaitingUnit(SYSTEMD) as unit:
        assert unit([*SYSTEMD, "cat"], timeout=5).rc == 0


@pytest.mark.usefixtures("calls")
def test_a_program_without_an_end_of_line_and_one_that_looks_like_the_end() -> None:
    with WaitingUnit(SYSTEMD) as unit:
        assert unit([*SYSTEMD, "printf", "a\\nended 0\\nb"]).stdout == "a\nended 0\nb"


def test_a_unit_that_gets_nothing_runs_nothing_and_ends(calls: Path) -> None:
    with WaitingUnit(SYSTEMD):
        number = _unit(calls)
        assert _runs(number)
    assert not _runs(number)


def test_the_end_of_its_holder_is_its_end(calls: Path) -> None:
    """However that dies: the line never comes."""
    child = os.fork()
    if child == 0:
        WaitingUnit(SYSTEMD)
        signal.pause()
    try:
        wait_for(lambda: calls.exists() and calls.read_text().endswith("\n"), "the unit")
        assert _runs(_unit(calls))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    wait_for(lambda: not _runs(_unit(calls)), "the end of the unit")


def test_a_program_that_takes_too_long_is_left_alone(calls: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    # systemd-run is what is ended then; here it has become the unit, so the program is told not to mind.
    script = f"trap '' TERM; sleep 1; touch {tmp_path}/done"
    with pytest.raises(MigrationError) as caught, WaitingUnit(SYSTEMD) as unit:
        unit([*SYSTEMD, "sh", "-c", script], timeout=0.2)
    assert caught.value.code == "program_timeout"
    assert time.monotonic() - began < 5
    wait_for((tmp_path / "done").exists, "the end of the program")
    assert len(calls.read_text().splitlines()) == 1


def test_other_words_for_systemd_are_a_unit_of_their_own(calls: Path) -> None:
    with WaitingUnit(SYSTEMD) as unit:
        first = _unit(calls)
        done = unit([*SYSTEMD, "--property=X=y", "sh", "-c", f"test ! -e /proc/{first} && echo gone"])
        assert done.stdout == "gone\n", "two units of one name"
    assert "--property=X=y" in calls.read_text().splitlines()[1]


def test_a_second_program_has_a_unit_of_its_own(calls: Path) -> None:
    with WaitingUnit(SYSTEMD) as unit:
        assert unit([*SYSTEMD, "echo", "1"]).stdout == "1\n"
        assert unit([*SYSTEMD, "echo", "2"]).stdout == "2\n"
    assert len(calls.read_text().splitlines()) == 2


@pytest.mark.parametrize("script", ["echo 'Failed to connect to bus' >&2; exit 1", "exit 0"])
def test_a_unit_that_does_not_start_is_reported(script: str, calls: Path) -> None:
    (calls.parent / "bin" / "systemd-run").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(MigrationError) as caught:
        WaitingUnit(SYSTEMD)
    assert caught.value.code == "unit_failed"
    assert "Failed to connect to bus" in caught.value.message or "no output" in caught.value.message


@pytest.mark.usefixtures("calls")
def test_a_unit_that_is_killed_is_no_success() -> None:
    with WaitingUnit(SYSTEMD) as unit:
        done = unit([*SYSTEMD, "sh", "-c", "kill -KILL $PPID; sleep 0.2"])
    assert done.rc != 0


def test_the_dump_takes_the_unit_that_waits(calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = "c" * 64
    notes = tmp_path / "docker" / "runtime-runc" / "moby" / container
    notes.mkdir(parents=True)
    (notes / "state.json").write_text("{}")
    monkeypatch.setattr(root_of, "__defaults__", (str(tmp_path / "docker" / "runtime-*" / "*"),))
    runc = tmp_path / "bin" / "runc"
    runc.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/runc; : >{tmp_path}/stats-dump\n')
    runc.chmod(0o755)
    session = "20261123T000001Z-3f9a1c"
    options = str(tmp_path / "dump.conf")
    for ready in (True, False):
        calls.unlink(missing_ok=True)
        if ready:
            with unit_ready(session, options):
                before = calls.read_text()
                dump(session, container, "/images", str(tmp_path), options=options, timeout=10)
                assert calls.read_text() == before, "another unit was started"
        else:
            dump(session, container, "/images", str(tmp_path), options=options, timeout=10)
            assert len(calls.read_text().splitlines()) == 1
        assert (tmp_path / "runc").read_text().split()[2:4] == ["checkpoint", "--leave-running"]
        (tmp_path / "runc").unlink()
