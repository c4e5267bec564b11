# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of /proc: texts as a kernel told them (Linux 6.18, containers of Docker 28.5.2), and looks at real processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_resources

INOTIFY = """\
pos:\t0
flags:\t00
mnt_id:\t17
ino:\t1038
inotify wd:2 ino:61e0bc sdev:8a mask:100 ignored_mask:0 fhandle-bytes:14 fhandle-type:f8 f_handle:00000000fb1d0401
inotify wd:1 ino:61e161 sdev:fe00001 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:61e1610000000000
"""
LOCK = "pos:\t0\nflags:\t02100001\nino:\t6365384\nlock:\t1: POSIX  ADVISORY  WRITE 7722 00:108:6365384 0 EOF\n"
STATUS = (
    "Name:\tpython3\nUmask:\t0022\nTracerPid:\t0\nNSpid:\t7722\t1\nNSsid:\t7722\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n"
)
MAPS = """\
55d0c0000000-55d0c0001000 r--p 00000000 00:1d 12                         /usr/bin/python3.13
7f07ed543000-7f07ed544000 rw-s 00000000 00:13 992547                     /[aio] (deleted)
7f07ed545000-7f07ed546000 rw-s 00000000 00:01 5                          /SYSV00000000 (deleted)
7f07ed547000-7f07ed548000 rw-s 00000000 00:01 6                          /memfd:x (deleted)
7f07ed549000-7f07ed54a000 r--p 00000000 00:1d 99                         /tmp/my file (deleted)
7f07ed54b000-7f07ed54c000 rw-s 00000000 00:05 7                          anon_inode:[io_uring]
7f07ed54d000-7f07ed54e000 rw-s 00000000 00:05 8                          /dev/kfd
7f07ed54f000-7f07ed550000 rw-s 00000000 00:05 9                          /dev/zero (deleted)
7f07ed551000-7f07ed552000 rw-p 00000000 00:05 10                         /dev/shm/x
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
"""
PROTOCOLS = """\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em
AF_VSOCK  1240      0      -1   NI       0   yes  kernel      y  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n
TCP       2304      9      39   no     192   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  n  y  y  y  y  y
MPTCP     1936      2      39   no       0   yes  kernel      y  y  y  n  y  y  y  y  y  y  y  y  n  n  y  y  y  n
"""
ROLLUP = (
    "00400000-7ffc06610000 ---p 0 00:00 0 [rollup]\nRss: 11704 kB\nPss_Anon: 4512 kB\nPss_Shmem: 8 kB\nAnonymous: 9024 kB\n"
    "Shared_Hugetlb: 0 kB\nPrivate_Hugetlb: 2048 kB\nSwap: 2 kB\nSwapPss: 1 kB\n"
)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("anon_inode:[io_uring]", "io_uring"),
        ("anon_inode:[perf_event]", "perf"),
        ("anon_inode:[userfaultfd]", "userfaultfd"),
        ("anon_inode:bpf-map", "bpf"),
        ("anon_inode:kvm-vcpu:0", "kvm"),
        ("anon_inode:inotify", "inotify"),
        ("anon_inode:[fanotify]", "fanotify"),
        ("/secretmem (deleted)", "secretmem"),
        ("anon_inode:[eventpoll]", None),
        ("anon_inode:[eventfd]", None),
        ("anon_inode:[pidfd]", None),
        ("socket:[1]", None),
        ("/memfd:x (deleted)", None),
    ],
)
def test_kind(target: str, kind: str | None) -> None:
    assert process_resources.kind_of(target) == kind


def test_watched_files() -> None:
    assert process_resources.parse_watched(INOTIFY) == {(0x8A, 0x61E0BC), (0xFE00001, 0x61E161)}
    assert process_resources.kernel_device(os.makedev(0xFE, 1)) == 0xFE00001
    assert process_resources.parse_watched("pos:\t0\n") == set()


def test_locks() -> None:
    assert process_resources.parse_locks(LOCK) == ["POSIX"]
    assert process_resources.parse_locks("pos:\t0\n") == []


def test_status() -> None:
    assert process_resources.parse_status(STATUS) == {
        "name": "python3",
        "traced": False,
        "seccomp": True,
        "session": ["7722", "0"],
    }
    traced = process_resources.parse_status("Name:\tx y\nTracerPid:\t17\nSeccomp:\t0\n")
    assert traced == {"name": "x y", "traced": True, "seccomp": False, "session": []}


def test_maps() -> None:
    found = process_resources.parse_maps(MAPS)
    assert found.kinds == ("aio", "io_uring")
    assert found.devices == ("/dev/kfd",)
    assert found.deleted == (("/tmp/my file", "7f07ed549000-7f07ed54a000"),)
    assert found.shared == (
        "7f07ed545000-7f07ed546000",
        "7f07ed547000-7f07ed548000",
        "7f07ed54f000-7f07ed550000",
    )


def test_protocols() -> None:
    assert process_resources.parse_protocols(PROTOCOLS) == {"MPTCP": 2}


def test_rollup() -> None:
    assert process_resources.parse_rollup(ROLLUP) == ((9024 + 2 + 2048) << 10, (4512 + 8 + 1 + 2048) << 10)
    assert process_resources.parse_rollup("Rss: 11704 kB\n") == (0, 0)


HOLDER = """
import ctypes, fcntl, os, sys, tempfile, time
deleted = tempfile.TemporaryFile(); deleted.write(b"x" * (2 << 20)); deleted.flush()
locked = open(sys.argv[1], "w"); fcntl.lockf(locked, fcntl.LOCK_EX)
device = open("/dev/fuse", "rb", buffering=0) if os.path.exists("/dev/fuse") else None
libc = ctypes.CDLL(None); libc.inotify_init()
memory = bytearray(os.urandom(8 << 20))
print("ready", flush=True); time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """A process that holds a deleted file, a lock, a device, and 8 MiB."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "locked")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def test_a_look_at_a_real_process(holder: int) -> None:
    seen = process_resources.look([holder], holder)
    assert seen["complete"] is True
    assert seen["count"] == 1
    assert seen["locks"] == 1
    # The largest first; what it has inherited from the tests may come after it.
    assert seen["deleted"][0]["bytes"] == 2 << 20
    assert seen["deleted"][0]["program"].startswith("python")
    if os.path.exists("/dev/fuse"):
        assert [one.split()[0] for one in seen["devices"]] == ["/dev/fuse"]
    # Its memory, and what is in the deleted file.
    assert 10 << 20 <= seen["dump_bytes"] < 64 << 20
    # It is in our own namespaces, and watches nothing.
    assert seen["held"] == {}


# What a server does that forks for each of its clients: memory that is written once, and shared memory that one of them fills.
FORKER = """
import mmap, os, sys
memory = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
shared = mmap.mmap(-1, 8 << 20)
file = os.memfd_create("x")
os.truncate(file, 64 << 20)
for place in range(0, 16 << 20, 4096):
    memory[place] = 1
    if place < 8 << 20:
        shared[place] = 1
    if place < 4 << 20:
        os.pwrite(file, b"x", place)
children = []
for number in range(3):
    child = os.fork()
    if not child:
        sys.stdin.read()
        os._exit(0)
    children.append(child)
print(*children, flush=True)
sys.stdin.read()
"""


def test_what_forks_share_is_dumped_for_each_and_shared_memory_once() -> None:
    argv = [sys.executable, "-c", FORKER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [process.pid, *map(int, process.stdout.readline().split())]
        assert len(pids) == 4
        seen = process_resources.look(pids, process.pid)
        assert process.stdin is not None
        process.stdin.close()
    least = 4 * (16 << 20) + (8 << 20) + (4 << 20)
    assert least <= seen["dump_bytes"] < least + 4 * (8 << 20)
    # In the host's memory there is one of it, until somebody writes.
    assert 16 << 20 <= seen["taken_bytes"] < 48 << 20


def test_a_look_at_a_process_in_namespaces_of_its_own(holder: int) -> None:
    with subprocess.Popen(["unshare", "--uts", "--ipc", "--", "sleep", "600"]) as inside:
        try:
            deadline = time.monotonic() + 5
            while not os.readlink(f"/proc/{inside.pid}/exe").endswith("sleep") and time.monotonic() < deadline:
                time.sleep(0.01)
            held = process_resources.look([holder, inside.pid], holder)["held"]
        finally:
            inside.kill()
    assert {kind for kind in held if kind.startswith("namespace_")} == {"namespace_ipc", "namespace_uts"}
    assert held["namespace_uts"] == ["sleep"]


def test_a_look_takes_no_longer_than_it_may(holder: int) -> None:
    assert process_resources.look([holder] * 5, holder, seconds=-1)["complete"] is False


def test_what_a_process_holds_is_seen_however_long_it_takes(holder: int) -> None:
    """Of a server with many processes and much memory those that were looked at too late were told to hold nothing."""
    seen = process_resources.look([holder], holder, seconds=-1)
    assert seen["locks"] == 1
    assert seen["deleted"][0]["bytes"] == 2 << 20


def test_a_process_that_ends_meanwhile_is_left_out(holder: int) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert process_resources.look([gone.pid, holder], holder)["locks"] == 1


def test_a_watch_that_criu_finds_by_itself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """CRIU looks for watched files in a few directories; what is there needs no handle."""
    with tempfile.TemporaryDirectory() as directory:
        hint, other = Path(directory, "hint"), Path(directory, "other")
        for path in (hint / "sub", other):
            path.mkdir(parents=True)
            (path / "file").touch()
        monkeypatch.setattr(process_resources, "_IRMAP_HINTS", (str(hint),))
        seen = process_resources._Seen(os.getpid())
        wanted = {os.stat(path / "file").st_ino for path in (hint / "sub", other)}
        found = seen.found_by_criu(wanted)
        assert wanted & found == {os.stat(hint / "sub" / "file").st_ino}
        assert os.stat(hint).st_ino in found
        assert seen.found_by_criu(set()) == set()


def test_locks_of_our_own() -> None:
    with tempfile.NamedTemporaryFile() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert process_resources.parse_locks(process_resources.read(f"/proc/self/fdinfo/{file.fileno()}")) == ["FLOCK"]


def test_what_processes_have_that_no_other_kind_tells() -> None:
    """A personality (setarch -R), and a pipe in packet mode; of a process that has neither, nothing."""
    program = "import os; {}; os.write(1, b'x'); import time; time.sleep(60)"
    plain, packets = "keep = os.pipe()", "keep = os.pipe2(os.O_DIRECT)"
    for prefix, statement, kinds in (
        (["setarch", "-R"], plain, {"personality"}),
        ([], packets, {"pipe_packets"}),
        ([], plain, set()),
    ):
        argv = [*prefix, sys.executable, "-c", program.format(statement)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            found = set(process_resources.look([process.pid], process.pid)["held"])
            process.kill()
        assert found & {"personality", "pipe_packets"} == kinds
