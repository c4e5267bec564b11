# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a test: what it left unfinished is settled, what it made is removed, and nothing else may be left.

A test that failed in the middle would else litter the lab for those after it: watchdogs, keys, claims, frozen containers.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.moves.host_snapshot import snapshot
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host

# How long things may take to go by themselves: a closed session's units, a process that ends.
_SECONDS_TO_GO = 10.0
# A session that was cut off counts as abandoned after 30 s without a sign of life.
_RECOVER_WAIT = 45

_SESSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]+")

_RECORDS = r"""
for d in /var/lib/livemigrate/2*; do
  test -f "$d/session.json" || continue
  printf '%s\t' "${d##*/}"; tr -d '\n' < "$d/session.json"; printf '\t'; tail -n 1 "$d/journal" | tr -d '\n'; echo
done
"""

# All that a session may have on a host, by its id.
_TAKE_AWAY = r"""
for s in "$@"; do
  systemctl stop "livemigrate-$s*" 2>/dev/null
  rm -f "/var/lib/livemigrate/watchdog/sessions/$s"
  systemctl stop "livemigrate-settle@$s.service" 2>/dev/null
  for note in /run/livemigrate/$s/transfer.*; do test -e "$note" && kill -KILL "${note##*.}" 2>/dev/null; done
  for keys in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
    test -e "$keys" && sed -i "/ livemigrate:$s\$/d" "$keys"
  done
  rm -f "/etc/sudoers.d/livemigrate-$s"
  grep -lsx "$s" /var/lib/livemigrate/locks/* | xargs -r rm -f
  docker ps -aq --filter "name=^livemigrate-$s" | xargs -r docker rm -fv
  grep -lsx "$s" /var/lib/livemigrate/restores/*/session | xargs -r -n1 dirname | xargs -r rm -rf
  umount -l "/run/livemigrate/$s" 2>/dev/null
  rm -rf "/run/livemigrate/$s" "/var/lib/livemigrate/$s"
done
systemctl daemon-reload
if [ -z "$(ls -A /var/lib/livemigrate/watchdog/sessions 2>/dev/null)" ]; then
  systemctl stop livemigrate-watchdog.timer 2>/dev/null
  rm -f /etc/systemd/system/livemigrate-watchdog.* /etc/systemd/system/livemigrate-settle@.service
  rm -f /etc/systemd/system/*.wants/livemigrate-watchdog.timer
  systemctl daemon-reload
fi
for s in "$@"; do systemctl reset-failed "livemigrate-$s*" "livemigrate-settle@$s.service" 2>/dev/null; done
rm -rf /tmp/ctrd-checkpoint*
true
"""

# Thawed first, without asking the engine, which need not know that it is frozen. A volume that was anonymous where the container
# was made has a name like any other where it was moved to, and `docker rm -v` leaves it.
_REMOVE_CONTAINERS = r"""
for c in $(docker ps -aq --no-trunc --filter "name=^$1"); do
  frozen=/sys/fs/cgroup/system.slice/docker-$c.scope/cgroup.freeze
  test -e $frozen && echo 0 > $frozen
  volumes=$(docker inspect --format '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}' $c)
  docker rm -fv $c >/dev/null
  for v in $volumes; do test ${#v} = 64 && docker volume rm $v >/dev/null 2>&1; done
done
true
"""


@dataclass(frozen=True)
class _Record:
    session: str
    container: str
    phase: str


def _records(host: Host) -> list[_Record]:
    """The sessions on a host, settled or not."""
    found = []
    for line in host.run(["sh", "-c", _RECORDS]).stdout.splitlines():
        session, facts, last = line.split("\t")
        # The journal's last line may be cut off, by a host that lost its power.
        phase = re.search(r'"phase": "(\w+)"', last)
        name = str(json.loads(facts).get("container_name"))
        found.append(_Record(session, name, phase.group(1) if phase else ""))
    return found


def forget(hosts: Sequence[Host], names: Sequence[str], inventory: str = "") -> None:
    """Settle the sessions of containers as a person would, and remove both with the old copies.

    :param names: what the containers' names begin with.
    :param inventory: of recover.yml; the lab's own where its groups are the two hosts.
    """
    if any(
        record.container.startswith(tuple(names)) and record.phase != "closed"
        for host in hosts
        for record in _records(host)
    ):
        # What it cannot settle is found by those who look what is left.
        waiting = ["-e", f"migrate_wait={_RECOVER_WAIT}"]
        Migration("", waiting, playbook="recover.yml", inventory=inventory).end()
    for host in hosts:
        for name in names:
            host.run(["sh", "-c", _REMOVE_CONTAINERS, "sh", name])
        for record in _records(host):
            if record.container.startswith(tuple(names)) and record.phase == "closed":
                host.run(["rm", "-rf", f"/var/lib/livemigrate/{record.session}"])


def _new(host: Host, before: Sequence[str], seconds: float) -> list[str]:
    """What is on a host that was not there before; things get so many seconds to go by themselves."""
    deadline = time.monotonic() + seconds
    while True:
        found = [line for line in snapshot(host) if line not in before]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.5)


@contextmanager
def nothing_left(
    pair: Pair,
    names: Sequence[str],
    also: Callable[[], None] | None = None,
    *,
    hosts: Sequence[Host] = (),
    inventory: str = "",
    seconds: float = _SECONDS_TO_GO,
) -> Iterator[None]:
    """Tidy up after a test, and fail where a settled session has left something; that is taken away all the same.

    :param names: what the names of the containers that the test makes begin with; may be added to meanwhile.
    :param also: removes what else the test made, once the containers are gone.
    :param hosts: where it makes them, if not on the pair alone.
    :param inventory: as for :func:`forget`.
    :param seconds: that things may take to go by themselves.
    """
    hosts = hosts or pair.hosts
    before = {host.name: snapshot(host) for host in hosts}
    try:
        yield
    finally:
        Migration.kill_all()
        for host in hosts:
            if not pair.lab.machine(host.name).is_running():
                pair.lab.boot(host.name)
        forget(hosts, names, inventory)
        if also is not None:
            also()
        reported = []
        for host in hosts:
            left = _new(host, before[host.name], seconds)
            if left:
                sessions = sorted(set(_SESSION.findall("\n".join(left))))
                host.run(["sh", "-c", _TAKE_AWAY, "sh", *sessions])
                reported += [f"{host.name} was left with: {line}" for line in left]
                reported += [f"{host.name} cannot be rid of: {line}" for line in _new(host, before[host.name], 5)]
        assert not reported, "\n".join(reported)
