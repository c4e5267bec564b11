# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""dockerd is stopped, and not started again, or hangs, on one side of a handover: with live-restore and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.moves.phase_meeting import (
    SETTLED_WITHIN,
    Meeting,
    wait_settled,
    with_a_held_copy,
    with_run_unknown_to_source,
)
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")


@contextmanager
def _live_restore(host: Host, wanted: bool) -> Iterator[None]:
    """Whether the engine leaves its containers alone when it ends."""
    change = "import json,sys; p='/etc/docker/daemon.json'; d=json.load(open(p)); d['live-restore']=%s; json.dump(d, open(p,'w'))"
    script = "systemctl reset-failed docker; systemctl start docker; systemctl reload docker; sleep 1"
    host.run(["sh", "-c", f'python3 -c "{change % wanted}"; {script}'])
    try:
        yield
    finally:
        host.run(["sh", "-c", f'python3 -c "{change % False}"; {script}'])


def _stop_engine(host: Host) -> None:
    # Its socket as well, or the next question would start it again.
    host.run(["systemctl", "stop", "docker.socket", "docker.service"])


def _start_engine(host: Host) -> None:
    host.run(
        [
            "sh",
            "-c",
            "systemctl reset-failed docker.socket docker.service; systemctl start docker.socket docker.service",
        ]
    )


def _wait_nothing_left(moving: Moving, host: Host) -> None:
    deadline = time.monotonic() + SETTLED_WITHIN
    while left := host.docker("ps", "-aq", "--filter", f"name={moving.name}"):
        assert time.monotonic() < deadline, f"{host.name} keeps {left}"
        time.sleep(1)


@pytest.mark.parametrize("live_restore", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_engine_of_the_destination_stops_while_the_copy_is_held(
    newer: Pair, start: Start, live_restore: bool
) -> None:
    """It is refused at once, while nobody can ask the engine; what is left of it goes when the engine is back."""
    source, destination = newer.alpha, newer.beta
    with _live_restore(destination, live_restore):
        moving = start(source, [source, destination])
        migration, meeting = with_a_held_copy(moving, source, destination)
        try:
            _stop_engine(destination)
            meeting.go_on()
            migration.fail_with("the container stayed here")
            assert wait_for_answer(moving.url(source)).token == moving.first.token
        finally:
            _start_engine(destination)
        wait_settled(moving, source)
        _wait_nothing_left(moving, destination)
        moving.assert_runs_on(source)


@pytest.mark.long
def test_the_engine_of_the_source_stops_while_its_copy_is_held(newer: Pair, start: Start) -> None:
    """Without live-restore that ends its containers, and this one with them: the copy, which has run nothing, is refused."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    migration, meeting = with_a_held_copy(moving, source, destination)
    try:
        _stop_engine(source)
        meeting.go_on()
        assert migration.end() != 0
        assert not destination.docker("ps", "-q", "--filter", f"name={moving.name}")
    finally:
        _start_engine(source)
    wait_settled(moving, source)
    _wait_nothing_left(moving, destination)
    # As after any stop of the engine: by its policy, from the beginning.
    assert wait_for_answer(moving.url(source)).token != moving.first.token
    assert source.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_engine_of_the_source_stops_with_live_restore_while_its_copy_is_held(newer: Pair, start: Start) -> None:
    """The frozen tasks stay as they are without it, so the move goes on; the old copy is put aside when the engine is back."""
    source, destination = newer.alpha, newer.beta
    with _live_restore(source, True):
        moving = start(source, [source, destination], "--restart", "unless-stopped")
        migration, meeting = with_a_held_copy(moving, source, destination)
        try:
            _stop_engine(source)
            meeting.go_on()
            migration.end()
            assert wait_for_answer(moving.url(destination)).token == moving.first.token
        finally:
            _start_engine(source)
        wait_settled(moving, source)
        moving.assert_runs_on(destination)
        assert not source.docker("ps", "-a", "--filter", f"name=^{moving.name}$", "--format", "{{.Names}}")
        assert destination.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@contextmanager
def _hanging_engine(host: Host) -> Iterator[None]:
    """Its socket takes every question, and no answer comes."""
    host.run(["systemctl", "kill", "--kill-whom=main", "--signal=STOP", "docker.service"])
    try:
        yield
    finally:
        host.run(["systemctl", "kill", "--kill-whom=main", "--signal=CONT", "docker.service"])


def test_a_container_that_is_not_moved_goes_on_while_its_engine_hangs(newer: Pair, start: Start) -> None:
    """The rest of the thaw, its restart policy among it, follows when the engine answers again."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    migration, meeting = with_a_held_copy(moving, source, destination)
    try:
        with _hanging_engine(source):
            # It is refused for that.
            _stop_engine(destination)
            meeting.go_on()
            assert wait_for_answer(moving.url(source), timeout=60).token == moving.first.token
            assert migration.end() != 0
    finally:
        _start_engine(destination)
    wait_settled(moving, source)
    _wait_nothing_left(moving, destination)
    moving.assert_runs_on(source)
    assert source.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def _kill_engine(host: Host) -> None:
    """As the kernel does where memory is short. systemd starts it again, and this waits until that answers."""
    host.run(
        ["sh", "-c", "systemctl reset-failed docker; systemctl kill --kill-whom=main --signal=KILL docker.service"]
    )
    time.sleep(1)
    deadline = time.monotonic() + 120
    while host.run(["docker", "info"], check=False).returncode != 0:
        assert time.monotonic() < deadline, "the engine does not come back"
        time.sleep(0.5)


def _assert_came_whole(moving: Moving, host: Host, policy: str) -> None:
    """It is the same processes, Docker knows that it runs, its network is there, and it has its policy."""
    assert wait_for_answer(moving.url(host), timeout=60).token == moving.first.token
    moving.assert_runs_on(host)
    assert host.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == policy
    assert host.docker("exec", moving.name, "echo", "inside") == "inside"


def _killed_after_run(pair: Pair, start: Start, policy: str) -> None:
    source, destination = pair.alpha, pair.beta
    with _live_restore(destination, True):
        moving = start(source, [source, destination], "--restart", policy)
        meeting = Meeting(destination, moving.name, "decision", "STOP")
        migration = moving.move(source, destination)
        meeting.happened(migration)
        _kill_engine(destination)
        meeting.go_on()
        migration.end()
        _assert_came_whole(moving, destination, policy)
        wait_settled(moving, destination)
        _assert_came_whole(moving, destination, policy)
        assert not source.docker("ps", "-q", "--filter", f"name={moving.name}")


@pytest.mark.parametrize("policy", ["always", pytest.param("no", marks=pytest.mark.long)])
def test_the_engine_of_the_destination_is_killed_when_run_is_decided(newer: Pair, start: Start, policy: str) -> None:
    """It had noted before that the copy runs. A dockerd that learns of it later kills the copy, or takes its network away."""
    _killed_after_run(newer, start, policy)


@pytest.mark.long
def test_the_same_with_an_older_engine(older: Pair, start: Start) -> None:
    _killed_after_run(older, start, "always")


def test_the_engine_of_the_destination_is_killed_while_the_copy_is_held(newer: Pair, start: Start) -> None:
    """The next one knows it. There is no process of the runtime either whose end would be that of the copy."""
    source, destination = newer.alpha, newer.beta
    with _live_restore(destination, True):
        moving = start(source, [source, destination], "--restart", "always")
        migration, meeting = with_a_held_copy(moving, source, destination)
        assert not destination.run(["pgrep", "-af", "livemigrate-runc"], check=False).stdout
        _kill_engine(destination)
        meeting.go_on()
        migration.succeed()
        _assert_came_whole(moving, destination, "always")


def test_the_engine_of_the_destination_hangs_while_the_copy_is_held(newer: Pair, start: Start) -> None:
    """It takes calls, and answers none: the copy is refused within seconds, and the container goes on where it was."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    migration, meeting = with_a_held_copy(moving, source, destination)
    with _hanging_engine(destination):
        meeting.go_on()
        assert wait_for_answer(moving.url(source), timeout=60).token == moving.first.token
    # What is left of the copy is taken away when the engine answers again.
    migration.fail_with("does not answer")
    wait_settled(moving, source)
    _wait_nothing_left(moving, destination)
    moving.assert_runs_on(source)


@pytest.mark.parametrize("live_restore", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_engine_of_the_destination_restarts_before_the_copy_has_its_policy(
    newer: Pair, start: Start, live_restore: bool
) -> None:
    """RUN was said, and nobody has come to say that the source knows: Docker itself would leave the copy ended then."""
    source, destination = newer.alpha, newer.beta
    with _live_restore(destination, live_restore):
        moving = start(source, [source, destination], "--restart", "always")
        migration, meeting = with_run_unknown_to_source(moving, source, destination)
        assert destination.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == "no"
        destination.run(["sh", "-c", "systemctl reset-failed docker; systemctl restart docker"])
        assert bool(destination.docker("ps", "-q", "--filter", f"name=^{moving.name}$")) == live_restore
        meeting.go_on()
        migration.succeed()
        answer = wait_for_answer(moving.url(destination), timeout=60)
        assert (answer.token == moving.first.token) == live_restore
        assert destination.inspect(moving.name)["HostConfig"]["RestartPolicy"]["Name"] == "always"
        assert not source.docker("ps", "-q", "--filter", f"name={moving.name}")
