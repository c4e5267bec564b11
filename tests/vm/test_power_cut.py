# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts that lose what a machine had not flushed to its disk, as real ones do: the nspawn lab keeps it."""

from __future__ import annotations

import time

import pytest

from tests.engines.conftest import session_on
from tests.engines.interrupt import Meeting, wait_settled, with_a_held_copy
from tests.migration.conftest import Pair
from tests.vm.conftest import SLOW, Start

pytestmark = pytest.mark.vm

_FREEZES_WITHIN = 60 * SLOW
_SETTLES_WITHIN = 60 * SLOW
_LINES = "yes 'a line of a file' | head -n 20000"


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
    debian13.lab.power_cut(destination.name)
    migration.kill()
    debian13.lab.boot(destination.name)
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    moving.assert_runs_on(source, timeout=6 * SLOW)
    deadline = time.monotonic() + 6 * SLOW
    while destination.docker("ps", "-aq", "--filter", f"name={moving.name}"):
        assert time.monotonic() < deadline, "the destination keeps what it refused"
        time.sleep(1)


def test_the_destination_loses_power_at_the_decision(debian13: Pair, start: Start) -> None:
    """RUN is on its disk: the source never goes on, and the copy begins afresh, as after any power cut."""
    source, destination = debian13.hosts
    moving = start(source, [source, destination], "--restart", "always")
    meeting = Meeting(destination, moving.name, "run", "STOP", seconds=_FREEZES_WITHIN)
    migration = moving.move(source, destination)
    meeting.happened()
    debian13.lab.power_cut(destination.name)
    migration.kill()
    time.sleep(3)
    assert source.inspect(moving.name)["State"]["Paused"], "it goes on without the destination's word"
    debian13.lab.boot(destination.name)
    assert session_on(destination, moving.name)["decision"] == "RUN", "its word is lost with its page cache"
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    running = [host.name for host in debian13.hosts if host.docker("ps", "-q", "--filter", f"name=^{moving.name}$")]
    assert running == [destination.name]


def test_the_source_loses_power_while_it_is_frozen(debian13: Pair, start: Start) -> None:
    """What it had written down is on its disk: after its boot it knows the session, gives it up, and starts the container."""
    source, destination = debian13.hosts
    moving = start(source, [source, destination], "--restart", "always")
    meeting = Meeting(source, moving.name, "dumped", "STOP", seconds=_FREEZES_WITHIN)
    migration = moving.move(source, destination)
    meeting.happened()
    debian13.lab.power_cut(source.name)
    migration.kill()
    debian13.lab.boot(source.name)
    wait_settled(moving, source, seconds=_SETTLES_WITHIN)
    assert session_on(source, moving.name)["decision"] != "GO_SENT"
    deadline = time.monotonic() + 30 * SLOW
    while not source.docker("ps", "-q", "--filter", f"name=^{moving.name}$"):
        assert time.monotonic() < deadline, "it was not started again"
        time.sleep(1)
    while destination.docker("ps", "-aq", "--filter", f"name={moving.name}"):
        assert time.monotonic() < deadline, "the destination keeps a copy"
        time.sleep(1)
