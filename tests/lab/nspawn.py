# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that is a systemd-nspawn machine: it starts in seconds and shares this machine's kernel."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from . import access, aptsource, basefs, cgroups, identity, network, preload
from .machine import Machine
from .shell import LabError, bound, remove_tree, run

# systemd-nspawn --keep-unit: "the container asked for a reboot; whoever started me, start me again".
_REBOOT = 133

_ENVIRONMENT = {
    # dockerd must be able to write /proc/sys/net.
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    # CRIU and runc make system calls that nspawn's filter refuses.
    "SYSTEMD_SECCOMP": "0",
}


class NspawnMachine(Machine):
    """A host whose root file system is a directory of this machine, and whose processes are in its process table."""

    boot_seconds: ClassVar[int] = 180

    @property
    def root(self) -> Path:
        """Its root file system: plain files."""
        return self.directory / "root"

    # --- what it is

    def exists(self) -> bool:
        return self.root.is_dir()

    def is_up(self) -> bool:
        return self._leader() is not None

    def _leader(self) -> int | None:
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
        done = run(
            ["dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-Wf${db:Status-Status} ${Version}", package],
            check=False,
        )
        status, _space, version = done.stdout.partition(" ")
        if any((self.root / "usr/local" / directory / package).exists() for directory in ("sbin", "bin")):
            return "source"
        return version if done.returncode == 0 and status == "installed" else ""

    # --- its disk

    def create(self, flavour: str, mirror: aptsource.Mirror, root_login: bool) -> None:
        if self.exists():
            return
        base = basefs.ensure_base(self.settings, flavour, mirror)
        self.directory.mkdir(parents=True, exist_ok=True)
        making = self.directory / "root.making"
        if making.exists():
            remove_tree(making)
        run(bound("cp", "-a", "--reflink=auto", str(base), str(making)), timeout=300)
        identity.write(self.settings, making, self.name, flavour, mirror)
        if preload.is_needed():
            library = self.settings.directory / "prlimit_answer.so"
            preload.build(library)
            preload.install(library, making)
        access.set_root_login(making, root_login)
        self.set_flavour(flavour)
        making.rename(self.root)

    def introduce(self, neighbours: dict[str, str]) -> None:
        path = self.root / "etc/hosts"
        if path.exists():
            with path.open("a") as hosts:
                hosts.write(identity.unknown_neighbours(path.read_text(), neighbours))

    def root_login_allowed(self) -> bool:
        return access.root_login_allowed(self.root)

    def set_root_login(self, allowed: bool) -> None:
        access.set_root_login(self.root, allowed)
        if self.is_up():
            self.console(["systemctl", "reload", "ssh"])

    # --- power

    def plug(self) -> None:
        network.plug(self.settings, self.name, self.octet, self.port)

    def start(self, group: Path) -> subprocess.Popen[bytes]:
        return self.spawn(group, self._command(), _ENVIRONMENT)

    def attend(self, process: subprocess.Popen[bytes]) -> tuple[int, bool]:
        code = process.wait()
        return code, code == _REBOOT

    def _command(self) -> list[str]:
        settings = self.settings
        return [
            # Entered here, and not by nspawn's --network-namespace-path: that is entered after /sys has been mounted, and
            # /sys/class/net would show the machine's devices.
            "nsenter",
            f"--net=/run/netns/{network.namespace(settings, self.name)}",
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            f"--machine={settings.bridge}-{self.name}",
            f"--hostname={self.name}",
            f"--directory={self.root}",
            "--capability=all",
            "--system-call-filter=@known",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            # dockerd's fuse-overlayfs and podman look for it.
            "--bind=/dev/fuse",
            "--console=read-only",
            "--boot",
        ]

    def power_cut(self) -> None:
        super().power_cut()
        # What a killed nspawn leaves in /run: it refuses to start again over its own old mount points.
        for path in Path("/run/systemd/nspawn").glob(f"*/{self.settings.bridge}-{self.name}"):
            remove_tree(path)
        if self.root.is_dir():
            root = self.root.stat()
            Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}").unlink(missing_ok=True)

    # --- ways in

    def console_command(self, command: Sequence[str]) -> list[str]:
        pid = self._leader()
        if pid is None:
            raise LabError(f"{self.name} is down")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["env", "-i", path, "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8", *command]
        return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", *inside]
