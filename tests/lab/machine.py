# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of the lab, of whichever kind: its records, its power, and two ways in (ssh, and a console without network).

The kinds are nspawn.py (a systemd-nspawn machine, which shares this machine's kernel) and vm.py (a machine under QEMU,
which has its own). They differ in the disk, in what is started, and in the console.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from . import access, aptsource, cgroups
from .settings import Settings, write_json
from .shell import LabError, exclusive, is_alive, run, wait_for

_READY_STATES = ("running", "degraded")
# Keys of the supervisor's record that name a process.
_PROCESSES = ("supervisor", "process")


class Machine(abc.ABC):
    """A host by name. Its state is on disk and in the kernel; any number of these objects may exist."""

    # Seconds from power on until systemd has started everything, at the very worst.
    boot_seconds: ClassVar[int]
    # Between two questions whether it has.
    poll_seconds: ClassVar[float] = 0.2

    def __init__(self, settings: Settings, name: str, octet: int) -> None:
        self.settings = settings
        self.name = name
        self.octet = octet
        self.directory = settings.host_directory(name)
        self.console_log = self.directory / "console.log"
        self._state_file = self.directory / "machine.json"
        self._port_file = self.directory / "port.json"

    # --- what it is

    @property
    def address(self) -> str:
        return f"{self.settings.network}.{self.octet}"

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor recorded.

        supervisor and process (nspawn or QEMU) as [PID, start time], the number of starts, the last exit code.
        """
        try:
            return dict(json.loads(self._state_file.read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def update_state(self, **changes: Any) -> None:
        write_json(self._state_file, {**self.state, **changes})

    @property
    def port(self) -> dict[str, str]:
        """Faults on its port of the bridge (see network.apply_port)."""
        try:
            return dict(json.loads(self._port_file.read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def set_port(self, port: dict[str, str]) -> None:
        write_json(self._port_file, port)

    @property
    def flavour(self) -> str:
        path = self.directory / "flavour"
        return path.read_text().strip() if path.exists() else ""

    def is_running(self) -> bool:
        """Whether the host has power: its supervisor lives (between the two halves of a reboot, too)."""
        return is_alive(self.state.get("supervisor"))

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether its disk has been made."""

    @abc.abstractmethod
    def is_up(self) -> bool:
        """Whether its system runs so far that console() can work."""

    @abc.abstractmethod
    def installed_version(self, package: str) -> str:
        """Version of a Debian package in the host; "source" for a program in /usr/local; "" where it is not there."""

    # --- its disk

    def set_flavour(self, flavour: str) -> None:
        (self.directory / "flavour").write_text(f"{flavour}\n")

    @abc.abstractmethod
    def create(self, flavour: str, mirror: aptsource.Mirror, root_login: bool) -> None:
        """Make its disk from the base of the flavour (built first where the cache lacks it), unless that has been done."""

    @abc.abstractmethod
    def introduce(self, neighbours: dict[str, str]) -> None:
        """Add the names of hosts of the lab that this host does not know yet. neighbours: name to address."""

    @abc.abstractmethod
    def root_login_allowed(self) -> bool:
        """Whether sshd admits root."""

    @abc.abstractmethod
    def set_root_login(self, allowed: bool) -> None:
        """Have sshd admit root (by key), or refuse root altogether."""

    # --- power

    def power_on(self) -> None:
        """Start the host's supervisor, which starts the host; returns at once."""
        # Whoever boots it at the same time must not start a second system on its disk.
        with exclusive(self.directory / "power.lock"):
            if not self.is_running():
                self._start_supervisor()

    def _start_supervisor(self) -> None:
        # What is still in its cgroup then belongs to a supervisor that died alone.
        self.power_cut()
        group = cgroups.create(self.settings, self.name)
        # The log of the start before, for whoever asks why the host went down.
        if self.console_log.exists():
            self.console_log.replace(self.console_log.with_suffix(".log.1"))
        with self.console_log.open("ab") as log:
            # setsid --fork: the supervisor must be nobody's child here, since it outlives whoever boots the host.
            program = str(Path(__file__).with_name("lab.py"))
            subprocess.run(
                ["setsid", "--fork", sys.executable, "-I", program, "supervise", self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                cwd="/",
                env={
                    **{key: value for key, value in os.environ.items() if key.startswith("LIVEMIGRATE_LAB_")},
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LIVEMIGRATE_LAB_DIR": str(self.settings.directory),
                    "LIVEMIGRATE_LAB_CACHE": str(self.settings.cache),
                    "LIVEMIGRATE_LAB_CGROUP": str(group),
                },
            )
        wait_for(f"the supervisor of {self.name} (see {self.console_log})", self.is_running, 30)

    def power_cut(self) -> None:
        """Take the power away: every process of the host is killed at once, and its supervisor too.

        No process gets a signal that it could handle. What the disk keeps depends on the kind of machine: see README.md.
        """
        state = self.state
        cgroups.kill(self.settings, self.name)
        for role in _PROCESSES:
            if is_alive(state.get(role)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state[role][0], signal.SIGKILL)
        wait_for(
            f"the processes of {self.name} to end",
            lambda: (
                not cgroups.processes(self.settings, self.name)
                and not any(is_alive(state.get(role)) for role in _PROCESSES)
            ),
            30,
        )
        cgroups.remove(self.settings, self.name)
        if self.directory.is_dir() and self._state_file.exists():
            self.update_state(supervisor=None, process=None)

    @abc.abstractmethod
    def plug(self) -> None:
        """Lay a fresh cable to the lab's bridge, with the faults that its port has."""

    @abc.abstractmethod
    def start(self, group: Path) -> subprocess.Popen[bytes]:
        """Start the host in this cgroup. Called by its supervisor, as attend() is."""

    @abc.abstractmethod
    def attend(self, process: subprocess.Popen[bytes]) -> tuple[int, bool]:
        """Wait until the process that start() returned ends: its exit code, and whether the host asked for a reboot."""

    @staticmethod
    def spawn(
        group: Path, command: Sequence[str], environment: Mapping[str, str], *, pipes: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a program in a cgroup. pipes: its standard input and output are pipes, for whoever speaks with it."""
        # The shell moves itself into the cgroup and then becomes the program, which must be in it before it starts.
        enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
        return subprocess.Popen(
            [*enter, *command],
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else None,
        )

    def wait_ready(self, timeout: float = 0) -> None:
        """Wait until systemd has started everything and sshd lets us in.

        timeout: seconds; 0 for what its kind may take at the very worst. LabError then says what was missing, with the end
        of the console log. A host whose port is partitioned is not asked for ssh.
        """
        seen = {"systemd": "no answer yet"}

        def started() -> bool:
            if not self.is_running():
                raise LabError(f"{self.name} went down while it started (exit code {self.state.get('exit_code')})")
            if not self.is_up():
                return False
            done = self.console(["systemctl", "is-system-running"], check=False)
            seen["systemd"] = done.stdout.strip() or done.stderr.strip()
            return seen["systemd"] in _READY_STATES

        try:
            try:
                wait_for(f"systemd in {self.name}", started, timeout or self.boot_seconds, interval=self.poll_seconds)
            except LabError as error:
                raise LabError(f"{error} (systemd says: {seen['systemd']})") from error
            if self.port.get("partition") != "all":
                wait_for(
                    f"sshd of {self.name} ({self.address})", lambda: self.ssh(["true"], check=False).returncode == 0, 60
                )
        except LabError as error:
            raise LabError(f"{error}\n--- end of {self.console_log}:\n{self.console_tail()}") from error

    def console_tail(self, lines: int = 25) -> str:
        """The last lines of the console log."""
        if not self.console_log.exists():
            return "(empty)"
        return "\n".join(self.console_log.read_text(errors="replace").splitlines()[-lines:])

    # --- ways in

    def login_user(self) -> str:
        """The user that sshd lets in: root, or ops where root may not."""
        return "root" if self.root_login_allowed() else "ops"

    def ssh_command(self, command: Sequence[str] = ()) -> list[str]:
        """An ssh command line into the host; command is handed to a shell there, as ssh does."""
        return [
            "ssh", "-i", str(self.settings.key_file), *access.ssh_options(self.settings), "-o", "ConnectTimeout=5",
            f"{self.login_user()}@{self.address}", *command,
        ]  # fmt: skip

    def ssh(
        self, command: Sequence[str], *, check: bool = True, timeout: float | None = 60, text_input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host over ssh, as Ansible would reach it."""
        line = self.ssh_command(command)
        line[1:1] = ["-o", "BatchMode=yes"]
        return run(line, check=check, timeout=timeout, text_input=text_input)

    @abc.abstractmethod
    def console_command(self, command: Sequence[str]) -> list[str]:
        """A command line into the host that needs neither network nor sshd, as a server's console does.

        LabError when the host is down.
        """

    def console(
        self, command: Sequence[str], *, check: bool = True, timeout: float | None = 60, text_input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host without its network, as root."""
        try:
            line = self.console_command(command)
        except LabError as error:
            if check:
                raise
            return subprocess.CompletedProcess(list(command), 255, "", str(error))
        return run(line, check=check, timeout=timeout, text_input=text_input)
