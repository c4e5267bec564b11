# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that is a virtual machine under QEMU: a stock Debian with its own kernel, AppArmor, cgroup controllers and disk."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from . import access, aptsource, guestagent, identity, network, qemu, vmbase
from .machine import Machine
from .settings import write_json
from .shell import LabError, remove_tree, run

# A machine of qemu.machine_command() has one network card.
_NETWORK = "[Match]\nName=eth0\n[Network]\nAddress={address}/24\nGateway={gateway}\nLinkLocalAddressing=ipv6\n"
_SSHD_ANSWER = "/etc/ssh/sshd_config.d/root-login.conf"


class VirtualMachine(Machine):
    """A host with a disk image. What it had not flushed to that disk is lost in a power cut."""

    # Emulated, beside another one that starts and a busy machine.
    boot_seconds: ClassVar[int] = 600
    # Each question costs it a part of a second.
    poll_seconds: ClassVar[float] = 3.0

    @property
    def _disk(self) -> Path:
        return self.directory / "disk.qcow2"

    @property
    def _agent(self) -> Path:
        return self.directory / "agent"

    @property
    def _base(self) -> Path:
        return Path((self.directory / "base").read_text().strip())

    # --- what it is

    def exists(self) -> bool:
        return (self.directory / "base").exists()

    def is_up(self) -> bool:
        return self.is_running() and guestagent.answers(self._agent)

    def installed_version(self, package: str) -> str:
        script = (
            'test -e "/usr/local/sbin/$0" -o -e "/usr/local/bin/$0" && echo source && exit; '
            "dpkg-query -Wf '${db:Status-Status} ${Version}' \"$0\""
        )
        done = self.console(["sh", "-c", script, package], check=False)
        status, _space, version = done.stdout.strip().partition(" ")
        return "source" if status == "source" else version if status == "installed" else ""

    # --- its disk

    def create(self, flavour: str, mirror: aptsource.Mirror, root_login: bool) -> None:
        if self.exists():
            return
        qemu.ensure_qemu(self.settings, mirror)
        base = vmbase.ensure_base(self.settings, flavour, mirror)
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._copy_of(base / "root") as tree:
            identity.write(self.settings, tree, self.name, flavour, mirror)
            access.set_root_login(tree, root_login)
            network_file = tree / "etc/systemd/network/10-lab.network"
            network_file.write_text(_NETWORK.format(address=self.address, gateway=self.settings.gateway))
            qemu.make_disk(self.settings, tree, self.directory, base)
        self._remember_root_login(root_login)
        self.set_flavour(flavour)
        (self.directory / "base").write_text(f"{base}\n")

    @contextlib.contextmanager
    def _copy_of(self, tree: Path) -> Iterator[Path]:
        """The tree, to be changed: an overlay, since it is read once and a copy of it would cost as long as a disk."""
        scratch = self.directory / "making"
        remove_tree(scratch)
        for part in ("upper", "work", "merged"):
            (scratch / part).mkdir(parents=True)
        options = f"lowerdir={tree},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
        run(["mount", "-t", "overlay", "overlay", "-o", options, str(scratch / "merged")])
        try:
            yield scratch / "merged"
        finally:
            remove_tree(scratch)

    @property
    def _neighbours_file(self) -> Path:
        return self.directory / "neighbours.json"

    def introduce(self, neighbours: dict[str, str]) -> None:
        # Its disk cannot be written from here: told when it is ready.
        if self.exists():
            write_json(self._neighbours_file, neighbours)
            if self.is_up():
                self._tell_neighbours()

    def _tell_neighbours(self) -> None:
        if self._neighbours_file.exists():
            known = self.console(["cat", "/etc/hosts"]).stdout
            lines = identity.unknown_neighbours(known, json.loads(self._neighbours_file.read_text()))
            if lines:
                self.console(["sh", "-c", "cat >> /etc/hosts && sync /etc/hosts"], text_input=lines)

    def root_login_allowed(self) -> bool:
        return not (self.directory / "no-root-login").exists()

    def _remember_root_login(self, allowed: bool) -> None:
        (self.directory / "no-root-login").unlink(missing_ok=True)
        if not allowed:
            (self.directory / "no-root-login").touch()

    def set_root_login(self, allowed: bool) -> None:
        if not self.is_up():
            raise LabError(f"{self.name} is down: a virtual machine's sshd is told while it runs")
        script = f"cat > {_SSHD_ANSWER} && sync {_SSHD_ANSWER} && systemctl reload ssh"
        self.console(["sh", "-c", script], text_input=access.root_login_line(allowed))
        self._remember_root_login(allowed)

    # --- power

    def plug(self) -> None:
        network.plug(self.settings, self.name, self.octet, self.port, tap=True)

    @property
    def _kernel_arguments(self) -> Path:
        return self.directory / "kernel-arguments"

    def set_kernel_arguments(self, arguments: str) -> None:
        """Arguments that its kernel gets beside those of the lab, from the next start on ("ipv6.disable=1", "" for none)."""
        self._kernel_arguments.write_text(arguments)

    def start(self, group: Path) -> subprocess.Popen[bytes]:
        guestagent.make_port(self._agent)
        command = qemu.machine_command(
            self.settings,
            self.directory,
            self._base,
            namespace=network.namespace(self.settings, self.name),
            mac=network.mac(self.settings, self.octet),
            kernel_arguments=self._kernel_arguments.read_text() if self._kernel_arguments.exists() else "",
        )
        return self.spawn(group, command, {}, pipes=True)

    def attend(self, process: subprocess.Popen[bytes]) -> tuple[int, bool]:
        assert process.stdin is not None
        assert process.stdout is not None
        again = False
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
            process.stdin.flush()
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == "SHUTDOWN":
                    again = event["data"]["reason"] == "guest-reset"
        return process.wait(), again

    def wait_ready(self, timeout: float = 0) -> None:
        super().wait_ready(timeout)
        self._tell_neighbours()

    # --- ways in

    def console_command(self, command: Sequence[str]) -> list[str]:
        if not self.is_running():
            raise LabError(f"{self.name} is down")
        return [sys.executable, "-I", guestagent.__file__, str(self._agent), *command]
