# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shim and its action script as they are shipped, with other directories, beside a runc that notes what it is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT

FILES = ROOT / "roles" / "checkpointing" / "files"
CONTAINER = "4e1c0a" + "5b" * 29
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]

# Notes its arguments, NUL behind each, and does what a test put into `then`.
RUNC = """\
#!/bin/sh
if [ $# -eq 0 ]; then : >>"$PLACE/calls"; else printf '%s\\0' "$@" >>"$PLACE/calls"; fi
printf '\\n\\0' >>"$PLACE/calls"
. "$PLACE/then"
"""

# The same for livemigrate-network, which has its own tests, with real networks (tests/unit/network/test_fence.py).
NETWORK = """\
#!/bin/sh
echo "$1 $2 $(cat "$PLACE"/cgroup/system.slice/docker-x.scope/cgroup.freeze 2>/dev/null | head -n 1)" >>"$PLACE/network-calls"
[ ! -e "$PLACE/network-fails" ] || { echo 'no network' >&2; exit 1; }
"""


class Shim:
    """A host as the two programs see it: every path at the top of theirs leads to a directory of the test."""

    def __init__(self, place: Path, shell: str) -> None:
        self.place, self.shell = place, shell
        self.marks, self.works = place / "marks", place / "works"
        self.cgroups, self.proc, self.bundle = place / "cgroup", place / "proc", place / "a bundle"
        self.log = place / "a log.json"
        for directory in (self.marks, self.works, self.cgroups, self.proc, self.bundle, place / "bin"):
            directory.mkdir()
        self.action = self._copy("livemigrate-criu-action")
        self.program = self._copy("livemigrate-runc")
        runc = place / "bin" / "runc"
        runc.write_text(RUNC)
        runc.chmod(0o755)
        network = place / "network"
        network.write_text(NETWORK)
        network.chmod(0o755)
        self.then("")
        self.calls_file = place / "calls"
        self.env = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "PLACE": str(place)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def _copy(self, name: str) -> Path:
        """The shipped file with this host's paths. Only its assignments differ: nothing of it can be told from outside."""
        text = (FILES / name).read_text()
        for variable, path in (("marks", "marks"), ("works", "works"), ("cgroups", "cgroup"), ("proc", "proc")):
            text = re.sub(rf"^{variable}=/\S+$", f"{variable}={self.place}/{path}", text, flags=re.MULTILINE)
        text = re.sub(r"^action=/\S+$", f"action={self.place}/livemigrate-criu-action", text, flags=re.MULTILINE)
        text = re.sub(r"^programs=/\S+$", f"programs={self.place}/programs", text, flags=re.MULTILINE)
        text = re.sub(r"^network=/\S+$", f"network={self.place}/network", text, flags=re.MULTILINE)
        target = self.place / name
        target.write_text(text)
        target.chmod(0o755)
        return target

    def network_calls(self) -> list[str]:
        """What livemigrate-network was told so far, each with what the copy's freezer said at that moment."""
        calls = self.place / "network-calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def then(self, script: str) -> None:
        """What runc does once it has noted its arguments."""
        (self.place / "then").write_text(script + "\n")

    def calls(self) -> list[list[str]]:
        """The arguments of every call of runc so far."""
        if not self.calls_file.exists():
            return []
        words = self.calls_file.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
        calls: list[list[str]] = [[]]
        for word in words:
            if word == "\n":
                calls.append([])
            else:
                calls[-1].append(word)
        return calls[:-1]

    def run(self, *args: str, **more: object) -> subprocess.CompletedProcess[bytes]:
        """One call of the shim to its end."""
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [self.shell, self.program, *args], env=self.env, timeout=30, check=False, **{"capture_output": True, **more}
        )

    def begin(self, *args: str) -> subprocess.Popen[bytes]:
        """One call of the shim that is not waited for."""
        process = subprocess.Popen(
            [self.shell, self.program, *args], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.processes.append(process)
        return process

    # --- a migration's copy ---

    @property
    def mark(self) -> Path:
        return self.marks / CONTAINER

    @property
    def work(self) -> Path:
        return self.works / CONTAINER

    def globals(self) -> list[str]:
        """runc's own flags as containerd gives them."""
        return [
            "--root",
            "/run/docker/runtime-runc/moby",
            "--log",
            str(self.log),
            "--log-format",
            "json",
            "--systemd-cgroup",
        ]

    def create(self) -> list[str]:
        """A whole `create` as containerd calls it."""
        return [
            *self.globals(),
            "create",
            "--bundle",
            str(self.bundle),
            "--pid-file",
            f"{self.bundle}/init.pid",
            CONTAINER,
        ]

    def start(self) -> list[str]:
        """A whole `start` as containerd calls it."""
        return [*self.globals(), "start", CONTAINER]

    def messages(self) -> list[str]:
        """What containerd would tell the user."""
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        assert all(line["level"] == "error" and line["time"] for line in lines)
        return [line["msg"] for line in lines]

    def await_copy(self, session: str = "20261123-migration") -> None:
        """The container becomes the copy of a migration: marked, and with all that a restore needs."""
        self.mark.mkdir()
        (self.mark / "session").write_text(f"{session}\n")
        (self.work / "images").mkdir(parents=True)
        (self.work / "images" / "pages-1.img").write_text("memory")
        (self.work / "criu.conf").write_text(f"manage-cgroups=ignore\naction-script={self.action}\n")
        (self.work / "ready").touch()
        (self.bundle / "config.json").write_text('{"ociVersion":"1.2.0"}')

    def process(self, pid: int, cgroup: str, parent: int = 1) -> None:
        """A process of that number, in /proc."""
        directory = self.proc / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "cgroup").write_text(f"1:name=systemd:/elsewhere\n0::{cgroup}\n")
        (directory / "status").write_text(f"Name:\ta name\nState:\tT\nTgid:\t{pid}\nPPid:\t{parent}\nTracerPid:\t0\n")

    def cgroup(self, name: str, frozen: bool = True) -> Path:
        """A cgroup whose files are plain ones: what was written can be read again."""
        directory = self.cgroups / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.events").write_text(f"populated 1\nfrozen {int(frozen)}\n")
        (directory / "cgroup.freeze").write_text("1\n")
        (directory / "cgroup.procs").write_text("")
        return directory

    def hold(self, pid: int = 4242, cgroup: str = "system.slice/docker-x.scope") -> Path:
        """The copy is restored and held, as the action script leaves it."""
        directory = self.cgroup(cgroup)
        (directory / "cgroup.kill").write_text("")
        self.process(pid, f"/{cgroup}")
        (self.work / "held").write_text(f"{pid}\n{directory}\n")
        return directory


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something; the test fails when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
