# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What belongs to tasks goes from one real process to another, or is told where nobody but the process could set it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import processors, speculation
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import tasks
from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.inhabitants import inhabited

# Two threads, the second of which is given something of its own.
_THREADS = """
import ctypes, os, threading, time, resource
# Whoever runs the tests may be nice.
os.setpriority(os.PRIO_PROCESS, 0, 0)
libc = ctypes.CDLL(None)
begun = threading.Event()
def second():
    {second}
    begun.set()
    time.sleep(60)
threading.Thread(target=second, daemon=True).start()
begun.wait()
"""
PLAIN = _THREADS.format(second="pass")
# ioprio_set(2) by its number here; class 2 (best effort), level 6.
SET = (
    _THREADS.format(second="os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)")
    + """
import platform
open("/proc/self/oom_score_adj", "w").write("321")
open("/proc/self/coredump_filter", "w").write("0x31")
open("/proc/self/timerslack_ns", "w").write("123456")
libc.syscall(251 if platform.machine() == "x86_64" else 30, 1, 0, 2 << 13 | 6)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))
os.setpriority(os.PRIO_PROCESS, 0, 3)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
"""
)


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


def _sent(data: Any) -> Any:
    return json.loads(json.dumps(data))


def test_what_can_be_set_from_outside_is_carried(group: Group) -> None:
    """Of the process, and of one of its threads alone."""
    with inhabited(group, "original", SET) as original, inhabited(group, "copy", PLAIN) as copy:
        source = _sent(tasks.take(original, None))
        reported = tasks.compare(copy, source)
        for part in (
            "process 1: its oom_score_adj was 321 and is 0",
            "process 1: its filter of core dumps was 00000031 and is 00000033",
            "process 1: its timer slack was 123456 and is 50000",
            "process 1: its I/O priority was 16390 and is 0",
            "process 1: its scheduling was 3 1 3 0 0 0 0 and is 0 0 0 0 0 0 0",
            "process 1: its resource limits (Max open files) differ",
            "process 1: the processors that it is tied to was",
            "thread 2 of process 1: its scheduling was 0 0 7 0 0 0 0 and is 0 0 0 0 0 0 0",
        ):
            if "processors" not in part or os.cpu_count() != 1:
                assert any(line.startswith(part) for line in reported), (part, reported)
        tasks.carry(copy, source)
        assert tasks.compare(copy, source) == []
        # As others see it.
        assert os.sched_getscheduler(copy.init) == os.SCHED_BATCH | os.SCHED_RESET_ON_FORK
        assert os.getpriority(os.PRIO_PROCESS, copy.init) == 3
        assert len(os.sched_getaffinity(copy.init)) == 1
        assert Path(f"/proc/{copy.init}/oom_score_adj").read_text() == "321\n"


_OWN_ALONE = {
    "its users": "os.setresuid(7, 8, 9)",
    "its groups": "os.setresgid(7, 8, 9)",
    "its supplementary groups": "os.setgroups([5, 6])",
    "its umask": "os.umask(0o137)",
    "no_new_privs": "libc.prctl(38, 1, 0, 0, 0)",
    "its seccomp mode": "libc.prctl(38, 1, 0, 0, 0), libc.prctl(22, 2, ctypes.byref(program))",
    "the bounding set of its capabilities": "libc.prctl(24, 0, 0, 0, 0)",
    "its personality": "libc.personality(0x0040000)",
    "its working directory": "os.chdir('/usr')",
    "its root directory": "os.chroot('/usr')",
    "its process group": "os.setsid()",
    "its name": "open('/proc/self/comm', 'w').write('other')",
    "the signals that it ignores": "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "the signals that it handles": "signal.signal(signal.SIGUSR1, print)",
    "its timers": "libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p()))",
}
# A seccomp filter of one instruction: allow everything.
_CHILD = """
import ctypes, os, signal, struct, time
libc = ctypes.CDLL(None)
instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(1, ctypes.addressof(instruction))
reading, writing = os.pipe()
if os.fork() == 0:
    {statement}
    os.write(writing, b"x")
    time.sleep(60)
os.read(reading, 1)
"""


@pytest.mark.parametrize("name", _OWN_ALONE)
def test_what_nobody_else_can_set_is_reported(group: Group, name: str) -> None:
    """Each alone, of a child of the first process."""
    changed, plain = (_CHILD.format(statement=statement) for statement in (_OWN_ALONE[name], "pass"))
    with inhabited(group, "original", changed) as original, inhabited(group, "copy", plain) as copy:
        source = _sent(tasks.take(original, None))
        tasks.carry(copy, source)
        reported = tasks.compare(copy, source)
        assert [line for line in reported if line.startswith(f"process 2: {name} ")], reported


def test_two_that_are_alike_do_not_differ(group: Group) -> None:
    """A difference refuses a move, so there must be none by chance."""
    program = _CHILD.format(statement="pass")
    with inhabited(group, "original", program) as original, inhabited(group, "copy", program) as copy:
        assert tasks.compare(copy, _sent(tasks.take(original, None))) == []


def test_where_nothing_is_to_be_set_nothing_is_read_twice(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it stands still while it is read."""
    with inhabited(group, "original", PLAIN) as original, inhabited(group, "copy", PLAIN) as copy:
        source = _sent(tasks.take(original, None))
        tasks.carry(copy, source)
        monkeypatch.setattr(tasks._Look, "process", lambda *_: pytest.fail("a process was read again"))
        assert tasks.compare(copy, source) == []


def test_clocks_that_go_back(group: Group) -> None:
    """The copy has a time namespace that is behind the source's clock."""
    behind = ["unshare", "--time", "--boottime=-100"]
    with inhabited(group, "original", PLAIN) as original, inhabited(group, "copy", PLAIN, *behind) as copy:
        source = _sent(tasks.take(original, None))
        reported = tasks.compare(copy, source)
        assert len(reported) == 1
        assert reported[0].startswith("the clock CLOCK_BOOTTIME goes back by 99.")


def test_processors_that_are_not_here_are_reported() -> None:
    """A program that is tied to the ninth of them."""
    here: dict[str, Any] = {"clocks": {}, "processes": {"1": {"process": {}, "threads": {"1": {"affinity": [8]}}}}}
    there: dict[str, Any] = {"clocks": {}, "processes": {"1": {"process": {}, "threads": {"1": {"affinity": "all"}}}}}
    assert tasks.differences(here, there, {"affinity": "processors"}, -1) == ["process 1: processors was 8 and is all"]


_TIED = """
import os
os.sched_setaffinity(0, {processors})
open("/proc/self/comm", "w").write("tied")
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is one processor")
def test_who_is_tied_to_all_that_are_here_was_tied_to_as_many_elsewhere(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host with one more, so that these were not all of them."""
    with inhabited(group, "original", PLAIN) as original, inhabited(group, "copy", PLAIN) as copy:
        here = processors.numbers(",".join(map(str, sorted(os.sched_getaffinity(0)))))
        assert processors.tied(original.group) == []
        monkeypatch.setattr(processors, "of_group", lambda _group: {*here, max(here) + 1})
        [one] = {tuple(found["processors"]) for found in processors.tied(original.group)}
        assert set(one) == here
        source = _sent(tasks.take(original, None))
        monkeypatch.undo()
        tasks.carry(copy, source)
        assert tasks.compare(copy, source) == []
        # On another one it would have been tied to fewer.
        monkeypatch.setattr(processors, "of_group", lambda _group: {*here, max(here) + 2})
        source["processes"]["1"]["threads"]["1"]["affinity"].append(max(here) + 1)
        assert "process 1: the processors that it is tied to was" in tasks.compare(copy, source)[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is one processor")
def test_the_preflight_knows_who_is_tied_to_what(group: Group) -> None:
    first = min(os.sched_getaffinity(0))
    with inhabited(group, "original", _TIED.format(processors=f"{{{first}}}")) as original:
        assert processors.tied(original.group) == [{"program": "tied", "processors": [first]}]


def test_capabilities_that_the_other_kernel_does_not_know() -> None:
    """Nobody can have them there."""
    one, other = (
        {"clocks": {}, "processes": {"1": {"process": {}, "threads": {"1": {"CapBnd": mask}}}}}
        for mask in ("000001ffffffffff", "0000003fffffffff")
    )
    assert tasks.differences(one, other, {}, (1 << 38) - 1) == []
    assert tasks.differences(one, other, {}, (1 << 41) - 1) == [
        "process 1: CapBnd was 000001ffffffffff and is 0000003fffffffff"
    ]


_NO_HUGE_PAGES = "import ctypes; assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0"


def test_a_program_that_wants_no_huge_pages(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """PR_SET_THP_DISABLE. That there are none on a host is no loss."""
    with inhabited(group, "original", _NO_HUGE_PAGES) as original, inhabited(group, "copy", "pass") as copy:
        pages = [json.loads(json.dumps(tasks.take(side, None))) for side in (original, copy)]
        if pages[1]["processes"]["1"]["process"]["THP_enabled"] != "1":
            pytest.skip("this kernel has no transparent huge pages, or does not tell of them")
        assert tasks.compare(copy, pages[0]) == ["process 1: whether it may have huge pages was 0 and is 1"]
        assert tasks.compare(original, pages[1]) == []
        # A kernel without them tells the same of every process, whatever that has asked for.
        monkeypatch.setattr(tasks, "_OF_HUGE_PAGES", "/nowhere")
        assert tasks.compare(copy, json.loads(json.dumps(tasks.take(original, None)))) == []


@pytest.mark.parametrize(
    ("one", "other", "lost"),
    [
        ("thread mitigated", "thread vulnerable", True),
        ("thread force mitigated", "vulnerable", True),
        ("thread mitigated", "globally mitigated", False),
        ("thread mitigated", "not vulnerable", False),
        ("thread vulnerable", "vulnerable", False),
        ("globally mitigated", "thread vulnerable", False),
    ],
)
def test_a_protection_from_speculation_that_a_program_asked_for(one: str, other: str, lost: bool) -> None:
    """In the words of Linux 6.18, of which this machine's processor has only one."""
    name = "Speculation_Store_Bypass"
    here, there = (
        {
            "clocks": {},
            "processes": {"1": {"process": {}, "threads": {"1": {name: speculation.state(name, {name: text})}}}},
        }
        for text in (one, other)
    )
    found = tasks.differences(here, there, speculation.LABELS, -1)
    assert found == (["process 1: its protection from speculative stores was asked for and is lacking"] if lost else [])
