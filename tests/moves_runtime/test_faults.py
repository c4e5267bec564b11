# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The handover of the engine `runtime`, cut off at each of its phases: the service is in exactly one place, with its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.moves.inventories import write_inventory
from tests.moves.moving_counter import Moving, session_on
from tests.moves.pair import Pair
from tests.moves.phase_meeting import (
    GIVEN_UP_WITHIN,
    SETTLED_WITHIN,
    Meeting,
    wait_settled,
    with_a_held_copy,
    with_run_unknown_to_source,
)
from tests.moves.playbook_run import Migration
from tests.workloads.probe import wait_for_answer

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")

BEFORE_THE_DECISION = ("armed", "freezing", "dumped", "sent")
# The decision follows `held` within a millisecond.
ABOUT_THE_DECISION = ("held", "decision", "committed")


def test_the_step_is_killed_at_each_phase(newer: Pair, start: Start) -> None:
    """Nobody runs anything afterwards: the watchdogs alone bring each session to its end."""
    source, destination = newer.alpha, newer.beta
    phases = BEFORE_THE_DECISION + ABOUT_THE_DECISION
    made = [start(source, [source, destination], "--restart", "unless-stopped") for _phase in phases]
    for moving, phase in zip(made, phases, strict=True):
        meeting = Meeting(source, moving.name, phase, "KILL")
        migration = moving.move(source, destination)
        meeting.happened(migration)
        # The playbook would settle it in its rescue; the control node is to be gone as well.
        migration.kill()
    for moving, phase in zip(made, phases, strict=True):
        wait_settled(moving, source)
        moved = bool(destination.docker("ps", "-q", "--filter", f"name=^{moving.name}$"))
        if phase in BEFORE_THE_DECISION:
            assert not moved, f"cut off at {phase}, it runs on the destination"
        if phase == "committed":
            assert moved
        moving.assert_runs_on(destination if moved else source)
        here, there = (destination, source) if moved else (source, destination)
        assert here.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        left = there.docker("ps", "-a", "--filter", f"name=^{moving.name}$", "--format", "{{.Names}}")
        assert not left, f"cut off at {phase}: {left} is left on {there.name}"
    # And one that was given up goes through as if nothing had been.
    made[2].move(source, destination).succeed()
    made[2].assert_runs_on(destination)


def test_somebody_thaws_the_source_while_the_copy_is_held(newer: Pair, start: Start) -> None:
    """`docker unpause` by a person runs none of the container's code, and the copy is not let go."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination])
    migration, meeting = with_a_held_copy(moving, source, destination)
    count = int(source.docker("logs", "--tail", "1", moving.name))
    source.docker("unpause", moving.name)
    time.sleep(0.5)
    assert int(source.docker("logs", "--tail", "1", moving.name)) == count, "it ran although its state had left"
    meeting.go_on()
    migration.fail_with("Somebody has thawed the container", "the container stayed here")
    moving.assert_runs_on(source)
    assert not destination.docker("ps", "-aq", "--filter", f"name={moving.name}")


def test_the_engine_of_the_destination_restarts_while_the_copy_is_held(newer: Pair, start: Start) -> None:
    """Without live-restore it ends its containers, and the copy with them, which has run nothing; the source goes on."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination])
    migration, meeting = with_a_held_copy(moving, source, destination)
    destination.run(["sh", "-c", "systemctl reset-failed docker; systemctl restart docker"])
    meeting.go_on()
    migration.fail_with("the container stayed here")
    moving.assert_runs_on(source)
    assert not destination.docker("ps", "-aq", "--filter", f"name={moving.name}")


def test_the_destination_loses_power_while_the_copy_is_held(newer: Pair, start: Start) -> None:
    """It has run nothing there, so nothing is lost: after its boot the destination says REFUSED and keeps nothing."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination])
    migration, _meeting = with_a_held_copy(moving, source, destination)
    newer.lab.power_cut(destination.name)
    migration.kill()
    newer.lab.boot(destination.name)
    wait_settled(moving, source)
    moving.assert_runs_on(source)
    deadline = time.monotonic() + 60
    while destination.run(["sh", "-c", "docker ps -aq; ls /var/lib/livemigrate/restores"], check=False).stdout.strip():
        assert time.monotonic() < deadline, "the destination keeps what it refused"
        time.sleep(1)


def test_the_source_loses_power_while_the_copy_is_held(newer: Pair, start: Start) -> None:
    """Its connection stands on, and says nothing any more: the destination does not hold the copy as long as that."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "always")
    migration, meeting = with_a_held_copy(moving, source, destination)
    newer.lab.power_cut(source.name)
    migration.kill()
    meeting.go_on()
    deadline = time.monotonic() + 20
    while session_on(destination, moving.name)["phases"][-1:] != ["held"]:
        assert time.monotonic() < deadline, "it was never held"
        time.sleep(0.2)
    deadline = time.monotonic() + GIVEN_UP_WITHIN
    while destination.docker("ps", "-aq", "--filter", f"name={moving.name}"):
        assert time.monotonic() < deadline, "it is still held for a source that is gone"
        time.sleep(2)
    assert session_on(destination, moving.name)["decision"] == "REFUSED"
    assert not destination.run(["sh", "-c", "pgrep -af 'agent[.]pyz serve'"], check=False).stdout
    newer.lab.boot(source.name)
    wait_settled(moving, source)
    # A power cut loses what was in memory only, in any second; it runs here again, as any other container does.
    assert wait_for_answer(moving.url(source), timeout=60).token != moving.first.token


def test_the_source_loses_power_after_the_hand_over(newer: Pair, start: Start) -> None:
    """Nobody comes to say that the source knows: the destination tidies up by itself all the same, and soon."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    migration, _meeting = with_run_unknown_to_source(moving, source, destination)
    newer.lab.power_cut(source.name)
    migration.kill()
    deadline = time.monotonic() + SETTLED_WITHIN
    secrets = "find /run/livemigrate -name spec.json -o -name '*.img'"
    while (
        destination.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] != "unless-stopped"
        or destination.run(["sh", "-c", secrets]).stdout
    ):
        assert time.monotonic() < deadline, "the destination has not tidied up"
        time.sleep(1)
    newer.lab.boot(source.name)
    wait_settled(moving, source)
    moving.assert_runs_on(destination)


def test_the_decision_is_carried_to_a_source_whose_key_is_gone(newer: Pair, start: Start, tmp_path: Path) -> None:
    """RUN was said and never heard: the source waits for it, whatever a person declares, and recover.yml brings it."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    migration, _meeting = with_run_unknown_to_source(moving, source, destination)
    migration.kill()
    session = session_on(source, moving.name)["id"]
    keys = f"sed -i '/ livemigrate:{session}$/d' /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys"
    destination.run(["sh", "-c", keys], check=False)
    # The connection that stands needs no key.
    source.run(["ssh", "-O", "exit", "-o", f"ControlPath=/run/livemigrate/{session}/ssh", "any"], check=False)
    inventory = write_inventory(tmp_path / "both.yml", source=[source.name], destination=[destination.name])
    lost = ["--limit", f"localhost,{source.name}", "-e", f"recover_destination_lost={session}"]
    Migration("", lost, playbook="recover.yml", inventory=inventory).fail_with(
        "a destination counts as lost only when no connection to it can be made"
    )
    assert source.inspect(moving.name)["State"]["Paused"], "it was thawed although the copy runs"
    Migration("", playbook="recover.yml", inventory=inventory).succeed()
    moving.assert_runs_on(destination)
    assert session_on(source, moving.name)["phases"][-2:] == ["committed", "closed"]
    assert source.docker("ps", "-a", "--filter", f"name=^{moving.name}", "--format", "{{.Names}}") == (
        f"{moving.name}-moved-{session}"
    )


@pytest.mark.parametrize("phase", ["dumped"])
def test_a_step_that_is_stopped_keeps_nothing_frozen(newer: Pair, start: Start, phase: str) -> None:
    """It does not die by itself, and holds the session: the watchdog ends it and lets the container go on."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    meeting = Meeting(source, moving.name, phase, "STOP")
    migration = moving.move(source, destination)
    stopped = meeting.happened(migration)
    migration.kill()
    wait_settled(moving, source)
    moving.assert_runs_on(source)
    assert source.run(["test", "-e", f"/proc/{stopped}"], check=False).returncode != 0
    assert not destination.docker("ps", "-aq", "--filter", f"name=^{moving.name}$")


def test_a_person_starts_the_copy_before_its_time(newer: Pair, start: Start) -> None:
    """The created copy starts in no way but from its checkpoint; a cold start beside the live original is refused."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination])
    meeting = Meeting(source, moving.name, "armed", "STOP")
    migration = moving.move(source, destination)
    meeting.happened(migration)
    done = destination.run(["docker", "start", moving.name], check=False)
    assert done.returncode != 0
    assert "is the copy of migration" in done.stderr
    meeting.go_on()
    migration.succeed()
    moving.assert_runs_on(destination)


@pytest.mark.parametrize("policy", ["always"])
def test_a_reboot_after_the_move_begins_afresh(newer: Pair, start: Start, policy: str) -> None:
    """The old memory is never restored a second time; the engine's own policy starts the container, as any other."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", policy)
    moving.move(source, destination).succeed()
    moving.assert_runs_on(destination)
    newer.lab.power_cut(destination.name)
    newer.lab.boot(destination.name)
    answer = wait_for_answer(moving.url(destination), timeout=60)
    assert answer.token != moving.first.token
    assert answer.count < 1000
