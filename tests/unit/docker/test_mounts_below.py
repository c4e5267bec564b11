# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a bind mount brings along, in the mount table and below the root directory of a real process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import mountinfo, process_resources
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import mounts as surroundings_mounts
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.docker.spec import samples

Start = Callable[[str], int]

# The host has two disks, one mounted below the other's directory; $root becomes the root directory of the container.
HOST = """
set -e
mount -t tmpfs root "$root"
cd "$root"
mkdir -p srv etc run var proc sys/fs dev/shm host/outer app
ln -s ../run var/run
mount -t tmpfs disk host/outer
mkdir host/outer/inner host/outer/declared host/single
mount -t tmpfs other host/outer/inner
"""
ENTER = "import os, sys, time; os.chroot(sys.argv[1]); os.chdir('/'); print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a container's first process, after a script has mounted what it is to have."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and namespaces")
    root = Path(os.path.realpath(tmp_path)) / "root"
    root.mkdir()
    started: list[subprocess.Popen[str]] = []

    def run(mounts: str) -> int:
        script = f'root="$1"{HOST}{mounts}\nexec "$2" -c "$3" "$root"'
        argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(root), sys.executable, ENTER]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "see above"
        return process.pid

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _bind(place: str) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": "/host",
        "Destination": place,
        "Mode": "",
        "RW": True,
        "Propagation": "rprivate",
    }


def _below(init: int, *binds: str, **host: Any) -> list[tuple[str, str]]:
    """The places that are told, and in which mount they lie."""
    inspect = samples.container(mounts=[_bind(place) for place in binds], host=host)
    mounts = mountinfo.parse(process_resources.read(f"/proc/{init}/mountinfo"))
    found = facts_of_container._below_binds(mounts, facts_of_container._places(inspect, init))
    assert {one["kind"] for one in found} <= {"tmpfs"}
    return [(one["place"], one["below"]) for one in found]


def test_a_bind_mount_brings_what_is_mounted_below_it(start: Start) -> None:
    init = start("mount --rbind host/outer srv")
    assert _below(init, "/srv") == [("/srv/inner", "/srv")]
    # Not the container's: in this test they lie below its root.
    assert _below(init) == []


def test_one_that_is_not_recursive_brings_nothing(start: Start) -> None:
    assert _below(start("mount --bind host/outer srv"), "/srv") == []


def test_binds_in_binds_are_the_containers_own(start: Start) -> None:
    """As ./a:/app beside ./b:/app/b; what lies in the inner one is told with that."""
    init = start("mount --bind host/single srv; mkdir srv/declared; mount --rbind host/outer srv/declared")
    assert _below(init, "/srv", "/srv/declared") == [("/srv/declared/inner", "/srv/declared")]


def test_a_tmpfs_of_the_container_in_a_bind_mount(start: Start) -> None:
    """It brings nothing from the host. What a program mounts in it is its own."""
    init = start(
        "mount --bind host/single srv; mkdir srv/t; mount -t tmpfs t srv/t; mkdir srv/t/x; mount -t tmpfs x srv/t/x"
    )
    assert _below(init, "/srv", Tmpfs={"/srv/t": ""}) == []
    assert _below(init, "/srv") == [("/srv/t", "/srv"), ("/srv/t/x", "/srv")]


def test_what_the_engine_mounts_in_a_bind_mount_is_its_own(start: Start) -> None:
    """With the whole of /etc, /sys, /proc or /dev from the host. But not the host's own pts, of which Docker makes none then."""
    own = ("etc/hosts", "etc/resolv.conf", "sys/fs/cgroup", "proc/kcore", "proc/bus", "dev/shm")
    script = "".join(f"mount --bind {place} {place}; " for place in ("etc", "sys", "proc", "dev"))
    script += "".join(f"mkdir -p {place}; mount -t tmpfs x {place}; " for place in (*own, "dev/pts"))
    paths = {"MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/bus"]}
    init = start(script)
    assert _below(init, "/etc", "/sys", "/proc", "/dev", **paths) == [("/dev/pts", "/dev")]
    # A privileged container has no masks.
    assert ("/proc/kcore", "/proc") in _below(init, "/proc", MaskedPaths=None, ReadonlyPaths=None)


def test_a_place_that_was_named_by_a_link(start: Start) -> None:
    """/var/run leads to /run in most images: the kernel tells the one, the engine the other."""
    init = start("mkdir run/x; mount --rbind host/outer run/x")
    inspect = samples.container(mounts=[_bind("/var/run/x")])
    places = facts_of_container._places(inspect, init)
    assert places.own == places.binds == ["/run/x"]
    text = process_resources.read(f"/proc/{init}/mountinfo").replace("- tmpfs disk ", "- ext4 /dev/x ")
    mounts = mountinfo.parse(text)
    assert [one.place for one in mounts if one.kind == "ext4"] == ["/host/outer", "/run/x"]
    reported = facts_of_container._foreign_mounts([mounts], places)
    assert reported == ["/host/outer (ext4)"]
    assert _below(init, "/var/run/x") == [("/run/x/inner", "/run/x")]


def test_the_comparison_of_mounts_knows_it_too(start: Start, tmp_path: Path) -> None:
    """What lies there is the host's: another file system on the destination is no difference."""
    init = start("mkdir run/x; mount --bind host/outer run/x")
    (tmp_path / "config.v2.json").write_text(json.dumps({"MountPoints": {"/var/run/x": {"Type": "bind"}}}))
    taken = surroundings_mounts.take(Side(init, TaskGroup("/nowhere"), str(tmp_path), own_network=False), None)
    assert taken["external"] == ["/run/x"]
    assert [look[0] for look in taken["looks"]["/run/x"]] == [""]
