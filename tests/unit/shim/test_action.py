# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action script: the tasks are frozen before they have executed anything, or killed."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.unit.shim.support import CONTAINER, Shim, until

SHIM, RUNC = 7001, 7002
SCOPE = "system.slice/docker-x.scope"


class Restore:
    """Processes as they are while runc restores: shim, runc, CRIU, this script, and the init of the copy."""

    def __init__(self, shim: Shim, shell_between: bool) -> None:
        self.shim = shim
        self.init = subprocess.Popen(["sleep", "60"])
        # A process that CRIU's own death is shown with; it stands in for CRIU in /proc, not as the script's parent.
        self.criu = subprocess.Popen(["sleep", "60"])
        self.task = subprocess.Popen(["sleep", "60"])
        shim.processes += [self.init, self.criu, self.task]
        self.between = 7003 if shell_between else None
        self.cgroup = shim.cgroup(SCOPE, frozen=False)
        (self.cgroup / "cgroup.freeze").write_text("0\n")
        (self.cgroup / "cgroup.procs").write_text(f"{self.init.pid}\n{self.criu.pid}\n{self.task.pid}\n")
        shim.cgroup("system.slice/containerd.service")
        shim.process(SHIM, "/system.slice/containerd.service")
        shim.process(RUNC, "/system.slice/containerd.service", SHIM)
        shim.process(self.criu.pid, f"/{SCOPE}", RUNC)
        shim.process(self.init.pid, f"/{SCOPE}", RUNC)
        if self.between:
            shim.process(self.between, f"/{SCOPE}", self.criu.pid)
        shim.work.mkdir()

    def run(self, stage: str, streams: str = "<&- >&- 2>&-", **env: str) -> int:
        """The script at one stage; its own number gets an entry in /proc once it is known."""
        variables = {
            **self.shim.env,
            "CRTOOLS_SCRIPT_ACTION": stage,
            "CRTOOLS_INIT_PID": str(self.init.pid),
            "LIVEMIGRATE_RESTORE": CONTAINER,
            "LIVEMIGRATE_SHIM": str(SHIM),
            **env,
        }
        # As CRIU may leave them: closed. The shell waits until it has its entry, then becomes the script; another one
        # is its parent, which a failure kills.
        go, number = self.shim.place / "go", self.shim.place / "number"
        number.unlink(missing_ok=True)
        wait = f'echo $$ >"{number}"; read -r _ <"{go}"; exec "{self.shim.shell}" "{self.shim.action}" {streams}'
        if not go.exists():
            os.mkfifo(go)
        process = subprocess.Popen(["sh", "-c", 'sh -c "$1"; exit $?', "parent", wait], env=variables)
        until(lambda: number.exists() and number.read_text().strip())
        self.parent = process.pid
        self.shim.process(int(number.read_text()), f"/{SCOPE}", self.between or self.criu.pid)
        go.write_text("\n")
        return process.wait(10)

    def failed(self) -> str:
        return (self.shim.work / "failed").read_text()

    def frozen(self) -> bool:
        return (self.cgroup / "cgroup.freeze").read_text() == "1\n"


@pytest.fixture(params=[False, True], ids=["direct", "shell between"])
def restore(shim: Shim, request: pytest.FixtureRequest) -> Restore:
    # CRIU calls it through a shell in some versions.
    return Restore(shim, request.param)


def moved(restore: Restore) -> str:
    """The last process that was moved: a plain file keeps but the last write, as nothing else does in a cgroup."""
    return (restore.shim.cgroups / "system.slice/containerd.service/cgroup.procs").read_text().strip()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_pre_resume_holds(restore: Restore, times: int) -> None:
    """CRIU before 4.2 calls its script twice at each stage."""
    for _dummy in range(times):
        assert restore.run("pre-resume") == 0
    assert restore.frozen()
    assert (restore.shim.work / "held").read_text() == f"{restore.init.pid}\n{restore.cgroup}\n"
    # Up to CRIU, and not runc; from the script upwards, so that CRIU is the last one.
    assert moved(restore) == str(restore.criu.pid)
    assert restore.init.poll() is None
    assert not (restore.shim.work / "failed").exists()


def test_pre_restore_tells_where(restore: Restore) -> None:
    for _dummy in range(2):
        assert restore.run("pre-restore", CRTOOLS_INIT_PID="") == 0
    assert (restore.shim.work / "restoring").read_text() == f"{restore.parent}\n{restore.cgroup}\n"


def test_pre_restore_points_to_the_cgroup(restore: Restore) -> None:
    """The container's mount of its cgroups is made of that."""
    for _dummy in range(2):
        assert restore.run("pre-restore", CRTOOLS_INIT_PID="") == 0
    assert os.readlink(restore.shim.work / "cgroup") == str(restore.cgroup)


@pytest.mark.parametrize(("stage", "times"), [("pre-restore", 1), ("post-restore", 1), ("pre-resume", 1), ("other", 0)])
def test_it_looks_out_of_the_containers_cgroup_namespace(restore: Restore, stage: str, times: int) -> None:
    """Once, with the runtime's: in the container's own its paths would begin at the container."""
    nsenter = restore.shim.place / "bin" / "nsenter"
    nsenter.write_text('#!/bin/sh\necho "$1" >>"$PLACE/entered"\nshift\nexec "$@"\n')
    nsenter.chmod(0o755)
    assert restore.run(stage, LIVEMIGRATE_OWN_CGROUPS="1") == 0
    entered = restore.shim.place / "entered"
    found = entered.read_text().splitlines() if entered.exists() else []
    assert found == [f"--cgroup={restore.shim.proc}/{SHIM}/ns/cgroup"] * times


@pytest.mark.parametrize("stage", ["setup-namespaces", "post-restore", "network-unlock", "post-resume", "new-one"])
def test_other_stages_change_nothing(restore: Restore, stage: str) -> None:
    assert restore.run(stage) == 0
    assert not restore.frozen()
    assert list(restore.shim.work.iterdir()) == []


def test_setup_namespaces_prepares_the_network(restore: Restore) -> None:
    (restore.shim.work / "fence").touch()
    assert restore.run("setup-namespaces") == 0
    (call,) = restore.shim.network_calls()
    assert call.startswith("prepare ")
    assert not (restore.shim.work / "failed").exists()


def test_a_network_that_cannot_be_closed_fails_the_restore(restore: Restore) -> None:
    (restore.shim.work / "fence").touch()
    (restore.shim.place / "network-fails").touch()
    assert restore.run("setup-namespaces") == 1
    assert "no network" in (restore.shim.work / "failed").read_text()


BROKEN = [
    pytest.param({"LIVEMIGRATE_SHIM": "7999"}, "does not descend", id="called by another"),
    pytest.param({"LIVEMIGRATE_SHIM": ""}, "does not descend", id="called by nobody"),
    pytest.param({"CRTOOLS_INIT_PID": ""}, "no init", id="no init"),
    pytest.param({"CRTOOLS_INIT_PID": "1 2"}, "no init", id="no number"),
    pytest.param({"CRTOOLS_INIT_PID": "999999"}, "no cgroup", id="init gone"),
]


@pytest.mark.parametrize(("env", "reported"), BROKEN)
@pytest.mark.parametrize("stage", ["post-restore", "pre-resume"])
def test_what_cannot_be_held_fails(restore: Restore, stage: str, env: dict[str, str], reported: str) -> None:
    assert restore.run(stage, **env) == (-signal.SIGKILL if stage == "pre-resume" else 1)
    assert reported in restore.failed()
    assert not restore.frozen()
    assert not (restore.shim.work / "held").exists()


@pytest.mark.parametrize("cgroup", ["/", "/system.slice", "/system.slice/containerd.service"])
def test_never_freezes_its_runtime(restore: Restore, cgroup: str) -> None:
    restore.shim.cgroup(cgroup.lstrip("/") or ".", frozen=False)
    (restore.shim.cgroups / cgroup.lstrip("/") / "cgroup.freeze").write_text("0\n")
    restore.shim.process(restore.init.pid, cgroup)
    assert restore.run("post-restore") == 1
    assert "with its runtime" in restore.failed()
    assert (restore.shim.cgroups / cgroup.lstrip("/") / "cgroup.freeze").read_text() == "0\n"


def test_no_freezer(restore: Restore) -> None:
    (restore.cgroup / "cgroup.freeze").unlink()
    assert restore.run("post-restore") == 1
    assert "no freezer" in restore.failed()


def test_pre_resume_that_fails_kills(restore: Restore) -> None:
    """CRIU would let the tasks go: init, every other task and, after them, CRIU."""
    (restore.cgroup / "cgroup.freeze").unlink()
    (restore.cgroup / "cgroup.freeze").mkdir()
    assert restore.run("pre-resume") == -signal.SIGKILL
    assert "cannot be frozen" in restore.failed()
    until(lambda: None not in (restore.init.poll(), restore.task.poll(), restore.criu.poll()))
    assert not (restore.shim.work / "held").exists()


@pytest.mark.parametrize("identity", ["", "../x", "4E1C", CONTAINER + "\n"])
def test_identity(restore: Restore, identity: str) -> None:
    assert restore.run("pre-resume", LIVEMIGRATE_RESTORE=identity) == 1
    assert list(restore.shim.work.iterdir()) == []


def test_says_nothing(restore: Restore) -> None:
    """Its streams may be the container's: what it says there would be in `docker logs`."""
    printed = restore.shim.place / "printed"
    (restore.cgroup / "cgroup.freeze").unlink()
    assert restore.run("post-restore", streams=f'>"{printed}" 2>&1', CRTOOLS_INIT_PID="999999") == 1
    assert printed.read_text() == ""
