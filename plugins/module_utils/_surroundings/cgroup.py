# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The cgroup of a container: limits that are in force in it, and the cgroups that its programs have made below it.

The engine sets the limits that the container was created with, when it creates the copy. Those that were changed by hand or by
systemctl(1) it does not know, and its way of counting processor shares differs between versions. A restore puts all tasks into
the container's cgroup itself (manage-cgroups=ignore), so the cgroups below it are made here, and the tasks moved into them
while they are frozen.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from .._host.fingerprints import inner_pid
from .._host.tasks import read
from .ids import Ids
from .side import Side

NAME = "cgroup"
OF_PROCESSES = False

# Settings of the controllers that mean the same on every host, in the order in which they are set.
_SETTINGS = (
    *("cgroup.max.depth", "cgroup.max.descendants"),
    *("cpu.idle", "cpu.weight", "cpu.max", "cpu.max.burst", "cpu.uclamp.min", "cpu.uclamp.max"),
    *("cpuset.cpus", "cpuset.mems", "cpuset.cpus.partition", "io.weight", "pids.max"),
    *("memory.low", "memory.min", "memory.oom.group", "memory.swap.high", "memory.swap.max", "memory.zswap.max"),
    *("memory.zswap.writeback", "memory.high", "memory.max"),
)
_LIMITS = ("cpu.max", "cpuset.cpus", "memory.max", "pids.max")
_HUGE = re.compile(r"hugetlb\.\w+(\.rsvd)?\.max", re.ASCII)
_CONTROLLER = re.compile(r"[a-z0-9_]+")
# Lines with the names or numbers that this host gives its disks, network cards and keys for memory: only how many of them have a
# limit can be compared.
_OF_DISKS = ("io.max", "io.latency", "rdma.max", "misc.max")
# Who has these may make cgroups there and move tasks.
_DELEGATED = ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_THREADED = "threaded"


class Cgroup(t.TypedDict):
    """One cgroup, the container's or one below that."""

    settings: dict[str, str]
    disks: dict[str, int]
    control: list[str]
    """The controllers that cgroups below it have."""


class Below(Cgroup):
    """One that the container's programs have made."""

    kind: str
    frozen: bool
    owners: list[list[int]]
    tasks: list[str]
    """Processes in it by their numbers inside of the container; threads where it is of the kind `threaded`."""


def look_ahead(side: Side) -> t.Any:
    """Nothing: whoever changes a limit does so at any time."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """Whether the namespace is its own, the settings of its cgroup, and all cgroups below it by their path from there."""
    look = _Look(side)
    below = {}
    for directory, names, _files in os.walk(side.group.path):
        names.sort()
        if directory != side.group.path:
            below[os.path.relpath(directory, side.group.path)] = look.below(directory)
    return {"own_namespace": side.owns("cgroup"), "own": _cgroup(side.group.path), "below": below}


def _is_setting(name: str) -> bool:
    return name in _SETTINGS or bool(_HUGE.fullmatch(name))


def _cgroup(directory: str) -> Cgroup:
    found: Cgroup = {"settings": {}, "disks": {}, "control": []}
    for name in os.listdir(directory):
        if _is_setting(name):
            found["settings"][name] = _own(name, read(f"{directory}/{name}").rstrip("\n"))
        elif name in _OF_DISKS:
            found["disks"][name] = sum(map(_has_limit, read(f"{directory}/{name}").splitlines()))
    found["control"] = sorted(read(f"{directory}/cgroup.subtree_control").split())
    return found


def _own(name: str, text: str) -> str:
    """What of a setting is the cgroup's own."""
    if name == "io.weight":
        # Behind the first line there are disks of this host.
        return text.partition("\n")[0]
    # A partition that is not in force is `root invalid`, and in parentheses why.
    return text.partition(" (")[0] if name == "cpuset.cpus.partition" else text


def _has_limit(line: str) -> bool:
    """Whether a device has a limit, by its line: its name, and behind that ``max`` or ``KEY=max`` where there is none."""
    return any(not value.endswith("max") for value in line.split()[1:])


class _Look:
    def __init__(self, side: Side) -> None:
        self._inner = {pid: number for number, pid in side.processes.items()}
        self.users, self.groups = Ids.of(side.init, "uid"), Ids.of(side.init, "gid")

    def below(self, directory: str) -> Below:
        """One of the cgroups below the container's."""
        kind = read(f"{directory}/cgroup.type").strip()
        frozen = read(f"{directory}/cgroup.freeze").strip() == "1"
        return {
            **_cgroup(directory),
            "kind": kind,
            "frozen": frozen,
            "owners": self.owners(directory),
            "tasks": sorted(self._tasks(directory, kind), key=int),
        }

    def owners(self, directory: str) -> list[list[int]]:
        """Users and groups of the directory and of what matters in it."""
        found = [os.stat(os.path.join(directory, name)) for name in _DELEGATED]
        return [[self.users.inside(one.st_uid), self.groups.inside(one.st_gid)] for one in found]

    def _tasks(self, directory: str, kind: str) -> t.Iterator[str]:
        if kind == _THREADED:
            for task in read(f"{directory}/cgroup.threads").split():
                yield inner_pid(read(f"/proc/{task}/status"))
        else:
            for task in read(f"{directory}/cgroup.procs").split():
                # One that is not among them has entered from outside.
                yield self._inner.get(int(task), "0")


def _check(source: t.Mapping[str, t.Any]) -> None:
    """Check what becomes paths of files that root writes.

    :raises ValueError: for what is no cgroup below another one, none of the settings, and no controller.
    """
    for path in source["below"]:
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ValueError(f"{path!r} is not below the container's cgroup")
    for one in (source["own"], *source["below"].values()):
        strange = [name for name in one["settings"] if not _is_setting(name)]
        strange += [name for name in one["control"] if not _CONTROLLER.fullmatch(name)]
        if strange:
            raise ValueError(f"{strange[0]!r} is nothing that a cgroup has")


def carry(side: Side, source: t.Any) -> None:
    """Make the cgroups that are missing, move the tasks, and set what differs.

    :raises ValueError: for names that no source can have found.
    """
    _check(source)
    look = _Look(side)
    for path in sorted(source["below"], key=lambda one: one.count("/")):
        _make(f"{side.group.path}/{path}", source["below"][path])
    # A cgroup that has tasks itself cannot give most controllers to those below it: so the tasks go first.
    for path, wanted in source["below"].items():
        _move(side, f"{side.group.path}/{path}", wanted)
    every: dict[str, t.Any] = {"": source["own"], **source["below"]}
    for path in sorted(every, key=lambda one: (bool(one), one.count("/"))):
        _control(os.path.join(side.group.path, path), every[path]["control"])
    for path, wanted in every.items():
        _set(os.path.join(side.group.path, path), wanted["settings"])
    for path, wanted in source["below"].items():
        _delegate(look, f"{side.group.path}/{path}", wanted)


def _make(directory: str, wanted: Below) -> None:
    # What fails shows in the comparison.
    with contextlib.suppress(OSError):
        os.makedirs(directory, exist_ok=True)
        if wanted["kind"] == _THREADED and read(f"{directory}/cgroup.type").strip() != _THREADED:
            _write(f"{directory}/cgroup.type", _THREADED)


def _write(path: str, text: str) -> None:
    # A cgroup's file takes one value a write.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _move(side: Side, directory: str, wanted: Below) -> None:
    threaded = wanted["kind"] == _THREADED
    numbers = _threads(side) if threaded and wanted["tasks"] else side.processes
    for number in wanted["tasks"]:
        with contextlib.suppress(OSError, KeyError):
            _write(f"{directory}/cgroup.{'threads' if threaded else 'procs'}", str(numbers[number]))


def _threads(side: Side) -> dict[str, int]:
    """The threads of a container: the number of each inside of it, to that which this host gives it."""
    return {
        inner_pid(read(f"/proc/{pid}/task/{task}/status")): int(task)
        for pid in side.processes.values()
        for task in os.listdir(f"/proc/{pid}/task")
    }


def _control(directory: str, wanted: t.Iterable[str]) -> None:
    with contextlib.suppress(OSError):
        now = read(f"{directory}/cgroup.subtree_control").split()
        for controller in wanted:
            if controller not in now:
                # One alone that this host does not have is no reason to leave out the others.
                with contextlib.suppress(OSError):
                    _write(f"{directory}/cgroup.subtree_control", f"+{controller}")


def _set(directory: str, wanted: t.Mapping[str, str]) -> None:
    order = {name: number for number, name in enumerate(_SETTINGS)}
    for name in sorted(wanted, key=lambda one: order.get(one, len(order))):
        with contextlib.suppress(OSError):
            now = read(f"{directory}/{name}").rstrip("\n")
            if _own(name, now) != wanted[name]:
                # It becomes invalid by itself, and takes only the kind of partition.
                text = wanted[name].removesuffix(" invalid") if name == "cpuset.cpus.partition" else wanted[name]
                for line in text.splitlines() or [""]:
                    _write(f"{directory}/{name}", line + "\n")


def _delegate(look: _Look, directory: str, wanted: Below) -> None:
    with contextlib.suppress(OSError):
        now = look.owners(directory)
        for name, owner, other in zip(_DELEGATED, wanted["owners"], now):
            if owner != other:
                os.chown(os.path.join(directory, name), look.users.outside(owner[0]), look.groups.outside(owner[1]))
        if wanted["frozen"]:
            _write(f"{directory}/cgroup.freeze", "1")


def compare(side: Side, source: t.Any) -> list[str]:
    """What of the copy's cgroups is not as it was; of those that its programs have made only while it is held."""
    if not side.group.frozen:
        source = {**source, "below": {}}
    return differences(source, take(side, None))


def differences(source: t.Mapping[str, t.Any], copy: t.Mapping[str, t.Any]) -> list[str]:
    """What differs.

    :param source: what :func:`take` returned.
    :param copy: the same of the copy.
    """
    found = []
    if source["own_namespace"] and not copy["own_namespace"]:
        found.append("it has no cgroup namespace of its own, and sees the cgroups of the host")
    found.extend(f"its cgroup {text}" for text in _of_one(source["own"], copy["own"]))
    for path, one in source["below"].items():
        other = copy["below"].get(path)
        if other is None:
            found.append(f"its cgroup {path} is missing")
        else:
            found.extend(f"its cgroup {path} {text}" for text in (*_of_one(one, other), *_of_below(one, other)))
    return found


def _of_one(one: Cgroup, other: Cgroup) -> t.Iterator[str]:
    for name, value in one["settings"].items():
        now = other["settings"].get(name)
        if now is None and not (name in _LIMITS and _is_a_limit(value)):
            # A host without this controller. That is what it is like there; but a limit is not lost in silence.
            continue
        if now != value:
            yield f"has {name} {_shown(now)} and not {_shown(value)}"
    for name, count in one["disks"].items():
        if other["disks"].get(name, 0) < count:
            yield f"lacks limits of {'disks' if name.startswith('io.') else 'devices'} ({name})"
    lacking = sorted(set(one["control"]) - set(other["control"]))
    if lacking:
        yield f"does not control {', '.join(lacking)} below it"


def _is_a_limit(value: str) -> bool:
    """Whether one of the limits is not what a new cgroup has."""
    return value not in ("max", "") and not value.startswith("max ")


def _shown(value: str | None) -> str:
    return "(not there)" if value is None else value.replace("\n", ", ") or "(none)"


def _of_below(one: Below, other: Below) -> t.Iterator[str]:
    if one["tasks"] != other["tasks"]:
        yield "has other tasks in it"
    if one["kind"] != other["kind"]:
        yield f"is of the kind {other['kind']} and not {one['kind']}"
    if one["frozen"] != other["frozen"]:
        yield "is frozen for its own part, or is not any more"
    if one["owners"] != other["owners"]:
        yield "belongs to others"
