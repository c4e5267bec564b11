# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What belongs to the processes and threads of a container: users, capabilities, limits, scheduling, directories, clocks.

CRIU restores most of it, and nobody had looked whether it did. It does not know processor affinity, I/O priority, timer slack and
the filter of core dumps: those are set on the held copy. What only the process itself could set is compared, see
``_host/task_traits.py``.

Not looked at, because no other process can read it: securebits, the keyrings of a process, Landlock, PR_SET_MDWE and
PR_MCE_KILL. CRIU restores the first of them and none of the others.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._host import processors, speculation
from .._host.task_traits import ALL as ALL_PROCESSORS
from .._host.task_traits import (
    File,
    InputOutputPriority,
    Limits,
    Link,
    Processors,
    Scheduling,
    Settable,
    Timers,
    Trait,
    Value,
    WritableFile,
)
from .._host.tasks import read
from .ids import Ids
from .side import Side

NAME = "tasks"
OF_PROCESSES = True

# Seconds that the copy's clocks may be ahead of the source's: as long as a restore may take. More is another host's clock.
_CLOCK_AHEAD = 300.0
_CLOCKS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME}

# Lines of /proc/PID/task/TID/status, and what they are called in a message.
_OF_THREAD = {
    "Name": "its name",
    "Uid": "its users",
    "Gid": "its groups",
    "Groups": "its supplementary groups",
    "NoNewPrivs": "no_new_privs",
    "Seccomp": "its seccomp mode",
    "Seccomp_filters": "the number of its seccomp filters",
}
_CAPABILITIES = {
    "CapInh": "its inheritable capabilities",
    "CapPrm": "its permitted capabilities",
    "CapEff": "its effective capabilities",
    "CapBnd": "the bounding set of its capabilities",
    "CapAmb": "its ambient capabilities",
}
_OF_PROCESS = {
    "Umask": "its umask",
    "NSpgid": "its process group",
    "NSsid": "its session",
    "SigIgn": "the signals that it ignores",
    "SigCgt": "the signals that it handles",
    "THP_enabled": "whether it may have huge pages",
}
# A kernel without them (one that is built for real time, say) tells of every process that it has none.
_HUGE_PAGES, _OF_HUGE_PAGES = "THP_enabled", "/sys/kernel/mm/transparent_hugepage"
# Of these only one value is a loss when the copy has another: what a program has set.
_ONLY_FROM = {_HUGE_PAGES: "0", **dict.fromkeys(speculation.LABELS, speculation.ASKED_FOR)}
_MASKS = frozenset((*_CAPABILITIES, "SigIgn", "SigCgt"))


def look_ahead(side: Side) -> t.Any:
    """Nothing: programs change all of it at any time."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """All of it, of each process and of each of its threads, by their numbers inside of the container."""
    return _Look(side).all()


class _Look:
    def __init__(self, side: Side) -> None:
        self._side = side
        self.processes = side.processes
        self._inner = {pid: number for number, pid in self.processes.items()}
        #: threads that were looked at: those of a process by the number of each inside, to that which this host gives it
        self.threads: dict[int, dict[str, int]] = {}
        self._ids = {"Uid": Ids.of(side.init, "uid"), "Gid": Ids.of(side.init, "gid")}
        self._ids["Groups"] = self._ids["Gid"]
        self.of_thread: dict[str, Trait] = {
            "scheduling": Scheduling("its scheduling"),
            "affinity": Processors("the processors that it is tied to", processors.of_group(side.group)),
            "ioprio": InputOutputPriority("its I/O priority"),
            "timerslack": WritableFile("its timer slack", "timerslack_ns"),
        }
        self.of_process: dict[str, Trait] = {
            "limits": Limits("its resource limits"),
            "oom": WritableFile("its oom_score_adj", "oom_score_adj"),
            "coredump": WritableFile("its filter of core dumps", "coredump_filter", "0x{}"),
            "personality": File("its personality", "personality"),
            "cwd": Link("its working directory", "cwd"),
            "root": Link("its root directory", "root"),
            "exe": Link("its program", "exe"),
            "timers": Timers("its timers"),
        }
        # Who moves it all the same does not heed the rule of that name.
        if "personality" in side.ignored:
            del self.of_process["personality"]
        self._speculation = "speculation_controls" not in side.ignored
        if _has_apparmor():
            self.of_process["label"] = File("its AppArmor profile", "attr/current")

    def all(self) -> dict[str, t.Any]:
        return {
            "clocks": _clocks(self._side.init),
            "processes": {number: self.process(pid) for number, pid in self.processes.items()},
        }

    def process(self, pid: int) -> dict[str, t.Any]:
        """What a process and its threads have."""
        threads = {}
        numbers_here = self.threads[pid] = {}
        process: dict[str, Value] = {name: trait.get(pid) for name, trait in self.of_process.items()}
        for task in map(int, os.listdir(f"/proc/{pid}/task")):
            # Of its first thread it has been read already.
            status = _fields(self._side.statuses[pid] if task == pid else read(f"/proc/{pid}/task/{task}/status"))
            inner = status["NSpid"].split()[-1]
            threads[inner], numbers_here[inner] = self._thread(task, status), task
            if task == pid:
                process.update({name: self._value(name, status) for name in _OF_PROCESS})
                process["parent"] = self._inner.get(int(status["PPid"]), "0")
        return {"process": process, "threads": threads}

    def _thread(self, task: int, status: t.Mapping[str, str]) -> dict[str, Value]:
        found: dict[str, Value] = {name: trait.get(task) for name, trait in self.of_thread.items()}
        for name in (*_OF_THREAD, *_CAPABILITIES):
            found[name] = self._value(name, status)
        if self._speculation:
            found.update({name: speculation.state(name, status) for name in speculation.LABELS})
        return found

    def _value(self, name: str, status: t.Mapping[str, str]) -> Value:
        text = status.get(name)
        if text is None or (name == _HUGE_PAGES and not os.path.isdir(_OF_HUGE_PAGES)):
            return None
        ids = self._ids.get(name)
        if ids is not None and ids.differ:
            return " ".join(str(ids.inside(int(number))) for number in text.split())
        if ids is not None:
            return " ".join(text.split())
        # The last is the number in the innermost namespace.
        return text.split()[-1] if name.startswith("NS") else text


def _fields(status: str) -> dict[str, str]:
    return {key: value for key, _colon, value in (line.partition(":\t") for line in status.splitlines())}


def _clocks(init: int) -> dict[str, float]:
    """The clocks that count from a start, in seconds, as the container sees them (see time_namespaces(7))."""
    offsets: dict[str, float] = {}
    # Where a kernel has no time namespaces everybody sees the host's.
    with contextlib.suppress(FileNotFoundError):
        for line in read(f"/proc/{init}/timens_offsets").splitlines():
            name, seconds, nanoseconds = line.split()
            offsets[name] = int(seconds) + int(nanoseconds) / 1e9
    return {name: time.clock_gettime(clock) + offsets.get(name, 0.0) for name, clock in _CLOCKS.items()}


def _has_apparmor() -> bool:
    try:
        return read("/sys/module/apparmor/parameters/enabled").startswith("Y")
    except OSError:
        return False


def carry(side: Side, source: t.Any) -> None:
    """Set what can be set from outside."""
    look = _Look(side)
    processes, put = {}, False
    for number, pid in look.processes.items():
        wanted = source["processes"].get(number, {"process": {}, "threads": {}})
        # One of a copy that runs may end meanwhile.
        with contextlib.suppress(OSError):
            found = processes[number] = look.process(pid)
            put |= _put(look.of_process, pid, wanted["process"], found["process"])
            for inner, task in look.threads[pid].items():
                put |= _put(look.of_thread, task, wanted["threads"].get(inner, {}), found["threads"][inner])
    if not put:
        # It need not be read again to be compared.
        side.notes[NAME] = {"clocks": _clocks(side.init), "processes": processes}


def _put(traits: t.Mapping[str, Trait], task: int, wanted: t.Mapping[str, Value], found: t.Mapping[str, Value]) -> bool:
    """Set what differs, as far as it can be set; returns whether there was something of the kind."""
    other = [
        (name, trait)
        for name, trait in traits.items()
        if isinstance(trait, Settable) and name in wanted and found[name] != wanted[name]
    ]
    for name, trait in other:
        # What cannot be set shows in the comparison.
        with contextlib.suppress(OSError, ValueError):
            trait.put(task, wanted[name])
    return bool(other)


def compare(side: Side, source: t.Any) -> list[str]:
    """What of a held copy's tasks is not as it was. Those that run change it as they like."""
    if not side.group.frozen:
        return []
    look = _Look(side)
    labels = {
        **_OF_THREAD,
        **_CAPABILITIES,
        **_OF_PROCESS,
        **speculation.LABELS,
        **{name: trait.label for name, trait in (*look.of_thread.items(), *look.of_process.items())},
        "parent": "its parent",
    }
    known = (1 << (int(read("/proc/sys/kernel/cap_last_cap")) + 1)) - 1
    copy = side.notes.get(NAME) or look.all()
    _name_all_of_them(copy, source, sorted(processors.of_group(side.group)))
    return differences(source, copy, labels, known)


def _name_all_of_them(copy: t.Mapping[str, t.Any], source: t.Mapping[str, t.Any], processors: list[int]) -> None:
    """Who is tied to just those processors that are all here has what it had on a host with more: tell it in the same words."""
    for number, one in copy["processes"].items():
        was = source["processes"].get(number, {}).get("threads", {})
        for thread, found in one["threads"].items():
            if found["affinity"] == ALL_PROCESSORS and was.get(thread, {}).get("affinity") == processors:
                found["affinity"] = processors


def differences(
    source: t.Mapping[str, t.Any], copy: t.Mapping[str, t.Any], labels: t.Mapping[str, str], capabilities: int
) -> list[str]:
    """What differs.

    :param source: what :func:`take` returned.
    :param copy: the same of the copy.
    :param labels: what each thing is called in a message.
    :param capabilities: those that the copy's kernel knows.
    """
    found = list(_of_clocks(source["clocks"], copy["clocks"]))
    for number, one in source["processes"].items():
        other = copy["processes"].get(number)
        if other is None:
            found.append(f"process {number} is missing")
            continue
        where = f"process {number}"
        found.extend(f"{where}: {text}" for text in _of_one(one["process"], other["process"], labels, capabilities))
        for thread in sorted({*one["threads"], *other["threads"]}, key=int):
            of_thread = where if thread == number else f"thread {thread} of {where}"
            if thread not in one["threads"] or thread not in other["threads"]:
                found.append(f"{of_thread} is {'missing' if thread in one['threads'] else 'too much'}")
                continue
            both = one["threads"][thread], other["threads"][thread]
            found.extend(f"{of_thread}: {text}" for text in _of_one(*both, labels, capabilities))
    return found


def _of_one(
    one: t.Mapping[str, Value], other: t.Mapping[str, Value], labels: t.Mapping[str, str], capabilities: int
) -> t.Iterator[str]:
    for name, value in one.items():
        now = other.get(name)
        # Not every kernel tells everything.
        if value is None or now is None:
            continue
        if name in _MASKS:
            mask = capabilities if name in _CAPABILITIES else -1
            if int(value, 16) & mask == int(now, 16) & mask:
                continue
        # What nobody has asked for is the host's own.
        elif value == now or (name in _ONLY_FROM and value != _ONLY_FROM[name]):
            continue
        yield f"{labels.get(name, name)} {_is(value, now)}"


def _is(value: Value, now: Value) -> str:
    if isinstance(value, dict):
        names = [name for name in value if value[name] != now.get(name)]
        return f"({', '.join(names)}) differ"
    return f"was {_text(value)} and is {_text(now)}"


def _text(value: Value) -> str:
    return " ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _of_clocks(one: t.Mapping[str, float], other: t.Mapping[str, float]) -> t.Iterator[str]:
    for name, then in one.items():
        ahead = other[name] - then
        if ahead < 0:
            yield f"the clock CLOCK_{name.upper()} goes back by {-ahead:.3f} s"
        elif ahead > _CLOCK_AHEAD:
            yield f"the clock CLOCK_{name.upper()} goes ahead by {ahead:.0f} s"
