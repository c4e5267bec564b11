# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of the lab: its root file system, its power, and two ways in (ssh, and a console that needs no network)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import access, aptsource, cgroups, preload
from .settings import Settings, write_json
from .shell import LabError, bound, is_alive, remove_tree, run, wait_for

_READY_STATES = ("running", "degraded")


class Machine:
    """A host by name. Its state is on disk and in the kernel; any number of these objects may exist."""

    def __init__(self, settings: Settings, name: str, octet: int) -> None:
        self.settings = settings
        self.name = name
        self.octet = octet
        self.directory = settings.host_directory(name)
        self.root = self.directory / "root"
        self.console_log = self.directory / "console.log"
        self._state_file = self.directory / "machine.json"
        self._port_file = self.directory / "port.json"

    # --- what it is

    @property
    def address(self) -> str:
        return f"{self.settings.network}.{self.octet}"

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor recorded: itself and nspawn as [PID, start time], number of starts, last exit code."""
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

    def leader(self) -> int | None:
        """PID, as the machine sees it, of the host's PID 1; None while there is none."""
        for pid in cgroups.processes(self.settings, self.name):
            with contextlib.suppress(OSError, IndexError):
                fields = dict(
                    line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
                )
                # One namespace below ours and first in it; a container in the host is one more below.
                if fields["NSpid"].split()[1:] == ["1"] and fields["State"].split()[0] != "Z":
                    return pid
        return None

    def installed_version(self, package: str) -> str:
        """Version of a Debian package in the host; "source" for a program in /usr/local; "" where it is not there."""
        done = run(
            ["dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-Wf${db:Status-Status} ${Version}", package],
            check=False,
        )
        status, _space, version = done.stdout.partition(" ")
        if any((self.root / "usr/local" / directory / package).exists() for directory in ("sbin", "bin")):
            return "source"
        return version if done.returncode == 0 and status == "installed" else ""

    # --- its root file system

    def create(self, base: Path, flavour: str, mirror: aptsource.Mirror, root_login: bool) -> None:
        """Copy the base and make it this host; nothing to do where it has been done."""
        if self.root.is_dir():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        making = self.directory / "root.making"
        if making.exists():
            remove_tree(making)
        run(bound("cp", "-a", "--reflink=auto", str(base), str(making)), timeout=300)
        (making / "etc/hostname").write_text(f"{self.name}\n")
        (making / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (making / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
        with (making / "etc/hosts").open("a") as hosts:
            hosts.writelines(f"{line}\n" for line in aptsource.mirror_in_hosts_file(mirror))
        self._write_resolver(making)
        self._write_apt(making, flavour, mirror)
        certificates = aptsource.local_certificates()
        if certificates:
            for certificate in certificates:
                shutil.copy(certificate, making / "usr/local/share/ca-certificates" / certificate.name)
            run(bound("chroot", str(making), "update-ca-certificates"))
        if preload.is_needed():
            library = self.settings.directory / "prlimit_answer.so"
            preload.build(library)
            preload.install(library, making)
        access.admit(self.settings, making, self.name)
        access.set_root_login(making, root_login)
        (self.directory / "flavour").write_text(f"{flavour}\n")
        making.rename(self.root)

    def introduce(self, neighbours: dict[str, str]) -> None:
        """Add the names of hosts of the lab that this host does not know yet. neighbours: name to address."""
        path = self.root / "etc/hosts"
        if path.exists():
            known = {word for line in path.read_text().splitlines() for word in line.split()[1:]}
            with path.open("a") as hosts:
                hosts.writelines(f"{address} {name}\n" for name, address in neighbours.items() if name not in known)

    @staticmethod
    def _write_resolver(root: Path) -> None:
        servers = [f"nameserver {server}" for server in aptsource.resolvers()]
        resolv = root / "etc/resolv.conf"
        resolv.unlink(missing_ok=True)
        resolv.write_text("\n".join([*aptsource.resolver_options(), *servers]) + "\n")
        (root / "etc/environment").write_text("".join(f"{line}\n" for line in aptsource.proxy_environment()))

    def _write_apt(self, root: Path, flavour: str, mirror: aptsource.Mirror) -> None:
        options = [*mirror.options, *aptsource.suite_options(mirror, flavour)]
        (root / "etc/apt/apt.conf.d/80mirror").write_text("".join(f"{option}\n" for option in options))
        (root / "etc/apt/sources.list.d/debian.sources").write_text(
            f"Types: deb\nURIs: {mirror.uri}\nSuites: {flavour}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )

    # --- power

    def power_on(self) -> None:
        """Start the host's supervisor, which starts the host; returns at once."""
        if self.is_running():
            return
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
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LIVEMIGRATE_LAB_DIR": str(self.settings.directory),
                    "LIVEMIGRATE_LAB_CACHE": str(self.settings.cache),
                    "LIVEMIGRATE_LAB_CGROUP": str(group),
                },
            )
        wait_for(f"the supervisor of {self.name} (see {self.console_log})", self.is_running, 30)

    def power_cut(self) -> None:
        """Take the power away: every process of the host is killed at once, and its supervisor too.

        No process gets a signal that it could handle. The disk keeps what the processes had written; see
        README.md for how that differs from a real power cut.
        """
        state = self.state
        cgroups.kill(self.settings, self.name)
        for role in ("supervisor", "nspawn"):
            if is_alive(state.get(role)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(state[role][0], signal.SIGKILL)
        wait_for(
            f"the processes of {self.name} to end",
            lambda: (
                not cgroups.processes(self.settings, self.name)
                and not any(is_alive(state.get(role)) for role in ("supervisor", "nspawn"))
            ),
            30,
        )
        cgroups.remove(self.settings, self.name)
        self._remove_nspawn_traces()
        if self.directory.is_dir() and self._state_file.exists():
            self.update_state(supervisor=None, nspawn=None)

    def _remove_nspawn_traces(self) -> None:
        """Remove what a killed nspawn leaves in /run: it refuses to start again over its own old mount points."""
        for path in Path("/run/systemd/nspawn").glob(f"*/{self.settings.bridge}-{self.name}"):
            remove_tree(path)
        if self.root.is_dir():
            root = self.root.stat()
            Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}").unlink(missing_ok=True)

    def wait_ready(self, timeout: float = 180) -> None:
        """Wait until systemd has started everything and sshd lets us in.

        LabError says what was missing after timeout seconds, with the end of the console log. A host whose port is
        partitioned is not asked for ssh.
        """
        seen = {"systemd": "no answer yet"}

        def started() -> bool:
            if not self.is_running():
                raise LabError(f"{self.name} went down while it started (exit code {self.state.get('exit_code')})")
            done = self.console(["systemctl", "is-system-running"], check=False, timeout=20)
            seen["systemd"] = done.stdout.strip() or done.stderr.strip()
            return seen["systemd"] in _READY_STATES

        try:
            try:
                wait_for(f"systemd in {self.name}", started, timeout, interval=0.2)
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
        return "root" if access.root_login_allowed(self.root) else "ops"

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

    def console_command(self, command: Sequence[str]) -> list[str]:
        """A command line into the host that needs neither network nor sshd, as a server's console does.

        LabError when the host is down.
        """
        pid = self.leader()
        if pid is None:
            raise LabError(f"{self.name} is down")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["env", "-i", path, "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8", *command]
        return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", *inside]

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
