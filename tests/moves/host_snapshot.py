# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host holds, so that a test can say that nothing is left behind."""

from __future__ import annotations

import difflib
import time

from tests.workloads.host import Host

# Each line of a snapshot is one thing that a migration may make: containers, volumes, networks, images, sessions and their
# secrets, keys, sudo rules, units, checkpoints, containerd's leftovers, processes of ours, mounts and namespaces of containers.
# (.lock is where claims are changed one at a time, self-test.json what criu_check has noted of this host's CRIU, agents the
# collection's compiled code; they stay.)
_SNAPSHOT = r"""
docker ps -a --no-trunc --format 'container {{.ID}} {{.Names}} {{.State}}' | sort
docker volume ls --format 'volume {{.Name}}' | sort
docker network ls --format 'network {{.Name}}' | sort
docker images -a --no-trunc --format 'image {{.ID}} {{.Repository}}:{{.Tag}}' | sort
for d in /run/livemigrate /var/lib/livemigrate/locks /var/lib/livemigrate/watchdog/sessions; do
  ls -A $d 2>/dev/null | grep -vxE '[.]lock|restores|agents|self-test[.]json' | sed "s,^,$d/,"
done
for s in /var/lib/livemigrate/2*; do test -d "$s" && (cd "$s" && ls -A | sed "s,^,$s/,"); done
cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys 2>/dev/null | grep livemigrate: | cut -c1-300
ls -A /etc/sudoers.d | grep livemigrate
ls -A /etc/systemd/system /etc/systemd/system/*.wants /run/systemd/transient 2>/dev/null | grep livemigrate-
systemctl list-units --all --plain --no-legend 'livemigrate-*'
ls -d /tmp/ctrd-checkpoint* /tmp/.criu.mntns.* 2>/dev/null
ls -d /var/lib/docker/containers/*/checkpoints/* 2>/dev/null
pgrep -af 'criu|agent.pyz|/run/livemigrate' | grep -v pgrep | sed 's/^[0-9]* /process /'
nft list ruleset 2>/dev/null | grep -i livemigrate
true
"""


def snapshot(host: Host) -> list[str]:
    """What a host holds now."""
    return host.run(["sh", "-c", _SNAPSHOT]).stdout.splitlines()


def assert_unchanged(host: Host, before: list[str], *, ignore: tuple[str, ...] = (), timeout: float = 5) -> None:
    """Fail unless the host holds what it held before; some things take a moment to go.

    :param ignore: lines with one of these texts do not count (the journal that a session leaves on the source).
    """

    def counting(lines: list[str]) -> list[str]:
        return [line for line in lines if not any(text in line for text in ignore)]

    deadline = time.monotonic() + timeout
    while True:
        now = snapshot(host)
        if counting(now) == counting(before):
            return
        if time.monotonic() >= deadline:
            difference = difflib.unified_diff(counting(before), counting(now), "before", "after", lineterm="", n=0)
            raise AssertionError(f"{host.name} is not as it was:\n" + "\n".join(difference))
        time.sleep(0.5)
