# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real programs that sleep: which of them a restore would wake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import sleeping_tasks

# A program of ours by its number and arguments: the C library's own functions would hide what is called.
CALL = "import ctypes, sys; ctypes.CDLL(None).{}"
NANOSLEEP = CALL.format("nanosleep((ctypes.c_long * 2)({seconds}, 0), None)")
RELATIVE = CALL.format("clock_nanosleep(1, 0, (ctypes.c_long * 2)({seconds}, 0), None)")
ABSOLUTE = CALL.format("clock_nanosleep(1, 1, (ctypes.c_long * 2)(1 << 40, 0), None)")
POLL = CALL.format("poll(None, 0, {seconds}000)")
SELECT = "import select; select.select([], [], [], {seconds})"
PYTHON_SLEEP = "import time; time.sleep({seconds})"
THREAD = (
    "import ctypes, threading; threading.Thread(target=lambda: ctypes.CDLL(None).nanosleep("
    "(ctypes.c_long * 2)({seconds}, 0), None)).start()"
)


def _python(text: str, seconds: int = 6000) -> list[str]:
    return [sys.executable, "-S", "-c", text.format(seconds=seconds)]


def _sleeps(argv: list[str], then: Callable[[int], object] = lambda _pid: None) -> list[tuple[float, bool]]:
    with subprocess.Popen(argv) as process:
        try:
            _wait_until_asleep(process.pid)
            then(process.pid)
            return [(one.seconds, one.rest_known) for one in sleeping_tasks.look(process.pid, "it")]
        finally:
            process.kill()


def _wait_until_asleep(pid: int) -> None:
    """Until all its tasks stand in the same call twice."""
    deadline = time.monotonic() + 20
    before: list[str] = []
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = [sleeping_tasks._read(f"/proc/{pid}/task/{task}/syscall") for task in os.listdir(f"/proc/{pid}/task")]
        if now == before and not any(text.startswith("running") for text in now):
            return
        before = now


def _stop_and_go(pid: int) -> None:
    """After this the kernel goes on with the sleep by a call of its own (restart_syscall), as after docker pause."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.2)


@pytest.mark.parametrize("text", [NANOSLEEP, RELATIVE, THREAD])
def test_who_names_a_time_is_found(text: str) -> None:
    assert _sleeps(_python(text)) == [(6000.0, False)]
    assert _sleeps(_python(text), _stop_and_go) == [(6000.0, False)]


@pytest.mark.parametrize("text", [ABSOLUTE, SELECT, PYTHON_SLEEP])
def test_who_sleeps_until_a_moment_or_waits_in_select_is_not(text: str) -> None:
    assert _sleeps(_python(text)) == []
    assert _sleeps(_python(text), _stop_and_go) == []


def test_a_short_sleep_is_over_soon_in_any_case() -> None:
    assert _sleeps(_python(NANOSLEEP, 9)) == []


def test_programs_that_are_known_to_sleep_again() -> None:
    assert _sleeps(["/usr/bin/sleep", "6000"]) == []
    # What is left of it is told to the C library.
    assert _sleeps(["perl", "-e", "sleep 6000"]) == [(6000.0, True)]
    # Python calls poll(2) again, whoever has written the call.
    assert _sleeps(_python(POLL)) == []


@pytest.mark.parametrize(
    ("call", "place", "asked"),
    [
        ([35, 0x7FFE0000, 0, 0, 0], "hrtimer_nanosleep", ("timespec", 0x7FFE0000, False)),
        ([230, 0, 0, 0x7FFE0000, 0], "hrtimer_nanosleep", ("timespec", 0x7FFE0000, False)),
        ([35, 0x7FFE0000, 0x7FFE0000, 0, 0], "hrtimer_nanosleep", ("timespec", 0x7FFE0000, True)),
        ([230, 0, 0, 0x7FFE0000, 0x7FFE0010], "hrtimer_nanosleep", ("timespec", 0x7FFE0000, True)),
        ([230, 1, 1, 0x7FFE0000, 0], "hrtimer_nanosleep", None),
        ([219, 0x7FFE0000, 0, 0, 0], "do_syscall_64", ("timespec", 0x7FFE0000, False)),
        ([219, 1, 0, 0x7FFE0000, 0], "do_syscall_64", ("timespec", 0x7FFE0000, False)),
        ([219, 0x7FFE0000, 3, 5000, 0], "poll_schedule_timeout.constprop.0", None),
        ([219, 0x7FFE0000, 128, 0, 0], "futex_wait_queue", None),
        ([219, 0, 0, 5000, 0], "poll_schedule_timeout.constprop.0", ("milliseconds", 5000, False)),
        ([7, 0, 0, 5000, 0], "poll_schedule_timeout.constprop.0", ("milliseconds", 5000, False)),
        ([7, 0x7FFE0000, 1, 5000, 0], "poll_schedule_timeout.constprop.0", None),
        # For ever.
        ([7, 0, 0, 0xFFFFFFFF, 0], "poll_schedule_timeout.constprop.0", None),
        ([0, 3, 0x7FFE0000, 100, 0], "pipe_read", None),
    ],
)
def test_what_is_asked_for(call: list[int], place: str, asked: tuple[Any, ...] | None) -> None:
    assert sleeping_tasks.requested(call, "x86_64", place) == asked
    assert sleeping_tasks.requested(call, "s390x", place) is None


def test_a_process_that_is_gone_sleeps_no_more() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert sleeping_tasks.look(gone.pid, "true") == []
