# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts that lose what a machine had not flushed to its disk, as real ones do: the nspawn lab keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.moves.moving_counter import Moving, session_on
from tests.moves.pair import Pair
from tests.moves.phase_meeting import Meeting, wait_settled, with_a_held_copy
from tests.moves.playbook_run import Migration
from tests.vm.conftest import SLOW, Start
from tests.workloads.host import Host

pytestmark = pytest.mark.vm

_FREEZES_WITHIN = 60 * SLOW
_SETTLES_WITHIN = 60 * SLOW
_LINES = "yes 'a line of a file' | head -n 20000"

# What a database does: a write is acknowledged when it is on the disk. New files, which an early power cut leaves empty or takes
# back, and one that grows. Each start of it writes under names of its own, so that a cold start does not hide what is lost.
_WRITER = r"""
mkdir -p /kept
read -r run </proc/sys/kernel/random/uuid
count=0
while :; do
    count=$((count + 1))
    for place in /data /kept; do
        echo $count | dd of=$place/$run.$count conv=fsync 2>/dev/null || exit 1
        echo $count | dd of=$place/$run.all oflag=append conv=notrunc,fsync 2>/dev/null || exit 1
    done
    echo "acknowledged $run $count"
    sleep 1
done &
exec counter
"""

# For each name: what the first word of the file is, and the same of what grows, line by line.
_READ = r"""
for place in /data /kept; do
    for file in $place/$1.*; do
        while read -r count; do echo "$place ${file##*.} $count"; done <$file
    done
done
"""

# The kernel writes by itself what is dirty for 30 seconds, and on an emulated machine a move takes longer. A power cut comes
# sooner on a real one.
_WRITES_NOTHING_BY_ITSELF = "cd /proc/sys/vm; echo 0 >dirty_writeback_centisecs; echo 360000 >dirty_expire_centisecs"


def _power_cut(pair: Pair, host: Host, migration: Migration) -> None:
    """A host loses its power, and the control node with it."""
    pair.lab.power_cut(host.name)
    migration.kill()


def _cut_at(pair: Pair, host: Host, moving: Moving, phase: str, *, signal: str = "STOP") -> None:
    """Move a counter from the first host to the second; one of them loses its power when its half has come to a phase.

    :param signal: `none` where nothing follows the phase that would have to be kept from happening.
    """
    meeting = Meeting(host, moving.name, phase, signal, seconds=_FREEZES_WITHIN)
    migration = moving.move(*pair.hosts)
    meeting.happened(migration)
    _power_cut(pair, host, migration)


def _wait_until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(1)


def _copies(host: Host, moving: Moving, *, running: bool = False) -> str:
    """The containers of that name on a host, old copies included unless they have to run."""
    options = ["-q", "--filter", f"name=^{moving.name}$"] if running else ["-aq", "--filter", f"name={moving.name}"]
    return host.docker("ps", *options)


def test_what_was_not_flushed_is_lost(debian13: Pair) -> None:
    """Of the lab, not of the product: a file that was flushed is whole after a power cut, one that was not is gone."""
    host = debian13.beta
    host.run(["sh", "-c", f"{_LINES} > /root/flushed; sync /root/flushed; {_LINES} > /root/lost; md5sum /root/flushed"])
    debian13.lab.power_cut(host.name)
    debian13.lab.boot(host.name)
    lines = host.run(["sh", "-c", "cd /root; wc -l < flushed; test -s lost && echo kept; rm -f flushed lost"]).stdout
    assert lines.split() == ["20000"]


def test_the_destination_loses_power_while_the_copy_is_held(debian13: Pair, start: Start) -> None:
    """Nothing of it has run: the destination says REFUSED after its boot, the source goes on."""
    source, destination = debian13.hosts
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    migration, _meeting = with_a_held_copy(moving, source, destination, seconds=_FREEZES_WITHIN)
    _power_cut(debian13, destination, migration)
    debian13.lab.boot(destination.name)
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    moving.assert_runs_on(source, timeout=6 * SLOW)
    _wait_until(lambda: not _copies(destination, moving), 6 * SLOW, "the destination keeps what it refused")


def test_the_destination_loses_power_at_the_decision(debian13: Pair, start: Start) -> None:
    """RUN is on its disk: the source never goes on, whether it has heard that or not, and the copy begins afresh."""
    source, destination = debian13.hosts
    moving = start(source, [source, destination], "--restart", "always")
    _cut_at(debian13, destination, moving, "run", signal="none")
    time.sleep(3)
    goes_on = source.docker("ps", "-q", "--filter", f"name={moving.name}", "--filter", "status=running")
    assert not goes_on, "it goes on beside a destination that has said RUN"
    debian13.lab.boot(destination.name)
    assert session_on(destination, moving.name)["decision"] == "RUN", "its word is lost with its page cache"
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    running = [host.name for host in debian13.hosts if _copies(host, moving, running=True)]
    assert running == [destination.name]


def test_what_was_durable_on_the_source_is_durable_on_the_destination_before_run(debian13: Pair, start: Start) -> None:
    """The destination loses its power right after RUN: every write that was acknowledged on the source is there, in a volume and
    in the layer, sent ahead and in the last pass."""
    source, destination = debian13.hosts
    destination.run(["sh", "-c", _WRITES_NOTHING_BY_ITSELF])
    command = ["sh", "-c", _WRITER]
    moving = start(source, [source, destination], "--restart", "always", "--volume", "/data", command=command)
    _cut_at(debian13, destination, moving, "run", signal="none")
    debian13.lab.boot(destination.name)
    assert session_on(destination, moving.name)["decision"] == "RUN"
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    # The old copy is kept, and its log has what was said on the source.
    lines = source.docker("logs", _old_copy(source, moving)).splitlines()
    acknowledged = [line.split() for line in lines if line.startswith("acknowledged ")]
    [run] = {words[1] for words in acknowledged}
    assert len(acknowledged) > 5, "it has hardly written anything"
    # Started afresh by its restart policy.
    _wait_until(lambda: _copies(destination, moving, running=True), _SETTLES_WITHIN, "the copy cannot be started")
    found = set(destination.docker("exec", moving.name, "sh", "-c", _READ, "sh", run).splitlines())
    numbers = [words[2] for words in acknowledged]
    wanted = {f"{place} {name} {n}" for place in ("/data", "/kept") for n in numbers for name in (n, "all")}
    assert not wanted - found, "what was acknowledged is lost"


def _old_copy(host: Host, moving: Moving) -> str:
    return host.docker("ps", "-a", "--filter", f"name=^{moving.name}-moved-", "--format", "{{.Names}}")


def test_the_source_loses_power_while_it_is_frozen(debian13: Pair, start: Start) -> None:
    """What it had written down is on its disk: after its boot it knows the session, gives it up, and starts the container."""
    source, destination = debian13.hosts
    moving = start(source, [source, destination], "--restart", "always")
    _cut_at(debian13, source, moving, "dumped")
    debian13.lab.boot(source.name)
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    assert session_on(source, moving.name)["decision"] != "GO_SENT"
    _wait_until(lambda: _copies(source, moving, running=True), 30 * SLOW, "it was not started again")
    _wait_until(lambda: not _copies(destination, moving), 30 * SLOW, "the destination keeps a copy")
