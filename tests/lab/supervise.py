# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The power supply of one host: runs as a process of its own, in the host's cgroup, as long as the host has power.

`systemctl reboot` in the host ends systemd-nspawn with a certain exit code; the host is then started again on a fresh
network namespace. Any other end means that the host was shut down.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from . import cgroups, network
from .machine import Machine
from .shell import start_time

# systemd-nspawn --keep-unit: "the container asked for a reboot; whoever started me, start me again".
_REBOOT = 133

_NSPAWN_ENVIRONMENT = {
    # dockerd must be able to write /proc/sys/net.
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    # CRIU and runc make system calls that nspawn's filter refuses.
    "SYSTEMD_SECCOMP": "0",
}


def nspawn_command(machine: Machine) -> list[str]:
    """The command line that boots a host."""
    settings = machine.settings
    return [
        # Entered here, and not by nspawn's --network-namespace-path: that is entered after /sys has been mounted, and
        # /sys/class/net would show the machine's devices.
        "nsenter",
        f"--net=/run/netns/{network.namespace(settings, machine.name)}",
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        f"--machine={settings.bridge}-{machine.name}",
        f"--hostname={machine.name}",
        f"--directory={machine.root}",
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


def supervise(machine: Machine) -> int:
    """Start the host, again after each reboot; returns its last exit code."""
    settings = machine.settings
    group = Path(os.environ["LIVEMIGRATE_LAB_CGROUP"])
    (group / "cgroup.procs").write_text(str(os.getpid()))
    # Recorded from inside the cgroup: whoever sees the record can rely on cgroups.kill() to reach this process.
    machine.update_state(supervisor=[os.getpid(), start_time(os.getpid())], nspawn=None)
    starts = int(machine.state.get("starts", 0))
    while True:
        starts += 1
        network.plug(settings, machine.name, machine.octet, machine.port)
        # A cgroup for each start: the one before is full of directories of the systemd that was.
        boot = group / f"boot-{starts}"
        boot.mkdir()
        environment = {"PATH": os.environ["PATH"], **_NSPAWN_ENVIRONMENT}
        # The shell moves itself into that cgroup and then becomes nspawn, which must be in it before it starts.
        enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(boot / "cgroup.procs")]
        process = subprocess.Popen([*enter, *nspawn_command(machine)], env=environment, stdin=subprocess.DEVNULL)
        machine.update_state(nspawn=[process.pid, start_time(process.pid)], starts=starts)
        code = process.wait()
        machine.update_state(nspawn=None, exit_code=code)
        print(f"lab: {machine.name} ended with exit code {code}", flush=True)
        # Stray processes of that start (none are expected) must not live on beside the next one.
        (boot / "cgroup.kill").write_text("1")
        cgroups.remove_tree(boot)
        if code != _REBOOT:
            network.unplug(settings, machine.name, machine.octet)
            return code
