# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside of a container, as root with all privileges: processes that have set what a process can set, each its own things.

Each is called by what it has done. The host looks at them from outside, see `test_surroundings_tasks.py`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_IOPRIO_SET = 251  # of x86_64, as everything in these tests
_CGROUP = "/sys/fs/cgroup"


def priorities() -> None:
    """What CRIU does not know, or restores in part."""
    os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, 5)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _LIBC.syscall(_IOPRIO_SET, 1, 0, 2 << 13 | 6)
    for name, text in (("timerslack_ns", "123456"), ("coredump_filter", "0x31"), ("oom_score_adj", "321")):
        _write(f"/proc/self/{name}", text)


def threads() -> None:
    """One thread that is nicer than the others."""

    def nicer() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)
        time.sleep(1e6)

    threading.Thread(target=nicer, daemon=True).start()


def descriptors() -> None:
    """A pipe between processes, a terminal, a file in memory, a socket; each of a user of its own."""
    reading, writing = os.pipe()
    things = (reading, os.openpty()[1], os.memfd_create("mine"), _socket())
    for number, (thing, mode) in enumerate(zip(things, (0o620, 0o602, 0o640, 0o700), strict=True)):
        os.fchmod(thing, mode)
        os.fchown(thing, 1000 + number, 1100)
        os.dup2(thing, 100 + number)
    os.dup2(writing, 104)
    # Open under a name that is removed, while it has another one: as PostgreSQL up to 15 has files of its log.
    with open("/removed", "w", encoding="ascii") as file:
        os.link("/removed", "/kept")
        os.unlink("/removed")
        os.dup2(file.fileno(), 107)
    fcntl.fcntl(104, fcntl.F_SETFL, os.O_WRONLY | os.O_NONBLOCK)


def _socket() -> int:
    import socket

    return socket.socket().detach()


def sockets() -> None:
    """A listener and a socket for datagrams, with options that CRIU does not store; a unix listener of another user."""
    import socket

    listening = socket.create_server(("127.0.0.1", 7101))
    listening.setsockopt(socket.IPPROTO_TCP, 9, 30)  # TCP_DEFER_ACCEPT
    listening.setsockopt(socket.IPPROTO_TCP, 18, 9000)  # TCP_USER_TIMEOUT
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 7102))
    datagrams.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER
    datagrams.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    datagrams.setsockopt(socket.IPPROTO_IP, 21, 255)  # IP_MINTTL
    datagrams.setsockopt(socket.SOL_SOCKET, 47, struct.pack("@Q", 5 << 30))  # SO_MAX_PACING_RATE
    unix = socket.socket(socket.AF_UNIX)
    unix.bind("\0inhabitants")
    os.setegid(1003)
    os.seteuid(1002)
    unix.listen(3)
    os.seteuid(0)
    os.setegid(0)
    for number, one in ((105, listening), (106, datagrams), (108, unix)):
        os.dup2(one.detach(), number)


def user() -> None:
    """Another user with limits of its own, and files that others may not read."""
    os.umask(0o137)
    os.chdir("/host/lib")
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    _LIBC.prctl(38, 1, 0, 0, 0)
    os.setgroups([5, 6])
    os.setresgid(1001, 1002, 1003)
    os.setresuid(1001, 1002, 1003)


def objects() -> None:
    """Shared memory of a user, and semaphores that root has given to one."""
    _LIBC.semget(0x2222, 3, 0o1606)
    buffer = ctypes.create_string_buffer(512)
    _LIBC.semctl(0, 0, 2, buffer)
    struct.pack_into("=II", buffer, 4, 77, 78)
    _LIBC.semctl(0, 0, 1, buffer)
    os.setresgid(1001, 1001, 1001)
    os.setresuid(1001, 1001, 1001)
    _LIBC.shmget(0x1111, 8192, 0o1640)


def divided() -> None:
    """A cgroup in a cgroup, with a limit."""
    os.makedirs(f"{_CGROUP}/app/inner")
    _write(f"{_CGROUP}/app/cgroup.max.descendants", "7")
    _write(f"{_CGROUP}/app/inner/cgroup.procs", "0")


def clock() -> None:
    """Exits when a clock goes back."""

    def watch() -> None:
        then = 0.0
        while True:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            if now < then:
                os._exit(1)
            then = now
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as handle:
        handle.write(text)


def _begin(role: Callable[[], None]) -> None:
    reading, writing = os.pipe()
    if os.fork() == 0:
        _write("/proc/self/comm", role.__name__)
        role()
        os.write(writing, b"x")
        os.close(reading)
        os.close(writing)
        while True:
            time.sleep(1)
    os.close(writing)
    if os.read(reading, 1) != b"x":
        raise SystemExit(f"{role.__name__} failed")
    os.close(reading)


for _role in (priorities, threads, descriptors, sockets, user, objects, divided, clock):
    _begin(_role)
print("inhabited", flush=True)
while True:
    time.sleep(1)
