# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control node dies at the beginning of each task of a migration; nobody runs anything afterwards.

All of them are cut off one after another, and only then is waited for the watchdogs, once for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.migration.conftest import Counter, Pair

# Task, and where the service is to be found afterwards.
BEFORE_HANDING_OVER = (
    "Open the session on the destination",
    "Connect the source to the destination",
    "Send the data from which the container is created",
    "Create the container on the destination",
    "Send its files ahead while it runs",
    "Freeze the container and dump its memory",
    "Send the last changes and the checkpoint",
    "Hand over",
)
AFTER_HANDING_OVER = (
    "Restore the container on the destination and prove it",
    "End the old copy on the destination's word",
)
# The lease of a session, the watchdog's interval, a restart of it, and room for a busy machine.
SETTLED_WITHIN = 30 + 5 + 5 + 50


def _wait_closed(counter: Counter, pair: Pair, deadline: float) -> None:
    script = (
        f'for s in $(grep -ls \'"container_name": "{counter.name}"\' /var/lib/livemigrate/2*/session.json); do '
        'tail -n1 $(dirname $s)/journal | grep -q \'"phase": "closed"\' || exit 1; done'
    )
    while pair.alpha.run(["sh", "-c", script], check=False).returncode != 0:
        assert time.monotonic() < deadline, f"the session of {counter.name} was not settled by its watchdog"
        time.sleep(1)


def test_control_node_dies_in_each_phase(pair: Pair, counters: Callable[[int], list[Counter]]) -> None:
    """Before the hand-over the source goes on; after it the service is in exactly one place, with its memory."""
    tasks = BEFORE_HANDING_OVER + AFTER_HANDING_OVER
    made = counters(len(tasks))
    for counter, task in zip(made, tasks, strict=True):
        migration = counter.migrate()
        migration.until_task(task)
        # A moment into the task, so that its module is at work and is cut off from us, not spared.
        time.sleep(0.15)
        migration.kill()
    deadline = time.monotonic() + SETTLED_WITHIN
    for counter in made:
        _wait_closed(counter, pair, deadline)
    for counter, task in zip(made, tasks, strict=True):
        runs_on_beta = bool(pair.beta.docker("ps", "-q", "--filter", f"name=^{counter.name}$"))
        if task in BEFORE_HANDING_OVER:
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
