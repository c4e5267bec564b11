# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy that is held looks to people as if it ran. Nothing that they do with Docker runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.moves.phase_meeting import wait_settled, with_a_held_copy
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")


def _frozen(host: Host, name: str) -> tuple[str, str]:
    """What its freezer says, and the processor time that it has had."""
    scope = f"/sys/fs/cgroup/system.slice/docker-{host.docker('inspect', '--format', '{{.Id}}', name)}.scope"
    events = host.run(["grep", "frozen", f"{scope}/cgroup.events"]).stdout.strip()
    return events, host.run(["grep", "user_usec", f"{scope}/cpu.stat"]).stdout.strip()


def test_nothing_that_people_do_with_docker_runs_a_held_copy(newer: Pair, start: Start) -> None:
    """What would change it is refused, what enters it waits; then it is let go as it was."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination])
    migration, meeting = with_a_held_copy(moving, source, destination)
    before = _frozen(destination, moving.name)
    assert before[0] == "frozen 1"
    for words in (["pause"], ["update", "--memory", "500m", "--memory-swap", "500m"]):
        done = destination.run(["docker", *words, moving.name], check=False)
        assert done.returncode != 0
        assert "has not been handed over to this host" in done.stdout + done.stderr
    for words in (["unpause"], ["start"], ["kill", "--signal", "CONT"]):
        # Refused, without effect, and a signal that waits as the tasks do.
        destination.run(["docker", *words, moving.name], check=False)
    entered: list[str] = []
    thread = threading.Thread(target=lambda: entered.append(destination.docker("exec", moving.name, "echo", "inside")))
    thread.start()
    thread.join(2)
    assert thread.is_alive(), entered
    assert _frozen(destination, moving.name) == before
    meeting.go_on()
    migration.succeed()
    thread.join(30)
    assert entered == ["inside"]
    moving.assert_runs_on(destination)


@pytest.mark.parametrize(
    "words",
    [["restart", "--time", "0"], pytest.param(["rm", "--force"], marks=pytest.mark.long)],
    ids=lambda words: words[0],
)
def test_a_held_copy_that_a_person_ends_is_refused(newer: Pair, start: Start, words: list[str]) -> None:
    """All of it ends at once, and it is not restored a second time. The container goes on where it was."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination])
    migration, meeting = with_a_held_copy(moving, source, destination)
    destination.run(["docker", *words, moving.name], check=False)
    assert not destination.docker("ps", "-q", "--filter", f"name=^{moving.name}$")
    meeting.go_on()
    migration.fail_with("the container stayed here")
    assert wait_for_answer(moving.url(source)).token == moving.first.token
    wait_settled(moving, source)
    moving.assert_runs_on(source)
