# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine `runtime` moves containers of every kind, between Docker versions and image stores, and leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import matrix
from tests.moves.container_state import assert_as_before, before
from tests.moves.host_conditions import containerd_store, criu_fails
from tests.moves.inventories import write_inventory
from tests.moves.moving_counter import Moving, gap_reported, remove
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host
from tests.workloads.inspect_comparison import compare, unexpected
from tests.workloads.probe import wait_for_answer
from tests.workloads.recipes import RECIPES
from tests.workloads.watch import Watch

pytestmark = pytest.mark.usefixtures("pipelined")

Start = Callable[..., Moving]

MOVES = 10
# Two for each reason: what one leaves behind meets the next one of its kind.
REFUSALS = 4


def test_ten_moves_under_constant_load(newer: Pair, start: Start) -> None:
    """Back and forth on Docker 28: one process all the time for a client that never stops asking, and no litter."""
    hosts = [newer.alpha, newer.beta]
    moving = start(hosts[0], hosts, "--restart", "unless-stopped", "--env", "SECRET=x", "--label", "a=b")
    inspect = hosts[0].inspect(moving.name)
    with Watch([moving.url(host) for host in hosts], token=moving.first.token) as watch:
        there = itertools.cycle([(hosts[0], hosts[1]), (hosts[1], hosts[0])])
        for source, destination in itertools.islice(there, MOVES):
            output = moving.move(source, destination).succeed()
            assert "Engine runtime" in output
            moving.assert_runs_on(destination)
    matrix.note(*hosts, engine="runtime", what="a container under constant load, ten times")
    report = watch.report()
    assert not report.violations
    moved = hosts[0].inspect(moving.name)
    differences = unexpected(compare(inspect, moved))
    assert not differences, "\n".join(f"{d.path}: {d.source} -> {d.destination}" for d in differences)
    for host in hosts:
        # The outcome of the last try of CRIU may be noted there, and the collection's code is.
        find = "find /run/livemigrate -type f -size +0 ! -name criu.conf ! -name self-test.json ! -path '*/agents/*'"
        left = host.run(["sh", "-c", find]).stdout
        assert not left, f"memory images left on {host.name}: {left}"
        # One copy each: the running one, and the old one that a move back would begin with.
        assert len(host.docker("ps", "-aq", "--filter", f"name=^{moving.name}").split()) == 1


def test_refusals_and_then_a_move(newer: Pair, start: Start) -> None:
    """The destination cannot start the copy, for two reasons in turns: after each the source is as it was, to the last trace."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "always", "--health-cmd", "true")
    was = before(moving, source, destination)
    for number in range(REFUSALS):
        with _port_taken(destination, moving.port) if number % 2 else criu_fails(destination):
            # A port that somebody takes after the preflight has looked.
            moving.move(source, destination, "-e", '{"migrate_ignore_rules": ["port_taken"]}').fail_with(
                "the container stayed here"
            )
        assert_as_before(moving, was, source, destination)
    moving.move(source, destination).succeed()
    moving.assert_runs_on(destination)


@contextmanager
def _port_taken(host: Host, port: int) -> Iterator[None]:
    host.run(["systemd-run", "--unit=port-taker", "python3", "-m", "http.server", str(port)])
    try:
        yield
    finally:
        host.run(["systemctl", "stop", "port-taker"])


def test_an_old_copy_that_somebody_has_started_is_never_removed(newer: Pair, start: Start, tmp_path: Path) -> None:
    """Neither by cleanup.yml nor by a move back: both say what to do, and go through when that is done."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--restart", "unless-stopped")
    moving.move(source, destination).succeed()
    old = source.docker("ps", "-a", "--filter", f"name=^{moving.name}-moved-", "--format", "{{.Names}}")
    assert source.inspect(old)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    inventory = write_inventory(tmp_path / "both.yml", source=[source.name], destination=[destination.name])

    def clean() -> Migration:
        return Migration(moving.name, playbook="cleanup.yml", inventory=inventory)

    source.docker("start", old)
    clean().fail_with(
        f"The container {old}, the old copy of session", "has been started again and is running", "docker stop"
    )
    moving.move(destination, source).fail_with("[old_copy_in_use]", "Nothing has been touched")
    assert source.inspect(old)["State"]["Running"]
    source.docker("stop", "-t", "1", old)
    source.docker("rename", old, f"{moving.name}-mine")
    clean().fail_with(
        f"The container {moving.name}-mine, the old copy of session", "has been given this name by somebody"
    )
    source.docker("rename", f"{moving.name}-mine", old)
    moving.assert_runs_on(destination)
    moving.move(destination, source).succeed()
    moving.assert_runs_on(source)
    assert not source.docker("ps", "-aq", "--filter", f"name=^{old}")


def test_between_docker_versions_and_back(older: Pair, newer: Pair, start: Start) -> None:
    """From Docker 26 to 28 and back; on 26 the engine runtime needs no experimental mode either."""
    hosts = [older.alpha, newer.alpha]
    moving = start(hosts[0], hosts)
    for source, destination in ((hosts[0], hosts[1]), (hosts[1], hosts[0])):
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        matrix.note(source, destination, engine="runtime", what="a container, there and back")


def test_after_the_move_it_is_a_container_like_any_other(newer: Pair, start: Start) -> None:
    """exec, logs, stats, pause, commit, update, a restart of the engine under live-restore, and restarts that begin afresh."""
    source, host = newer.alpha, newer.beta
    moving = start(source, [source, host], "--restart", "unless-stopped")
    moving.move(source, host).succeed()
    name = moving.name
    assert host.docker("exec", name, "echo", "inside") == "inside"
    lines = [int(line) for line in host.docker("logs", name).splitlines() if line.isdigit()]
    assert lines == list(range(1, len(lines) + 1)), "the log has a break"
    assert "%" in host.docker("stats", "--no-stream", "--format", "{{.CPUPerc}}", name)
    host.docker("pause", name)
    assert host.inspect(name)["State"]["Paused"]
    host.docker("unpause", name)
    host.docker("update", "--restart", "always", name)
    host.docker("commit", name, "committed:1")
    host.docker("rmi", "committed:1")
    _restart_engine_with_live_restore(host)
    moving.assert_runs_on(host)
    # The old memory is used up: every start from now on is a fresh one.
    for how in (["restart", "-t", "1", name], ["stop", "-t", "1", name], ["kill", name]):
        host.docker(*how)
        if how[0] != "restart":
            host.docker("start", name)
        answer = wait_for_answer(moving.url(host))
        assert answer.token != moving.first.token, f"docker {how[0]} brought the old memory back"
        assert answer.count < 100


def _restart_engine_with_live_restore(host: Host) -> None:
    change = "import json,sys; p='/etc/docker/daemon.json'; d=json.load(open(p)); {}; json.dump(d, open(p,'w'))"
    host.run(["python3", "-c", change.format("d['live-restore']=True")])
    try:
        host.run(
            ["sh", "-c", "systemctl reset-failed docker; systemctl reload docker; sleep 1; systemctl restart docker"]
        )
    finally:
        host.run(["python3", "-c", change.format("d['live-restore']=False")])
        host.run(["systemctl", "reload", "docker"])


# What does not stand in another's way moves in one container.
KINDS: dict[str, list[str]] = {
    "terminal_init_health": [
        *("--tty", "--init", "--health-cmd", "true", "--health-interval", "1s"),
        # /lib and /sbin of the image are links, and so is the file.
        *("--volume", "/etc/localtime:/lib/lt:ro", "--mount", "type=bind,source=/etc,target=/sbin/../lib/etc,readonly"),
    ],
    "read_only_and_limits": [
        *("--read-only", "--tmpfs", "/tmp:size=8m", "--shm-size", "32m", "--ulimit", "nofile=512:1024"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    ],
    "ports": ["--publish", "127.0.0.1:9290:8080", "--publish", "9291-9293:8080"],
    "privileged_with_volume": ["--privileged", "--security-opt", "seccomp=unconfined", "--volume", "/kept"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_of_each_kind_moves(newer: Pair, start: Start, kind: str) -> None:
    """With a terminal, an init, a read-only root, several ports, limits, all privileges, health checks (locks: test_database)."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], *KINDS[kind])
    inspect = source.inspect(moving.name)
    moving.move(source, destination).succeed()
    moving.assert_runs_on(destination)
    differences = unexpected(compare(inspect, destination.inspect(moving.name)))
    assert not differences, "\n".join(f"{d.path}: {d.source} -> {d.destination}" for d in differences)


def test_the_network_of_the_host(newer: Pair, start: Start) -> None:
    """It is not closed, because it is not the container's, and that is said."""
    source, destination = newer.alpha, newer.beta
    port = 9295
    arguments = ["--network", "host", "--env", f"COUNTER_PORT={port}"]
    moving = start(source, [source, destination], *arguments, url=f"http://{source.address}:{port}/")
    output = moving.move(source, destination).succeed()
    assert "Its network is not closed" in output
    assert wait_for_answer(f"http://{destination.address}:{port}/").token == moving.first.token


# Half of them sleep: CRIU by itself restores a system call that sleeps as an interrupted one, and busybox's sleep ends by that.
_CROWD = (
    "n=0; while [ $n -lt 100 ]; do n=$((n+1)); tail -f /dev/null & sleep 100000 & done; exec /usr/local/bin/counter"
)


def test_hundreds_of_processes_and_a_network_with_aliases(newer: Pair, start: Start) -> None:
    """200 processes beside the counter, in a network of its own that the destination does not have yet."""
    source, destination = newer.alpha, newer.beta
    network = "engine-own"
    for host in (source, destination):
        host.docker("network", "rm", network, check=False)
    source.docker("network", "create", "--subnet", "198.18.91.0/24", network)
    try:
        arguments = ["--network", network, "--ip", "198.18.91.40", "--network-alias", "many"]
        moving = start(source, [source, destination], *arguments, command=["sh", "-c", _CROWD])
        output = moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        found = destination.inspect(moving.name)["NetworkSettings"]["Networks"][network]
        assert found["IPAddress"] == "198.18.91.40"
        assert "many" in found["Aliases"]
        assert len(destination.docker("top", moving.name).splitlines()) > 200
        assert " of 20" in output
        destination.docker("rm", "-f", moving.name)
    finally:
        for host in (source, destination):
            host.run(["sh", "-c", f"docker ps -aq --filter network={network} | xargs -r docker rm -f"])
            host.docker("network", "rm", network, check=False)


def test_the_containerd_image_store(newer: Pair, start: Start) -> None:
    """Where inspect shows no upper directory: image and writable layer move all the same, there and back."""
    source, destination = newer.alpha, newer.beta
    with containerd_store(source, destination):
        assert "io.containerd.snapshotter" in source.docker("info", "--format", "{{json .DriverStatus}}")
        source.load(RECIPES["counter"])
        moving = start(source, [source, destination])
        source.docker("exec", moving.name, "sh", "-c", "echo kept > /etc/kept; rm /usr/local/bin/entry")
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        look = ["exec", moving.name, "sh", "-c", "cat /etc/kept; test -e /usr/local/bin/entry || echo gone"]
        assert destination.docker(*look).split() == ["kept", "gone"]
        moving.move(destination, source).succeed()
        moving.assert_runs_on(source)
        assert source.docker(*look).split() == ["kept", "gone"]
        remove(moving)


def _require_room(pair: Pair, size: int) -> None:
    """Say at once that the machine is too small, and not after half an hour in the words of a rule.

    :param size: bytes of the container's memory.
    """
    # One of the engine's copies to each; the checkpoint also arrives where the engine keeps its own.
    places = {"/tmp": size, "/var/lib/containerd": size, "/var/lib/docker": 2 * size}
    script = (
        "import json, os, sys; free = lambda path: os.statvfs(path).f_bavail * os.statvfs(path).f_frsize;"
        "print(json.dumps({path: free(path) for path in sys.argv[1:]}))"
    )
    for host in pair.hosts:
        free = json.loads(host.run(["python3", "-c", script, *places]).stdout)
        small = {path: free[path] >> 20 for path, needed in places.items() if free[path] < needed + needed // 8}
        assert not small, f"{host.name} has too little room for this test (MiB): {small}"
    # Tasks and images on both hosts, which share the machine's memory; for the engine api /tmp is in memory too.
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    assert available >= 5 * size, (
        f"this machine has {available >> 20} MiB of memory left, and the test takes {5 * size >> 20}"
    )


def test_a_gibibyte_with_both_engines(older: Pair, start: Start) -> None:
    """1 GiB of memory in one run of each engine: the runtime's gap is the shorter one, and nothing is lost.

    By far where memory is at hand. Where a hypervisor has taken back what lay idle, both wait for it most of the time.
    """
    _require_room(older, 1 << 30)
    gaps = {}
    for engine in ("runtime", "api"):
        source, destination = older.alpha, older.beta
        moving = start(source, [source, destination], "--env", "COUNTER_BALLAST_MB=1024")
        began = time.monotonic()
        output = moving.move(source, destination, "-e", json.dumps({"migrate_engine": engine})).succeed()
        gaps[engine] = gap_reported(output)
        print(f"{engine}: gap {gaps[engine]:.1f} s, the whole move {time.monotonic() - began:.1f} s")
        after = moving.assert_runs_on(destination)
        assert after.details["memory"] == moving.first.details["memory"]
        destination.docker("rm", "-f", moving.name)
    assert gaps["runtime"] < gaps["api"], gaps
