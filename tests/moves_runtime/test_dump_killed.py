# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dump that is cut off in its middle: CRIU has thawed the tasks by then, and Docker still calls them paused."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

import pytest

from tests.moves.container_state import assert_as_before, before
from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.workloads.host import Host

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")

# Long enough to be met in the middle of it: some tenths of a second.
BALLAST_MB = 160

# Waits for the first 20 MB of memory in the images, then ends what dumps: by its name, or the whole unit in one of two ways.
_CUT_OFF = r"""
import glob, os, signal, subprocess, sys, time

target, end = sys.argv[1], time.monotonic() + 140
known = set(glob.glob("/var/lib/livemigrate/2*"))
while time.monotonic() < end:
    time.sleep(0.002)
    # Not pages-1.img alone: what a killed CRIU has left mapped comes first.
    for pages in glob.glob("/run/livemigrate/2*/images/pages-*.img") + glob.glob("/var/lib/livemigrate/2*/images/pages-*.img"):
        session = pages.split("/")[-3]
        try:
            if f"/var/lib/livemigrate/{session}" in known or os.path.getsize(pages) < 20_000_000:
                continue
        except FileNotFoundError:
            continue
        unit = f"livemigrate-{session}-dump.service"
        if target in ("unit", "stop"):
            how = ["kill", "--signal=KILL"] if target == "unit" else ["stop"]
            sys.exit(subprocess.run(["systemctl", *how, unit]).returncode)
        found = False
        for pid in open(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs").read().split():
            if open(f"/proc/{pid}/comm").read().strip() == target:
                os.kill(int(pid), signal.SIGKILL)
                found = True
        sys.exit(0 if found else 4)
sys.exit(5)
"""


class CutOff:
    """Waits on a host, from now on, for a dump to be in its middle, and ends it there."""

    def __init__(self, host: Host, target: str) -> None:
        self._host, self._target = host, target
        self._done: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self._done = self._host.run(["python3", "-c", _CUT_OFF, self._target], check=False, timeout=150)

    def happened(self) -> None:
        """Fails the test if nothing was cut off."""
        self._thread.join(150)
        assert self._done is not None, "no dump was met"
        assert self._done.returncode == 0, f"exit code {self._done.returncode}: {self._done.stderr}"


def test_a_dump_is_cut_off_in_its_middle(newer: Pair, start: Start) -> None:
    """The service goes on with its memory, Docker knows that it does, nothing is left; and in the end it moves."""
    source, destination = newer.alpha, newer.beta
    arguments = ["--restart", "unless-stopped", "--env", f"COUNTER_BALLAST_MB={BALLAST_MB}"]
    moving = start(source, [source, destination], *arguments)
    was = before(moving, source, destination)
    for target in ("criu", "runc", "unit", "stop"):
        cut = CutOff(source, target)
        migration = moving.move(source, destination)
        cut.happened()
        why = "crashed or was killed" if target == "criu" else "CRIU cannot dump the container"
        migration.fail_with(why, "the container stayed here")
        assert_as_before(moving, was, source, destination)
        # For Docker too it is a container like any other.
        assert source.docker("exec", moving.name, "echo", target) == target
        source.docker("pause", moving.name)
        source.docker("unpause", moving.name)
    # What CRIU has left mapped in a process does no harm.
    moving.move(source, destination).succeed()
    after = moving.assert_runs_on(destination)
    assert after.details["memory"] == moving.first.details["memory"]
