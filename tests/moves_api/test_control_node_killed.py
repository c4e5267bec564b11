# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control node dies at the beginning of each task of a migration; nobody runs anything afterwards.

All of them are cut off one after another, and only then is waited for the watchdogs, once for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.moves_api.conftest import Counter

# Nothing is frozen yet: the watchdog leaves a session alone for a quarter of an hour, recover.yml settles it at once.
WHILE_IT_RUNS = (
    "Open the session on the destination",
    "Connect the source to the destination",
    "Create the container on the destination",
    "Send its files ahead while it runs",
)
BEFORE_HANDING_OVER = (
    "Freeze the container and dump its memory",
    "Send the last changes and the checkpoint",
    "Hand over",
)
AFTER_HANDING_OVER = (
    "Restore the container on the destination and prove it",
    "End the old copy as the destination has decided",
)
# The lease of a session, the watchdog's interval, a restart of it, and room for a busy machine.
SETTLED_WITHIN = 30 + 5 + 5 + 60
# A step goes on when its control node dies.
STEPS_END_WITHIN = 25


def _wait_thawed(made: list[Counter], pair: Pair) -> None:
    """Wait until none of them is frozen any more, and no step that outlived its control node can freeze one still."""
    names = {counter.name for counter in made}
    earliest = time.monotonic() + STEPS_END_WITHIN
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        paused = pair.alpha.docker("ps", "--filter", "status=paused", "--format", "{{.Names}}").split()
        if not names.intersection(paused) and time.monotonic() >= earliest:
            return
        assert time.monotonic() < deadline, f"the watchdog has not settled {paused}"
        time.sleep(1)


def _assert_closed(counter: Counter, pair: Pair) -> None:
    script = (
        f'for s in $(grep -ls \'"container_name": "{counter.name}"\' /var/lib/livemigrate/2*/session.json); do '
        'tail -n1 $(dirname $s)/journal | grep -q \'"phase": "closed"\' || exit 1; done'
    )
    done = pair.alpha.run(["sh", "-c", script], check=False)
    assert done.returncode == 0, f"the session of {counter.name} is not settled"


def test_control_node_dies_in_each_phase(pair: Pair, counters: Callable[[int], list[Counter]]) -> None:
    """Before the hand-over the source goes on; after it the service is in exactly one place, with its memory."""
    tasks = WHILE_IT_RUNS + BEFORE_HANDING_OVER + AFTER_HANDING_OVER
    made = counters(len(tasks))
    for counter, task in zip(made, tasks, strict=True):
        migration = counter.migrate()
        migration.until_task(task)
        # A moment into the task, so that its module is at work and is cut off from us, not spared.
        time.sleep(0.15)
        migration.kill()
    _wait_thawed(made, pair)
    for counter in made[: len(WHILE_IT_RUNS)]:
        counter.assert_runs_on(pair.alpha, pair.beta)
    Migration("", playbook="recover.yml").succeed()
    for counter, task in zip(made, tasks, strict=True):
        _assert_closed(counter, pair)
        runs_on_beta = bool(pair.beta.docker("ps", "-q", "--filter", f"name=^{counter.name}$"))
        if task not in AFTER_HANDING_OVER:
            assert not runs_on_beta, f"cut off at {task!r}, it runs on the destination"
        if runs_on_beta:
            counter.assert_runs_on(pair.beta, pair.alpha)
        else:
            counter.assert_runs_on(pair.alpha, pair.beta)
            inspect = pair.alpha.inspect(counter.name)
            assert inspect["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", task
            left = pair.beta.docker("ps", "-aq", "--filter", f"name={counter.name}")
            assert not left, f"cut off at {task!r}, the destination keeps a container"
    # And again, for one that was given up: it goes through as if nothing had been.
    made[5].migrate().succeed()
    made[5].assert_runs_on(pair.beta, pair.alpha)
