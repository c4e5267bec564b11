# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real service manager with nothing but a test's units: systemd's manager of a user, alone in a cgroup of the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed, run
from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.support import wait_for

_PROGRAM = "/usr/lib/systemd/systemd"

# In a cgroup namespace it sees no cgroup but the test's, and in a mount namespace it believes to be where systemd is at work.
_START = """
echo $$ >"$1/cgroup.procs"
exec unshare --mount --cgroup sh -c '
mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs none /run && mkdir -p /run/systemd/system &&
exec "$1" --user --unit=empty.target --log-target=console' sh "$2"
"""

_SYSTEMCTL = """\
#!/bin/sh
exec {systemctl} --user "$@"
"""


class Manager:
    """A service manager that is at work; its units are below ``units``."""

    def __init__(self, place: Path, group: Group) -> None:
        self._group = group
        self._pid = 0
        self.units = place / "home" / ".config" / "systemd" / "user"
        self.programs = place / "programs"
        runtime = place / "xdg"
        for directory in (self.units, self.programs, runtime):
            directory.mkdir(parents=True)
        runtime.chmod(0o700)
        (self.units / "empty.target").write_text("[Unit]\nDescription=Nothing\n")
        systemctl = self.programs / "systemctl"
        systemctl.write_text(_SYSTEMCTL.format(systemctl=shutil.which("systemctl")))
        systemctl.chmod(0o755)
        self.env = {
            "HOME": str(place / "home"),
            "XDG_RUNTIME_DIR": str(runtime),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
        }

    @contextlib.contextmanager
    def at_work(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Start it; when the block ends it is killed."""
        argv = ["sh", "-c", _START, "sh", self._group.path, _PROGRAM]
        with log.open("wb") as to, subprocess.Popen(argv, env=self.env, stdout=to, stderr=to) as process:
            self._pid = process.pid
            try:
                yield process
            finally:
                process.kill()

    def run(self, argv: Sequence[str], **keywords: Any) -> Completed:
        """Run a program for which this is the service manager (a Runner)."""
        # systemctl wants to be where systemd is at work.
        enter = ["nsenter", "--mount", f"--target={self._pid}"]
        return run([*enter, str(self.programs / argv[0]), *argv[1:]], **{**keywords, "env": self.env})

    def cpu_seconds(self) -> float:
        """What the manager and everything that it has started have used of the processor."""
        for line in (Path(self._group.path) / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
        raise AssertionError("cpu.stat has no usage_usec")


@contextlib.contextmanager
def manager(place: Path) -> Iterator[Manager]:
    """A service manager with no units but those that a test makes.

    :param place: an empty directory whose path is short, for sockets.
    """
    if os.geteuid() != 0 or not os.access(_PROGRAM, os.X_OK) or not shutil.which("unshare"):
        pytest.skip("needs root, systemd and unshare")
    with own_group() as group:
        made = Manager(place, group)
        log = place / "log"
        with made.at_work(log) as process:
            wait_for(
                lambda: (
                    process.poll() is not None
                    or made.run(["systemctl", "is-system-running"]).stdout.strip() in ("running", "degraded")
                ),
                "the service manager is ready",
                20,
            )
            if process.poll() is not None:
                pytest.skip(f"systemd cannot run here: {log.read_text(errors='replace').strip()[-200:]}")
            # systemd gives services a path of its own.
            made.run(["systemctl", "set-environment", f"PATH={made.env['PATH']}"])
            yield made
