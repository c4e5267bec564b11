# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dump by runc: where it is asked, how, and what is told when it fails or does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed, run, too_slow
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import runc
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.runc import await_end, dump, end_dump, root_of
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from tests.unit.criu.test_statistics import SAMPLE
from tests.unit.helpers.groups import Group
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER

SESSION = "20261123T000001Z-3f9a1c"
UNIT = f"livemigrate-{SESSION}-dump.service"

LOG = """\
(00.000000) Version: 4.2 (gitid 0)
(00.012345) Warn  (criu/kerndat.c:1): something
(00.023456) Error (criu/sk-inet.c:188): inet: Connected TCP socket, consider using --tcp-established
(00.034567) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""


class Runner:
    """Stands in for systemd, which unit tests have none of: notes what it is told and gives prepared answers."""

    def __init__(self, *answers: Completed) -> None:
        self._answers = list(answers)
        self.calls: list[list[str]] = []
        self.timeouts: list[float] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        text: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        assert (text, env) == (None, None)
        self.calls.append(list(argv))
        self.timeouts.append(timeout)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runc's notes as dockerd 20.10 and newer have it make them."""
    for runtime, container in (("runtime-runc", OTHER_CONTAINER), ("runtime-livemigrate", CONTAINER)):
        notes = tmp_path / "docker" / runtime / "moby" / container
        notes.mkdir(parents=True)
        (notes / "state.json").write_text("{}")
    found = tmp_path / "docker" / "runtime-*" / "*"
    monkeypatch.setattr(root_of, "__defaults__", (str(found),))
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


def _dump(work: Path, runner: Runner) -> dict[str, float | int]:
    return dump(SESSION, CONTAINER, "/images", str(work), options="/dump.conf", timeout=77.0, runner=runner)


# -- where -------------------------------------------------------------------------------------------------------------


def test_the_root_is_found_whatever_the_runtime_is_called(roots: Path, tmp_path: Path) -> None:
    assert root_of(CONTAINER, str(roots)) == str(tmp_path / "docker" / "runtime-livemigrate" / "moby")
    assert root_of(OTHER_CONTAINER, str(roots)) == str(tmp_path / "docker" / "runtime-runc" / "moby")


def test_a_container_that_runc_does_not_know(roots: Path, tmp_path: Path) -> None:
    """Notes without a state are what a container leaves that has ended."""
    stranger = "c" * 64
    (tmp_path / "docker" / "runtime-runc" / "moby" / stranger).mkdir()
    with pytest.raises(MigrationError) as caught:
        root_of(stranger, str(roots))
    assert caught.value.code == "runc_unknown"
    assert caught.value.details == {"container": stranger}
    assert str(roots) in caught.value.message
    assert stranger[:12] in caught.value.message


@pytest.mark.parametrize("name", ["web", "*", "a" * 12, "../" + "a" * 61])
def test_nothing_but_a_full_id_is_looked_for(name: str, roots: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        root_of(name, str(roots))
    assert caught.value.code == "invalid_id"


# -- the dump ----------------------------------------------------------------------------------------------------------


def test_the_dump_runs_in_a_unit_of_its_own_and_leaves_the_container_paused(roots: Path, work: Path) -> None:
    runner = Runner(Completed(0, "", ""))
    (work / "stats-dump").write_bytes(SAMPLE)
    reported = _dump(work, runner)
    assert (reported["frozen_seconds"], reported["pages_written"]) == (0.1226, 52)
    [argv] = runner.calls
    assert runner.timeouts == [77.0]
    border = argv.index("runc")
    systemd, runc = argv[:border], argv[border:]
    assert systemd[0] == "systemd-run"
    assert {"--wait", "--pipe", "--collect", f"--unit={UNIT}", "--property=UMask=0077"} <= set(systemd)
    assert "--scope" not in systemd, "it would be killed together with who asked for it"
    assert runc == [
        "runc",
        "--root",
        root_of(CONTAINER),
        "checkpoint",
        "--leave-running",
        "--image-path",
        "/images",
        "--work-path",
        str(work),
        CONTAINER,
    ]
    assert "--property=BindReadOnlyPaths=/dump.conf:/etc/criu/runc.conf" in systemd
    assert "--setenv=CRIU_CONFIG_FILE=/dump.conf.environment" in systemd
    assert str(roots.parent.parent) in runc[2]


@pytest.mark.usefixtures("roots")
def test_a_dump_whose_statistics_cannot_be_read_is_a_dump(work: Path) -> None:
    (work / "stats-dump").write_bytes(b"garbage")
    assert _dump(work, Runner(Completed(0, "", ""))) == {}


@pytest.mark.usefixtures("roots")
def test_a_dump_that_was_reported_to_end_is_none_though_systemd_calls_it_a_success(work: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        _dump(work, Runner(Completed(0, "", "")))
    assert caught.value.code == "dump_failed"
    assert "before it was through" in caught.value.message


@pytest.mark.usefixtures("roots")
def test_a_process_that_was_in_the_hand_of_a_killed_criu_and_has_ended_is_reported(work: Path) -> None:
    ended = subprocess.Popen(["true"])
    here = f"(00.020000) Dumping task (pid: {os.getpid()} comm: python3)\n"
    # Not waited for yet: a zombie.
    time.sleep(0.1)
    there = (
        f"(00.030000) Dumping task (pid: {ended.pid} comm: the (worker))\n(00.031000) Parasite syscall_ip at 0x401000\n"
    )
    (work / "dump.log").write_text(here + there)
    killed = Runner(Completed(1, "", "read unixpacket: EOF\n"))
    with pytest.raises(MigrationError) as caught:
        _dump(work, killed)
    assert f"the process the (worker) ({ended.pid}) in its hand" in caught.value.message
    ended.wait()
    (work / "dump.log").write_text(there + here)
    with pytest.raises(MigrationError) as caught:
        _dump(work, killed)
    assert "in its hand" not in caught.value.message


@pytest.mark.usefixtures("roots")
def test_a_failed_dump_is_reported_in_runc_s_and_criu_s_words(work: Path) -> None:
    (work / "dump.log").write_bytes(LOG.encode() + b"\xff\n")
    with pytest.raises(MigrationError) as caught:
        _dump(work, Runner(Completed(1, "", "criu failed: type NOTIFY errno 0\n")))
    assert caught.value.code == "dump_failed"
    assert caught.value.message == (
        "CRIU cannot dump the container: inet: Connected TCP socket, consider using --tcp-established."
    )
    assert len(caught.value.details["criu"]) == 2
    assert "Warn" not in caught.value.message


@pytest.mark.usefixtures("roots")
def test_a_dump_that_fails_before_criu_is_reported_without_it(work: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        _dump(work, Runner(Completed(1, "", "Failed to start transient service unit")))
    assert caught.value.message == "CRIU cannot dump the container: Failed to start transient service unit."
    assert caught.value.details == {"criu": []}


def test_a_container_that_runc_does_not_know_is_not_dumped(work: Path, roots: Path) -> None:
    runner = Runner(Completed(0, "", ""))
    (roots.parent.parent / "runtime-livemigrate" / "moby" / CONTAINER / "state.json").unlink()
    with pytest.raises(MigrationError) as caught:
        _dump(work, runner)
    assert caught.value.code == "runc_unknown"
    assert runner.calls == []


@pytest.mark.usefixtures("roots")
def test_a_real_program_s_failure(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real runner, with a systemd-run that runs what it is given at once, and a runc that fails as runc does."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemd-run").write_text('#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n')
    (programs / "runc").write_text(
        f'#!/bin/sh\necho "(00.1) Error (x.c:1): no" >{work}/dump.log\necho "$3 $4" >&2\nexit 1\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    with pytest.raises(MigrationError, match=r"^CRIU cannot dump the container: no\.$"):
        dump(SESSION, CONTAINER, "/images", str(work), options="/dump.conf", timeout=10, runner=run)


# -- its end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["inactive\n", "failed\n", "unknown\n"])
def test_a_dump_that_has_ended_is_not_waited_for(state: str) -> None:
    runner = Runner(Completed(3, state, ""))
    began = time.monotonic()
    await_end(SESSION, 10, runner)
    assert time.monotonic() - began < 1
    assert runner.calls == [["systemctl", "is-active", UNIT]]


def test_a_dump_that_is_at_work_is_waited_for() -> None:
    runner = Runner(
        *(Completed(0, state, "") for state in ("activating\n", "active\n", "deactivating\n", "inactive\n"))
    )
    await_end(SESSION, 10, runner)
    assert len(runner.calls) == 4


@pytest.fixture
def unit(group: Group, monkeypatch: pytest.MonkeyPatch) -> Group:
    """The cgroup of the dump's unit. Nothing is in it yet."""
    below = Path(group.path) / UNIT
    below.mkdir()
    monkeypatch.setattr(runc, "_UNITS", group.path)
    return Group(str(below))


@pytest.mark.parametrize("state", ["active\n", "deactivating\n", ""])
def test_a_dump_that_is_not_known_to_have_ended_is_reported_and_not_passed_over(
    state: str, unit: Group, init: int
) -> None:
    """systemctl prints nothing when its bus does not answer. Then the kernel knows."""
    unit.put(init)
    with pytest.raises(MigrationError) as caught:
        await_end(SESSION, 0.15, Runner(Completed(1, state, "Failed to connect to bus")))
    assert caught.value.code == "dump_running"
    assert caught.value.details == {"unit": UNIT}
    assert UNIT in caught.value.message


@pytest.mark.usefixtures("unit")
def test_where_systemd_does_not_answer_the_kernel_tells_that_it_has_ended() -> None:
    await_end(SESSION, 0.15, Runner(Completed(1, "", "Failed to connect to bus")))

    def slow(argv: Sequence[str], **_words: Any) -> Completed:
        raise too_slow(argv[0], 10)

    await_end(SESSION, 0.15, slow)


def test_one_that_hangs_is_killed(unit: Group, init: int) -> None:
    """A CRIU that somebody has stopped, or that waits for a network file system."""
    unit.put(init)
    os.kill(init, signal.SIGSTOP)
    end_dump(SESSION, Runner(Completed(3, "failed\n", "")))
    assert not unit.populated


def test_one_that_cannot_be_killed_is_reported(unit: Group, init: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps it waiting. The test keeps the group from killing it."""
    unit.put(init)

    def stays(_self: TaskGroup) -> None:
        raise MigrationError("kill_failed", "left")

    monkeypatch.setattr(TaskGroup, "kill", stays)
    with pytest.raises(MigrationError, match="hangs and cannot be killed") as caught:
        end_dump(SESSION, Runner(Completed(0, "active\n", "")))
    assert caught.value.code == "dump_running"
