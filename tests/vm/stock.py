# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stock Debian does to a container beside running it: limits by cgroup controllers, and AppArmor's profile."""

from __future__ import annotations

from tests.workloads.host import Host

# As a service is often started; the counter needs a tenth of it.
LIMITS = ("--memory", "96m", "--cpus", "0.75", "--pids-limit", "64")
PROFILE = "docker-default (enforce)"

_CONFINEMENT = r"""
pid=$(docker inspect --format '{{.State.Pid}}' "$1")
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)
for file in memory.max cpu.max pids.max; do echo "$file $(cat $cgroup/$file)"; done
for p in $(cat $cgroup/cgroup.procs); do
  # The counter's own sleep comes and goes.
  profile=$(cat /proc/$p/attr/current 2>/dev/null) && test -n "$profile" && echo "profile $profile"
done | sort -u
"""

IN_FORCE = [f"memory.max {96 << 20}", "cpu.max 75000 100000", "pids.max 64", f"profile {PROFILE}"]

# Denials of AppArmor; programs that died by a signal; the kernel's own complaints.
_COMPLAINTS = r"apparmor=.DENIED.|segfault at|general protection|Oops:|BUG:|WARNING: CPU"


def confinement(host: Host, name: str) -> list[str]:
    """The limits in the files of a container's cgroup, and the profiles of all its processes."""
    return host.run(["sh", "-c", _CONFINEMENT, "sh", name]).stdout.splitlines()


def complaints(host: Host) -> list[str]:
    """What the kernel has complained about since the host started."""
    done = host.run(["sh", "-c", f"journalctl --boot --dmesg --no-pager -o cat | grep -E '{_COMPLAINTS}'"], check=False)
    return done.stdout.splitlines()
