# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container and its two hosts look like from below, so that a test can say that an abort left no trace."""

from __future__ import annotations

import difflib
from typing import Any

from tests.moves.host_snapshot import assert_unchanged, snapshot
from tests.moves.moving_counter import Moving
from tests.workloads.host import Host

# A closed session's record, without secrets, is kept on the source.
_RECORDS = ("/journal", "/session.json", "/decision")

# Of the kernel: cgroup, signals that are pending, firewall, network devices, mounts, and the writable layer's content.
_LOOK = r"""
pid=$(docker inspect --format '{{.State.Pid}}' "$1")
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)
grep frozen $cgroup/cgroup.events
for p in $(cat $cgroup/cgroup.procs); do
    # The counter's own sleep comes and goes.
    test "$(cat /proc/$p/comm 2>/dev/null)" = sleep || grep -H -E '^(ShdPnd|SigPnd|State)' /proc/$p/status | sed 's/(.*//'
    # A child of the counter's that has just ended comes and goes, too (SIGCHLD).
done | sed 's/0000000000010000$/0000000000000000/' | grep -v 'State:.[SR]'
ls $cgroup | grep -v '^cgroup\.\|\.' ; ls -d /proc/$pid/root/tmp
docker inspect --format '{{json .HostConfig.RestartPolicy}} {{.State.Status}} {{.State.Pid}} {{.Id}}' "$1"
find /proc/$pid/root/etc /proc/$pid/root/usr -xdev -printf '%P %m %u %T@\n' | sort | md5sum
"""
_HOST = r"""
iptables-save | grep -v '^#' | sed 's/\[[0-9:]*\]//'
nft list ruleset 2>/dev/null | grep -c livemigrate
findmnt -rn -o TARGET | grep -v '/run/docker\|/var/lib/docker\|/run/user\|/run/credentials' | sort
find /sys/fs/cgroup -type d -name '*docker-*' | sort
ls -A /run/livemigrate 2>/dev/null | grep -vxE 'restores|agents|self-test[.]json'
find /run/livemigrate/restores -name images 2>/dev/null
# Tombstones of containers that are no more go with the next migration.
for m in /var/lib/livemigrate/restores/*; do test -e "$m" && ! test -e "$m/consumed" && echo "$m"; done
true
"""


def before(moving: Moving, source: Host, destination: Host) -> dict[str, Any]:
    """What there is before the first try."""
    return {
        "container": _look(moving, source),
        "hosts": [_host(source), _host(destination)],
        "traces": [snapshot(source), snapshot(destination)],
    }


def _look(moving: Moving, host: Host) -> list[str]:
    return host.run(["sh", "-c", _LOOK, "sh", moving.name]).stdout.splitlines()


def _host(host: Host) -> list[str]:
    return host.run(["sh", "-c", _HOST]).stdout.splitlines()


def assert_as_before(moving: Moving, was: dict[str, Any], source: Host, destination: Host) -> None:
    """It runs on the source as it did, and both hosts hold what they held."""
    moving.assert_runs_on(source)
    assert_unchanged(source, was["traces"][0], ignore=_RECORDS)
    assert_unchanged(destination, was["traces"][1])
    assert _look(moving, source) == was["container"]
    for host, before in zip((source, destination), was["hosts"], strict=True):
        differences = list(difflib.unified_diff(before, _host(host), "before", "after", lineterm="", n=0))
        assert not differences, f"{host.name} is not as it was:\n" + "\n".join(differences)
