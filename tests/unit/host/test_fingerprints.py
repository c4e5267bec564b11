# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fingerprints of real processes, and what is concluded from them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host import fingerprints as process_fingerprints
from tests.unit.helpers.support import wait_for

SLEEP = ["sleep", "60"]
# The image of a container and its start: the same program with the same words, in a process namespace of its own.
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 61 & sleep 62 & exec sleep 63"]


def _runs(pid: int, comm: str) -> bool:
    """Whether a process has come as far as running a program: exec gives it its name before its memory is laid out."""
    name, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rsplit(") ", 1)
    fields = rest.split()
    state, user_ticks = fields[0], int(fields[11])
    return name == comm and (state == "S" or user_ticks > 0)


@contextlib.contextmanager
def running(argv: Sequence[str], comm: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs; comm is its name where it is not that of the first word."""
    process = subprocess.Popen(argv)
    try:
        wait_for(lambda: _runs(process.pid, comm or argv[0]), f"{argv[0]} runs")
        yield process
    finally:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def container() -> Iterator[list[int]]:
    """The processes of something like a container: three sleeping programs, the first one with the number 1."""
    with running(CONTAINER) as outside:
        found: list[int] = []

        def all_there() -> bool:
            found[:] = [pid for init in _children(outside.pid) for pid in (init, *_children(init))]
            return len(found) == 3 and all(_runs(pid, "sleep") for pid in found)

        wait_for(all_there, "three processes")
        yield found


def _needs_random_layout() -> None:
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0":
        pytest.skip("this machine lays out memory the same way for every process")


def test_a_process_keeps_its_fingerprint() -> None:
    with running(SLEEP) as process:
        first = process_fingerprints.take([process.pid])
        assert list(first) == [str(process.pid)]
        assert process_fingerprints.take([process.pid]) == first
        assert len(next(iter(first.values()))) == 64


def test_a_working_process_keeps_its_fingerprint() -> None:
    with running(["sh", "-c", "i=0; while :; do i=$((i+1)); x=$x$i; [ ${#x} -gt 100000 ] && x=; done"]) as process:
        first = process_fingerprints.take([process.pid])
        memory = Path(f"/proc/{process.pid}/statm").read_text()
        wait_for(lambda: Path(f"/proc/{process.pid}/statm").read_text() != memory, "it has worked with memory")
        assert process_fingerprints.take([process.pid]) == first


def test_the_same_program_started_again_has_another_one() -> None:
    _needs_random_layout()
    seen: set[str] = set()
    for _start in range(5):
        with running(SLEEP) as process:
            seen.update(process_fingerprints.take([process.pid]).values())
    assert len(seen) == 5


@pytest.mark.usefixtures("needs_namespaces")
def test_processes_go_by_the_number_they_have_inside() -> None:
    with container() as pids:
        taken = process_fingerprints.take(pids)
        assert set(taken) == {"1", "2", "3"}
        assert len(set(taken.values())) == 3 or Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0"
        assert taken == process_fingerprints.take(reversed(pids))


@pytest.mark.usefixtures("needs_namespaces")
def test_a_container_is_recognised_and_its_fresh_start_is_not() -> None:
    _needs_random_layout()
    with container() as pids:
        source = process_fingerprints.take(pids)
        assert process_fingerprints.check(source, process_fingerprints.take(pids)) == {"processes": 3, "recognised": 3}
        with container() as others, pytest.raises(MigrationError) as caught:
            process_fingerprints.check(source, process_fingerprints.take(others))
    assert caught.value.code == "not_a_restore"
    assert caught.value.details == {"processes": 3, "recognised": 0}


def test_a_fresh_start_is_reported_where_the_layout_is_not_random() -> None:
    """ASLR off, by sysctl or personality: everything lies where it lay, only the kernel's 16 random bytes differ."""
    taken: list[str] = []
    for _start in range(2):
        with running(["setarch", "-R", *SLEEP], comm="sleep") as process:
            taken += process_fingerprints.take([process.pid]).values()
    assert len(set(taken)) == 2


def test_what_has_ended_has_no_fingerprint() -> None:
    zombie = subprocess.Popen(["true"])
    wait_for(lambda: "Z (zombie)" in Path(f"/proc/{zombie.pid}/status").read_text(), "a zombie")
    with running(SLEEP) as process:
        assert list(process_fingerprints.take([zombie.pid, process.pid])) == [str(process.pid)]
        zombie.wait()
        assert list(process_fingerprints.take([zombie.pid, process.pid])) == [str(process.pid)]
    assert process_fingerprints.take([]) == {}


def test_a_name_cannot_disturb_the_reading(tmp_path: Path) -> None:
    """The kernel puts a program's own name, which may hold blanks and parentheses, in the middle of /proc/PID/stat."""
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with running(SLEEP) as plain:
        process = subprocess.Popen([str(odd), "60"])
        try:
            wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text().strip() == odd.name, "it runs")
            stat = Path(f"/proc/{process.pid}/stat").read_text()
            auxv = Path(f"/proc/{process.pid}/auxv").read_bytes()
            # The same process under a harmless name.
            renamed = f"{process.pid} (x){stat.rpartition(')')[2]}"
            assert process_fingerprints.fingerprint(stat, auxv) == process_fingerprints.fingerprint(renamed, auxv)
            other = Path(f"/proc/{plain.pid}/stat").read_text()
            assert process_fingerprints.fingerprint(other, auxv) != process_fingerprints.fingerprint(stat, auxv)
        finally:
            process.kill()
            process.wait()


def test_a_kernel_that_does_not_tell_inner_numbers_is_named() -> None:
    assert process_fingerprints.inner_pid("Name:\tx\nNSpid:\t4711\t12\t1\n") == "1"
    assert process_fingerprints.inner_pid("NSpid:\t4711\n") == "4711"
    with pytest.raises(ValueError, match=r"before 4\.1"):
        process_fingerprints.inner_pid("Name:\tx\nPid:\t1\n")


# -- conclusions -----------------------------------------------------------------------------------------------------

FIVE = {"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}


@pytest.mark.parametrize(
    ("source", "destination", "recognised"),
    [
        ({"1": "a"}, {"1": "a"}, 1),
        ({"1": "a"}, {"1": "a", "9": "new"}, 1),
        (FIVE, FIVE, 5),
        # Ended since the thaw: no evidence.
        (FIVE, {"1": "a"}, 1),
        # Others under old numbers (exec since the thaw): evidence, as long as they are not the majority.
        (FIVE, {**FIVE, "2": "x", "3": "x"}, 3),
        (FIVE, {"1": "a", "2": "x", "3": "x"}, 1),
    ],
)
def test_restored(source: dict[str, str], destination: dict[str, str], recognised: int) -> None:
    assert process_fingerprints.check(source, destination) == {"processes": len(source), "recognised": recognised}


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ({"1": "a"}, {"1": "b"}),
        ({"1": "a"}, {}),
        ({"1": "a"}, {"2": "a"}),
        (FIVE, {**FIVE, "1": "x"}),
        (FIVE, {key: value for key, value in FIVE.items() if key != "1"}),
        (FIVE, {**FIVE, "2": "x", "3": "x", "4": "x"}),
        (FIVE, dict.fromkeys(FIVE, "x")),
        # Nothing was recorded, so nothing can be proved.
        ({}, {}),
        ({}, {"1": "a"}),
        ({"2": "a"}, {"1": "a", "2": "a"}),
    ],
)
def test_not_restored(source: dict[str, str], destination: dict[str, str]) -> None:
    with pytest.raises(MigrationError) as caught:
        process_fingerprints.check(source, destination)
    assert caught.value.code == "not_a_restore"
