# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that is no copy, or is one no longer: runc takes the shim's place, and nothing else happens."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import statistics
import subprocess

import pytest

from tests.unit.shim.support import CONTAINER, FILES, Shim, until

ARGUMENTS = [
    pytest.param([], id="none"),
    pytest.param(["--version"], id="version"),
    pytest.param(["features"], id="features"),
    pytest.param(["state", CONTAINER], id="state"),
    pytest.param(["--log", "/a b", "create", "--bundle", "two  blanks ", CONTAINER], id="blanks"),
    pytest.param(
        ["exec", "", CONTAINER, "sh", "-c", "echo \"$1\"\n`x` $(y) 'z' \\", "*", "?", ""], id="shell characters"
    ),
    pytest.param(["--root=/x", "-log=/y", "start", CONTAINER], id="equal signs"),
    pytest.param(["kill", "--all", CONTAINER, "9"], id="id not last"),
    pytest.param(["create", "a-name-of-podman"], id="no docker id"),
    pytest.param(["create", "../" + CONTAINER], id="a path"),
    pytest.param(["start", "\u00e9\u0301\u2028\udcff"], id="bytes"),
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_arrive_as_they_are(shim: Shim, arguments: list[str]) -> None:
    done = shim.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert shim.calls() == [arguments]


@pytest.mark.parametrize("command", ["create", "start", "run", "restore", "resume"])
def test_tombstone_makes_it_a_container_like_any_other(shim: Shim, command: str) -> None:
    """Restart, stop and start, a reboot: whatever else is left of the migration, it is not gone back to."""
    shim.await_copy()
    shim.hold()
    (shim.mark / "consumed").touch()
    arguments = [*shim.globals(), command, CONTAINER]
    assert shim.run(*arguments).returncode == 0
    assert shim.calls() == [arguments]
    assert (shim.bundle / "config.json").read_text() == '{"ociVersion":"1.2.0"}'


def test_mark_of_another_container_counts_for_nothing(shim: Shim) -> None:
    shim.await_copy()
    other = CONTAINER[:-1] + "0"
    assert shim.run("create", other).returncode == 0
    # Not its beginning either, nor the directory of all marks.
    assert shim.run("start", CONTAINER[:12]).returncode == 0
    assert shim.run("start", "").returncode == 0
    assert len(shim.calls()) == 3


@pytest.mark.parametrize("arguments", [["--all", CONTAINER, "15"], [CONTAINER, "9"]], ids=" ".join)
def test_who_ends_one_that_was_let_go_asks_runc_alone(shim: Shim, arguments: list[str]) -> None:
    """Behind the id of a container there is the signal."""
    shim.await_copy()
    cgroup = shim.hold()
    (shim.mark / "consumed").touch()
    assert shim.run(*shim.globals(), "kill", *arguments).returncode == 0
    assert shim.calls() == [[*shim.globals(), "kill", *arguments]]
    assert (cgroup / "cgroup.kill").read_text() == ""


@pytest.mark.parametrize(
    "command",
    [
        *("delete", "events", "features", "help", "kill"),
        *("list", "ps", "spec", "state"),
    ],
)
def test_other_commands_reach_a_waiting_copy(shim: Shim, command: str) -> None:
    shim.await_copy()
    shim.hold()
    arguments = ["--root", "create", "--log", "start", command, "--flag", CONTAINER]
    assert shim.run(*arguments).returncode == 0
    assert shim.calls() == [arguments]


def test_exit_code_and_streams(shim: Shim) -> None:
    shim.then("cat; echo out; echo err >&2; exit 37")
    done = shim.run("exec", CONTAINER, input=b"in\n")
    assert (done.returncode, done.stdout, done.stderr) == (37, b"in\nout\n", b"err\n")


def test_environment_and_directory(shim: Shim) -> None:
    shim.then('printf "%s\\n" "$PWD" "$MINE" "${LIVEMIGRATE_RESTORE-none}"')
    shim.env["MINE"] = "a  value "
    done = shim.run("start", CONTAINER, cwd=shim.bundle)
    assert done.stdout.decode().splitlines() == [str(shim.bundle), "a  value ", "none"]


def test_open_files_are_handed_on(shim: Shim) -> None:
    """The console's socket, LISTEN_FDS: what the caller left open stays open, and the shim adds nothing."""
    shim.then('echo /proc/$$/fd/*; [ -z "$PASSED" ] || cat "/proc/$$/fd/$PASSED"')
    low, write = os.pipe()
    os.write(write, b"through the pipe")
    os.close(write)
    # A shell keeps its script open as the first number from 10 on that is free.
    read = fcntl.fcntl(low, fcntl.F_DUPFD, 60)
    os.close(low)
    shim.env["PASSED"] = str(read)
    with os.fdopen(read):
        shimmed = shim.run("create", CONTAINER, pass_fds=(read,)).stdout.decode().splitlines()
    assert shimmed[1] == "through the pipe"
    shim.env["PASSED"] = ""
    runc = [str(shim.place / "bin" / "runc")]
    plain = subprocess.run(runc, env=shim.env, capture_output=True, check=True).stdout.decode().splitlines()
    # By their numbers; what runc has open of its own is the same in both.
    assert {path.split("/")[-1] for path in shimmed[0].split()} == {
        *(path.split("/")[-1] for path in plain[0].split()),
        str(read),
    }


def test_it_is_the_same_process(shim: Shim) -> None:
    """So that signals reach runc, and its death is seen by its caller."""
    shim.then('trap "exit 44" TERM; echo $$ >"$PLACE/pid"; while :; do sleep 0.01; done')
    process = shim.begin("start", CONTAINER)
    pid = shim.place / "pid"
    until(lambda: pid.exists() and pid.read_text().strip())
    assert int(pid.read_text()) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 44


def test_without_runc(shim: Shim) -> None:
    shim.env["PATH"] = "/nonexistent"
    shim.shell = "/bin/" + shim.shell
    done = shim.run("start", CONTAINER)
    assert done.returncode == 127
    assert b"runc" in done.stderr


def test_cost(shim: Shim) -> None:
    """What the shim adds to a call, against the same program called at once: one start of a shell."""
    shim.then("exit 0")
    direct = ["sh", str(shim.place / "bin" / "runc"), "state", CONTAINER]
    shimmed = [shim.shell, str(shim.program), "state", CONTAINER]

    def seconds(command: list[str]) -> float:
        """Of a processor: what else this machine does must not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=shim.env, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    pairs = [(seconds(direct), seconds(shimmed)) for turn in range(40)]
    plain, through = (statistics.median(values) for values in zip(*pairs, strict=True))
    added = through - plain
    print(f"{shim.shell}: {added * 1000:.2f} ms more than {plain * 1000:.2f} ms")
    assert added < 0.010


def test_no_process_is_made(shim: Shim) -> None:
    """Nothing on the way to runc needs another program: with none to be found there is no word of complaint."""
    shim.env["PATH"] = str(shim.place / "bin")
    shim.shell = "/bin/" + shim.shell
    shim.then("exit 5")
    (shim.mark).mkdir()
    (shim.mark / "consumed").touch()
    done = shim.run("--root", "x", "create", CONTAINER)
    assert (done.returncode, done.stderr) == (5, b"")


def test_files_are_executable() -> None:
    names = ["criu", "livemigrate-criu-action", "livemigrate-network", "livemigrate-runc"]
    assert sorted(path.name for path in FILES.iterdir()) == names
    assert all(os.access(path, os.X_OK) for path in FILES.iterdir())
