# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The power supply of one host: runs as a process of its own, in the host's cgroup, as long as the host has power.

A host that asks for a reboot (`systemctl reboot` in it) ends, and is started again on a fresh cable. Any other end means
that it was shut down.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import cgroups, network
from .machine import Machine
from .shell import start_time


def supervise(machine: Machine) -> int:
    """Start the host, again after each reboot; returns its last exit code."""
    settings = machine.settings
    group = Path(os.environ["LIVEMIGRATE_LAB_CGROUP"])
    (group / "cgroup.procs").write_text(str(os.getpid()))
    # Recorded from inside the cgroup: whoever sees the record can rely on cgroups.kill() to reach this process.
    machine.update_state(supervisor=[os.getpid(), start_time(os.getpid())], process=None)
    starts = int(machine.state.get("starts", 0))
    while True:
        starts += 1
        machine.plug()
        # A cgroup for each start: the one before is full of directories of the systemd that was.
        boot = group / f"boot-{starts}"
        boot.mkdir()
        process = machine.start(boot)
        machine.update_state(process=[process.pid, start_time(process.pid)], starts=starts)
        code, again = machine.attend(process)
        machine.update_state(process=None, exit_code=code)
        print(f"lab: {machine.name} ended with exit code {code}", flush=True)
        # Stray processes of that start (none are expected) must not live on beside the next one.
        (boot / "cgroup.kill").write_text("1")
        cgroups.remove_tree(boot)
        if not again:
            network.unplug(settings, machine.name, machine.octet)
            return code
