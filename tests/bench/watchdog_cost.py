# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the watchdog costs a host of the lab that has many sessions, all of which show signs of life.

    make lab-up && .venv/bin/python -m tests.bench.watchdog_cost

The whole host's use of the processor (systemd, journal and D-Bus included) is read from its cgroup, for a minute without the
watchdog and for a minute with it. Nobody may move anything on that host meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.conftest import ROOT
from tests.workloads.host import Host

# Where pytest, which is not here, finds the collection.
sys.path.insert(0, str(ROOT / ".tree"))

from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog

# $1 sessions whose leases end in an hour.
_LEASES = r"""
set -e
mark=$(cat /proc/sys/kernel/random/boot_id)/$(sed 's/.*) //' /proc/1/stat | cut -d' ' -f20)
ends=$(awk '{printf "%d.000", $1 + 3600}' /proc/uptime)
mkdir -p -m 0700 /var/lib/livemigrate/watchdog/sessions
i=0
while [ $i -lt $1 ]; do
    s=$(printf '20200101T000000Z-%06x' $i)
    mkdir -p -m 0700 /run/livemigrate/$s
    printf '%s %s' "$mark" "$ends" >/run/livemigrate/$s/lease
    echo "exit 1" >/var/lib/livemigrate/watchdog/sessions/$s
    i=$((i + 1))
done
systemctl daemon-reload
systemctl start livemigrate-watchdog.timer
"""

_TAKE_AWAY = r"""
systemctl stop livemigrate-watchdog.timer
rm -rf /run/livemigrate/20200101T000000Z-* /var/lib/livemigrate/watchdog/sessions/20200101T000000Z-*
rm -f "$@"
systemctl daemon-reload
"""


def _cpu_seconds(host: Host) -> float:
    for line in host.run(["cat", "/sys/fs/cgroup/cpu.stat"]).stdout.splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    raise SystemExit(f"{host.name} does not tell what it has used of the processor")


def _share(host: Host, seconds: float) -> float:
    """Which share of a core the host uses."""
    before, began = _cpu_seconds(host), time.monotonic()
    time.sleep(seconds)
    return (_cpu_seconds(host) - before) / (time.monotonic() - began)


def main() -> int:
    """The measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="alpha", help="a host of the lab without a migration (alpha)")
    parser.add_argument("--sessions", type=int, default=100, help="how many it has (100)")
    parser.add_argument("--seconds", type=float, default=60, help="for how long each way (60)")
    arguments = parser.parse_args()
    host = Host.of_lab(arguments.host)
    texts = watchdog.texts()
    if host.run(["test", "-e", f"{watchdog.UNIT_DIRECTORY}/{watchdog.TIMER}"], check=False).returncode == 0:
        raise SystemExit(f"{host.name} has sessions")
    without = _share(host, arguments.seconds)
    try:
        host.run(["mkdir", "-p", watchdog.WATCHDOG_DIRECTORY])
        for path, content in texts.items():
            host.run(["tee", path], text_input=content)
        host.run(["sh", "-c", _LEASES, "sh", str(arguments.sessions)])
        time.sleep(2 * watchdog.INTERVAL_SECONDS)
        with_it = _share(host, arguments.seconds)
    finally:
        host.run(["sh", "-c", _TAKE_AWAY, "sh", *texts], check=False)
    print(f"without {100 * without:.2f} %, with {arguments.sessions} sessions {100 * with_it:.2f} % of a core")
    print(f"the watchdog takes {100 * (with_it - without):+.2f} % of a core")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
