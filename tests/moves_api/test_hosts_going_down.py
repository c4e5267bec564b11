# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that lose their power, or are rebooted, in the middle of a migration."""

from __future__ import annotations

import time

import pytest

from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.moves_api.conftest import Counter
from tests.workloads.probe import wait_for_answer


def _frozen_count(counter: Counter, pair: Pair) -> int:
    """The last count that the frozen container has printed."""
    return int(pair.alpha.docker("logs", "--tail", "1", counter.name))


@pytest.mark.parametrize("how", ["power_cut", "reboot"])
def test_source_goes_down_while_frozen(counter: Counter, pair: Pair, how: str) -> None:
    """The container is brought back from its own checkpoint: its count is unbroken, and the destination keeps nothing."""
    migration = counter.migrate()
    migration.until_task("Send the last changes and the checkpoint")
    migration.kill()
    deadline = time.monotonic() + 20
    while (
        pair.alpha.run(["sh", "-c", "ls -d /var/lib/docker/containers/*/checkpoints/2*"], check=False).returncode != 0
    ):
        assert time.monotonic() < deadline, "there never was a checkpoint"
        time.sleep(0.2)
    count = _frozen_count(counter, pair)
    if how == "power_cut":
        pair.lab.power_cut("alpha")
        pair.lab.boot("alpha")
    else:
        pair.lab.reboot("alpha")
    counter.assert_runs_on(pair.alpha, pair.beta, timeout=60, at_least=count)
    counter.assert_untouched(timeout=30)


def test_destination_loses_power_before_it_runs_the_copy(counter: Counter, pair: Pair) -> None:
    """The source has handed over and waits, frozen, until the destination is back and says REFUSED."""
    migration = counter.migrate()
    migration.until_task("Hand over")
    migration.until_task("Restore the container on the destination")
    pair.lab.power_cut("beta")
    migration.kill()
    count = _frozen_count(counter, pair)
    time.sleep(3)
    assert pair.alpha.inspect(counter.name)["State"]["Paused"], "it was thawed without the destination's word"
    pair.lab.boot("beta")
    counter.assert_runs_on(pair.alpha, pair.beta, timeout=90, at_least=count)
    Migration("", playbook="recover.yml").succeed()
    counter.assert_untouched(timeout=20)


def test_operator_declares_the_destination_dead(counter: Counter, pair: Pair) -> None:
    """recover.yml tells what is held, and lets the source go on only for the session id that a person repeats."""
    # The source's own step may be under way already when the control node dies; it asks for so many seconds.
    migration = counter.migrate("-e", "migrate_wait=3")
    migration.until_task("Restore the container on the destination")
    pair.lab.power_cut("beta")
    migration.kill()
    session = str(counter.sessions(pair.alpha)[-1]["session"])
    try:
        reported = Migration(
            "", ["--limit", "localhost,alpha", "-e", "migrate_wait=40"], playbook="recover.yml"
        ).fail_with("frozen here until beta says whether it runs there")
        assert session in reported
        assert pair.alpha.inspect(counter.name)["State"]["Paused"]
        Migration(
            "", ["--limit", "localhost,alpha", "-e", f"recover_destination_lost={session}"], playbook="recover.yml"
        ).succeed()
        assert wait_for_answer(counter.url(pair.alpha)).token == counter.first.token
    finally:
        pair.lab.boot("beta")
    Migration("", playbook="recover.yml").succeed()
    counter.assert_untouched(timeout=30)


_DAY_SECONDS = 24 * 3600
_OPENED_LONG_AGO = """
import json, sys
path = f"/var/lib/livemigrate/{sys.argv[1]}/session.json"
facts = json.load(open(path))
facts["opened"] -= float(sys.argv[2])
json.dump(facts, open(path, "w"))
"""


def _wait_until_it_rests(pair: Pair, session: str) -> None:
    """A destination's half that its watchdog has settled after a boot, and whose source has not heard of it."""
    deadline = time.monotonic() + 120
    # /run is new since the boot, and the watchdog's own attempts are no signs of life.
    while pair.beta.run(["test", "-e", f"/run/livemigrate/{session}/lease"], check=False).returncode != 0:
        assert time.monotonic() < deadline, "the watchdog has not settled it after the boot"
        time.sleep(1)


def _recover(limit: str, *arguments: str) -> Migration:
    only = ["--limit", f"localhost,{limit}"] if limit else []
    return Migration("", [*only, "-e", "migrate_wait=40", *arguments], playbook="recover.yml")


def test_a_refusal_is_carried_to_a_source_that_cannot_ask_any_more(counter: Counter, pair: Pair) -> None:
    """The key of the channel is gone: the source waits, nobody can declare a host lost that answers, and the refusal stays."""
    migration = counter.migrate("-e", "migrate_wait=3")
    migration.until_task("Restore the container on the destination")
    session = str(counter.sessions(pair.alpha)[-1]["session"])
    keys = f"sed -i '/ livemigrate:{session}$/d' /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; sync"
    pair.beta.run(["sh", "-c", keys], check=False)
    pair.lab.power_cut("beta")
    migration.kill()
    count = _frozen_count(counter, pair)
    pair.lab.boot("beta")
    # Its watchdog refuses, and lets the session rest for as long as somebody may ask.
    _wait_until_it_rests(pair, session)
    # As a day later: the destination closes its half, and keeps what it has to say.
    pair.beta.run(["python3", "-c", _OPENED_LONG_AGO, session, str(2 * _DAY_SECONDS)])
    pair.beta.run(["rm", "-f", f"/run/livemigrate/{session}/lease"])
    _recover("beta").succeed()
    directory = f"/var/lib/livemigrate/{session}"
    assert pair.beta.run(["cat", f"{directory}/decision"]).stdout.strip() == "REFUSED"
    assert '"phase": "closed"' in pair.beta.run(["tail", "-n", "1", f"{directory}/journal"]).stdout
    # No cleanup takes it away.
    Migration("", ["--limit", "localhost,beta"], playbook="cleanup.yml").succeed()
    assert pair.beta.run(["test", "-e", f"{directory}/decision"], check=False).returncode == 0
    _recover("alpha", "-e", f"recover_destination_lost={session}").fail_with(
        "a destination counts as lost only when no connection to it can be made", "frozen here until beta says"
    )
    assert pair.alpha.inspect(counter.name)["State"]["Paused"], "it was thawed without the destination's word"
    _recover("").succeed()
    counter.assert_untouched(timeout=20, at_least=count)
