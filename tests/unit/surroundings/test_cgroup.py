# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cgroups that programs have made, with tasks and limits in them, are made again on real cgroups; which settings differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import tasks as tasks_module
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import cgroup
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.groups import Group, own_group, unified
from tests.unit.helpers.inhabitants import inhabited

# Two children of the first process, the second of which has two threads.
PROGRAM = """
import os, threading, time
if os.fork() == 0:
    time.sleep(60)
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    time.sleep(60)
time.sleep(0.2)
"""


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


def _sent(data: Any) -> Any:
    return json.loads(json.dumps(data))


def _divide(side: Side) -> None:
    """What a program that makes cgroups of its own does."""
    top = Path(side.group.path)
    (top / "app" / "inner").mkdir(parents=True)
    (top / "app" / "cgroup.max.descendants").write_text("7")
    (top / "app/inner/cgroup.procs").write_text(str(side.processes["2"]))
    os.chown(top / "app" / "cgroup.procs", 1000, 1001)
    (top / "cgroup.max.depth").write_text("5")


def _where(task: int) -> str:
    return Path(f"/proc/{task}/cgroup").read_text().splitlines()[-1].rpartition("/copy")[2]


def test_cgroups_below_are_made_and_the_frozen_tasks_moved(group: Group) -> None:
    """With their limits and owners."""
    with inhabited(group, "original", PROGRAM) as original, inhabited(group, "copy", PROGRAM) as copy:
        _divide(original)
        source = _sent(cgroup.take(original, None))
        assert cgroup.compare(copy, source) == [
            "its cgroup has cgroup.max.depth max and not 5",
            "its cgroup app is missing",
            "its cgroup app/inner is missing",
        ]
        cgroup.carry(copy, source)
        assert copy.group.frozen
        assert cgroup.compare(copy, source) == []
        assert _where(copy.processes["2"]) == "/app/inner"
        assert _where(copy.processes["1"]) == ""
        app = Path(copy.group.path) / "app"
        assert (app / "cgroup.max.descendants").read_text() == "7\n"
        assert ((app / "cgroup.procs").stat().st_uid, (app / "cgroup.threads").stat().st_uid) == (1000, 0)


def test_a_thread_in_a_cgroup_of_its_own(group: Group) -> None:
    """Only threaded cgroups take one without its process."""
    with inhabited(group, "original", PROGRAM) as original, inhabited(group, "copy", PROGRAM) as copy:
        threads = Path(original.group.path) / "threads"
        threads.mkdir()
        (threads / "cgroup.type").write_text("threaded")
        pid = original.processes["3"]
        (other,) = (task for task in os.listdir(f"/proc/{pid}/task") if task != str(pid))
        (threads / "cgroup.threads").write_text(other)
        source = _sent(cgroup.take(original, None))
        cgroup.carry(copy, source)
        assert cgroup.compare(copy, source) == []
        tasks = [int(task) for task in os.listdir(f"/proc/{copy.processes['3']}/task")]
        assert sorted(_where(task) for task in tasks) == ["", "/threads"]


def test_what_cannot_be_carried_is_reported(group: Group) -> None:
    """A depth that the copy's host does not allow."""
    with inhabited(group, "original", PROGRAM) as original, inhabited(group, "copy", PROGRAM) as copy:
        _divide(original)
        source = _sent(cgroup.take(original, None))
        (Path(group.path) / "cgroup.max.depth").write_text("2")
        cgroup.carry(copy, source)
        assert cgroup.compare(copy, source) == ["its cgroup app/inner is missing"]


def test_the_group_of_a_container_whose_first_process_is_in_a_cgroup_of_its_own(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its tasks are meant, and not those beside its first process."""
    monkeypatch.setattr(tasks_module, "_CGROUPS", str(unified()))
    container = "c" * 64
    with inhabited(group, f"docker-{container}.scope", PROGRAM) as side:
        init = Path(side.group.path) / "init"
        init.mkdir()
        (init / "cgroup.procs").write_text(str(side.init))
        found = TaskGroup.of_container({"Id": container, "Name": "/x", "State": {"Pid": side.init}})
        assert found.path == side.group.path
        assert len(found.pids()) == 3


@pytest.mark.parametrize(
    ("below", "settings", "control"),
    [
        ({}, {"../../etc/authorized_keys": "ssh-ed25519 x"}, []),
        ({}, {"hugetlb./../../../etc/authorized_keys.max": "ssh-ed25519 x"}, []),
        ({}, {"cgroup.procs": "1"}, []),
        ({}, {}, ["cpu -memory"]),
        ({"../../made": {}}, {}, []),
        ({"/made": {}}, {}, []),
        ({"app/../../../made": {}}, {}, []),
    ],
)
def test_no_other_file_is_written(
    tmp_path: Path, below: dict[str, Any], settings: dict[str, str], control: list[str]
) -> None:
    """Names that come from another host go into paths of root's."""
    group = tmp_path / "cgroup" / "scope"
    (tmp_path / "etc").mkdir()
    keys = tmp_path / "etc" / "authorized_keys"
    for file in (
        keys,
        tmp_path / "etc" / "authorized_keys.max",
        group / "cgroup.procs",
        group / "cgroup.subtree_control",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before\n")
    (group / "hugetlb.").mkdir()
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    before = _tree(tmp_path)
    other: dict[str, Any] = {"settings": {}, "disks": {}, "control": []}
    source = {
        "own_namespace": True,
        "own": {**other, "settings": settings, "control": control},
        "below": {path: {**other, "kind": "domain", "frozen": False, "owners": [], "tasks": []} for path in below},
    }
    side = Side(os.getpid(), TaskGroup(str(group)), "", own_network=True)
    with pytest.raises(ValueError, match=r"is not below|is nothing that a cgroup has"):
        cgroup.carry(side, source)
    assert _tree(tmp_path) == before


def _tree(top: Path) -> dict[str, str]:
    return {str(path): path.read_text() if path.is_file() else "" for path in top.rglob("*")}


def test_names_of_huge_pages() -> None:
    """Of which the kernel has one for each size."""
    assert all(map(cgroup._is_setting, ("hugetlb.2MB.max", "hugetlb.1GB.rsvd.max", "memory.max")))


def _one(**settings: str) -> dict[str, Any]:
    names = {name.replace("_", ".", 1).replace("_", "."): value for name, value in settings.items()}
    own = {"settings": names, "disks": {}, "control": []}
    return {"own_namespace": True, "own": own, "below": {}}


def test_limits_in_force() -> None:
    """Changed by hand; not there, where the host cannot limit that; and of no matter."""
    source = _one(memory_max="1048576", pids_max="max", cpu_max="50000 100000", io_weight="default 50")
    assert cgroup.differences(source, source) == []
    assert cgroup.differences(source, _one(memory_max="max", cpu_max="50000 100000")) == [
        "its cgroup has memory.max max and not 1048576"
    ]
    assert cgroup.differences(source, _one(memory_max="1048576")) == [
        "its cgroup has cpu.max (not there) and not 50000 100000"
    ]


def test_limits_of_disks_are_counted() -> None:
    """Their numbers are each host's own."""
    more, fewer = _one(), _one()
    more["own"]["disks"] = {"io.max": 2}
    fewer["own"]["disks"] = {"io.max": 1}
    assert cgroup.differences(more, fewer) == ["its cgroup lacks limits of disks (io.max)"]
    assert cgroup.differences(fewer, more) == []


def test_limits_of_devices_are_counted(tmp_path: Path) -> None:
    """As the kernel lists them: a device without a limit has a line as well. A partition may not be in force."""
    for name, text in {
        "rdma.max": "mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=max hca_object=max\n",
        "misc.max": "sev 5\nsev_es max\n",
        "io.max": "8:16 rbps=2097152 wbps=max riops=max wiops=max\n",
        "cpuset.cpus.partition": "root invalid (Parent is not a partition root)\n",
        "memory.zswap.writeback": "0\n",
        "cgroup.subtree_control": "\n",
    }.items():
        (tmp_path / name).write_text(text)
    found = cgroup._cgroup(str(tmp_path))
    assert found["disks"] == {"rdma.max": 1, "misc.max": 1, "io.max": 1}
    assert found["settings"] == {"cpuset.cpus.partition": "root invalid", "memory.zswap.writeback": "0"}
    fewer = {**found, "disks": {"io.max": 1}}
    both: list[dict[str, Any]] = [{"own_namespace": True, "own": own, "below": {}} for own in (found, fewer)]
    assert sorted(cgroup.differences(both[0], both[1])) == [
        "its cgroup lacks limits of devices (misc.max)",
        "its cgroup lacks limits of devices (rdma.max)",
    ]


def test_the_namespace() -> None:
    """A copy that sees the host's cgroups is told; one that sees less than a source that had lost it is not."""
    own, hosts = _one(), {**_one(), "own_namespace": False}
    assert cgroup.differences(own, hosts) == ["it has no cgroup namespace of its own, and sees the cgroups of the host"]
    assert cgroup.differences(hosts, own) == []
