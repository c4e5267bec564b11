# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before anything is touched, each with its cause and its remedy in words."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.moves.inventories import write_inventory
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.moves_api.conftest import Counter
from tests.workloads.watch import Watch

pytestmark = pytest.mark.usefixtures("pipelined")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no-such-thing", "There is no container 'no-such-thing'"),
        ("../etc", "is not a container name"),
        ("", "Name the container to move"),
    ],
)
def test_container_is_missing_or_misnamed(counter: Counter, name: str, text: str) -> None:
    Migration("", ["-e", json.dumps({"container": name})]).fail_with(text)
    counter.assert_untouched()


def test_misspelt_container_is_recognised(counter: Counter) -> None:
    Migration(counter.name.replace("fault", "fualt")).fail_with("Did you mean", counter.name)
    counter.assert_untouched()


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ({"source": ["alpha"], "destination": ["beta", "gamma"]}, "A migration takes one host"),
        ({"source": ["alpha"]}, "A migration takes one host"),
        ({"source": ["alpha"], "destination": ["alpha"]}, "A migration takes one host"),
    ],
)
def test_inventory_is_wrong(counter: Counter, tmp_path: Path, groups: dict[str, list[str]], text: str) -> None:
    Migration(counter.name, inventory=write_inventory(tmp_path / "hosts.yml", **groups)).fail_with(
        text, "Nothing has been touched"
    )
    counter.assert_untouched()


def test_destination_cannot_be_reached(counter: Counter, pair: Pair) -> None:
    arguments = ["-e", "ansible_ssh_timeout=5"]
    pair.lab.power_cut("beta")
    try:
        counter.migrate(*arguments).fail_with("cannot reach the destination beta", "Nothing has been touched")
    finally:
        pair.lab.boot("beta")
    counter.assert_untouched(timeout=20)


def test_name_is_taken(counter: Counter, pair: Pair) -> None:
    pair.beta.docker("create", "--name", counter.name, "livemigrate/counter:1")
    counter.beta_before = []
    try:
        counter.migrate().fail_with("already has a container", "Remove or rename it")
        assert pair.beta.inspect(counter.name)["State"]["Status"] == "created"
    finally:
        pair.beta.docker("rm", counter.name)
    counter.assert_runs_on(pair.alpha, pair.beta)


def test_volume_with_foreign_data_is_not_overwritten(pair: Pair, counter: Counter) -> None:
    """A volume of the same name with somebody else's data; replaced only when the user says so."""
    name = f"{counter.name}-v"
    for host in (pair.alpha, pair.beta):
        host.run(["sh", "-c", f"docker volume create {counter.port}-data; true"])
    pair.beta.run(["sh", "-c", f"echo precious > /var/lib/docker/volumes/{counter.port}-data/_data/file"])
    pair.alpha.run(["sh", "-c", f"echo mine > /var/lib/docker/volumes/{counter.port}-data/_data/file"])
    pair.alpha.start(name, "livemigrate/counter:1", ["-e", "COUNTER_PORT=", "-v", f"{counter.port}-data:/data"])
    read = f"cat /var/lib/docker/volumes/{counter.port}-data/_data/file"
    try:
        Migration(name).fail_with("no earlier move of this container put there", "migrate_overwrite_data")
        assert pair.beta.run(["sh", "-c", read]).stdout == "precious\n"
        assert pair.alpha.inspect(name)["State"]["Status"] == "running"
        Migration(name, ["-e", "migrate_overwrite_data=true"]).succeed()
        assert pair.beta.run(["sh", "-c", read]).stdout == "mine\n"
    finally:
        for host in (pair.alpha, pair.beta):
            host.run(
                [
                    "sh",
                    "-c",
                    f"docker ps -aq --filter name=^{name} | xargs -r docker rm -fv; docker volume rm {counter.port}-data",
                ]
            )


def test_exec_session_is_refused(counter: Counter, pair: Pair) -> None:
    with subprocess.Popen(
        [*pair.alpha.shell, f"docker exec {counter.name} sleep 600"], stdin=subprocess.DEVNULL
    ) as session:
        try:
            deadline = 50
            while "sleep 600" not in pair.alpha.docker("top", counter.name) and deadline:
                deadline -= 1
            counter.migrate().fail_with("docker exec", "sleep")
        finally:
            pair.alpha.run(["pkill", "-f", "sleep 600"], check=False)
            session.kill()
    counter.assert_untouched()


def test_container_with_rm_is_refused(counter: Counter, pair: Pair) -> None:
    name = f"{counter.name}-rm"
    pair.alpha.start(name, "livemigrate/counter:1", ["--rm", "-e", "COUNTER_PORT="])
    try:
        Migration(name).fail_with("--rm")
        assert pair.alpha.inspect(name)["State"]["Status"] == "running"
    finally:
        pair.alpha.remove(name)


@pytest.mark.parametrize("place", ["/tmp", "/var/lib/livemigrate"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_disk_is_full(counter: Counter, pair: Pair, side: str, place: str) -> None:
    """A small file system where a migration needs room, filled up: refused with what is left, and nothing is written to it."""
    host = pair.alpha if side == "source" else pair.beta
    host.run(["mkdir", "-p", place])
    host.run(["mount", "-t", "tmpfs", "-o", "size=640m", "small", place])
    try:
        host.run(["fallocate", "--length", "600m", f"{place}/filling"])
        printed = counter.migrate().fail_with(
            f"[disk_free] {place} on the {side} has ", "Make room", "Nothing has been touched"
        )
        # The module that looks is itself unpacked there while it runs.
        found = re.search(rf"{place} on the {side} has (\d+) MiB left", printed)
        assert found
        assert 30 < int(found.group(1)) <= 40, "it is not this file system that was looked at"
        assert host.run(["ls", "-A", place]).stdout.split() == ["filling"]
    finally:
        host.run(["umount", place])
    counter.assert_untouched()


@pytest.fixture
def links(pair: Pair) -> Iterator[None]:
    """A directory on both hosts that is reached through a link as well."""
    for host in (pair.alpha, pair.beta):
        host.run(["sh", "-c", "mkdir -p /srv/linked && ln -sfn linked /srv/link"])
    yield
    for host in (pair.alpha, pair.beta):
        host.run(["rm", "-rf", "/srv/linked", "/srv/link"])


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--init"], ["/usr/bin/docker-init (mounted at /sbin/docker-init)", '"init-path": "/usr/bin/tini-static"']),
        (["--init"], ["made with --init", "no docker-init"]),
        (["--volume", "/srv/link:/linked"], ["/srv/link (mounted at /linked)", "Mount /srv/linked instead"]),
    ],
    ids=["init-is-a-link", "init-is-missing", "bind-is-a-link"],
)
def test_mount_that_the_destination_cannot_restore(
    pair: Pair,
    counter_with: Callable[[Sequence[str]], Counter],
    arguments: list[str],
    texts: list[str],
    request: pytest.FixtureRequest,
) -> None:
    """What a host puts into the container is looked at before the freeze; else CRIU fails while the source stands still."""
    counter = counter_with(arguments)
    missing = "missing" in request.node.callspec.id
    try:
        if missing:
            pair.beta.run(["mv", "/usr/bin/docker-init", "/usr/bin/docker-init.away"])
        with Watch([counter.url(pair.alpha)], token=counter.first.token) as watch:
            counter.migrate().fail_with(*texts, "Nothing has been touched")
        assert not watch.report().violations
        assert watch.report().longest_gap < 1, "it was frozen before it was refused"
    finally:
        if missing:
            pair.beta.run(["mv", "/usr/bin/docker-init.away", "/usr/bin/docker-init"])
    counter.assert_untouched()


def test_check_mode_changes_nothing(counter: Counter) -> None:
    counter.migrate("--check").succeed()
    counter.assert_untouched()


def test_second_run_is_ok_and_move_back_works(counter: Counter, pair: Pair) -> None:
    """Moved, moved again (nothing to do), and moved back onto the host that keeps the old copy."""
    counter.migrate().succeed()
    counter.assert_runs_on(pair.beta, pair.alpha)
    again = counter.migrate().succeed()
    assert "changed=0" in again
    assert "moved to beta. Nothing to do." in again
    back = ["-e", "migrate_source_group=destination", "-e", "migrate_destination_group=source"]
    Migration(counter.name, back).succeed()
    counter.assert_runs_on(pair.alpha, pair.beta)
    copies = pair.alpha.docker("ps", "-a", "--filter", f"name=^{counter.name}", "--format", "{{.Names}}")
    assert copies == counter.name, "the superseded old copy is still there"
    Migration(counter.name, playbook="cleanup.yml").succeed()
    assert not pair.beta.docker("ps", "-aq", "--filter", f"name=^{counter.name}")
    counter.assert_runs_on(pair.alpha, pair.beta)
