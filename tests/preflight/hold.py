# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside of a container and holds one thing that a migration cannot take along: hold.py KIND [ADDRESS OF A HOST].

Says "held KIND" once it has it. Started by its own path with the host's Python, so it uses nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import sqlite3
import struct
import sys
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
# System calls of x86-64 that the standard library has no name for.
_IO_URING_SETUP, _MEMFD_SECRET, _USERFAULTFD = 425, 447, 323
_MPTCP = 262
_PTRACE_ATTACH = 16


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _io_uring() -> object:
    return _done(_LIBC.syscall(_IO_URING_SETUP, 8, ctypes.create_string_buffer(120)))


def _mptcp() -> object:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _MPTCP)
    listening.bind(("0.0.0.0", 7777))
    listening.listen()
    return listening


def _inotify() -> object:
    os.makedirs("/opt/watched", exist_ok=True)
    descriptor = _done(_LIBC.inotify_init())
    return _done(_LIBC.inotify_add_watch(descriptor, b"/opt/watched", 0x100))


def _namespace() -> object:
    return _done(_LIBC.unshare(0x04000000))


def _traced() -> object:
    child = os.fork()
    if not child:
        while True:
            signal.pause()
    return _done(_LIBC.ptrace(_PTRACE_ATTACH, child, 0, 0))


def _multicast() -> object:
    joined = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    group = socket.inet_aton("239.1.2.3") + socket.inet_aton("0.0.0.0")
    joined.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    return joined


def _bound() -> object:
    listening = socket.socket()
    listening.bind((socket.gethostbyname(socket.gethostname()), 7000))
    listening.listen()
    return listening


def _unix() -> object:
    connected = socket.socket(socket.AF_UNIX)
    connected.connect("/docker.sock")
    return connected


def _out() -> object:
    return socket.create_connection((sys.argv[2], 22))


def _secret() -> object:
    return _done(_LIBC.syscall(_MEMFD_SECRET, 0))


def _userfault() -> object:
    return _done(_LIBC.syscall(_USERFAULTFD, 1))


def _fuse() -> object:
    return open("/dev/fuse", "r+b", buffering=0)


def _deleted() -> object:
    descriptor = os.open("/big", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, bytes(3 << 20))
    os.unlink("/big")
    return descriptor


def _lock() -> object:
    descriptor = os.open("/locked", os.O_CREAT | os.O_WRONLY)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    return descriptor


def _shm() -> object:
    with open("/dev/shm/precious", "w") as file:
        file.write("precious")
    return None


def _pipe() -> object:
    os.mkfifo("/pipe")
    return os.open("/pipe", os.O_RDONLY | os.O_NONBLOCK)


def _sleep() -> object:
    child = os.fork()
    if not child:
        _LIBC.nanosleep((ctypes.c_long * 2)(6000, 0), None)
        os._exit(1)
    return child


def _huge() -> object:
    page = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    page[0] = 1
    return page


def _client() -> object:
    """A connection through a unix socket, whose client is of another user."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\0preflight")
    listening.listen()
    if not os.fork():
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect("\0preflight")
            while True:
                signal.pause()
    return listening, listening.accept()


def _undo() -> object:
    semaphores = _done(_LIBC.semget(0x4C4D, 1, 0o1600))
    return _done(_LIBC.semop(semaphores, struct.pack("=Hhh", 0, 1, 0x1000), 1))


def _merged() -> object:
    # PR_SET_MEMORY_MERGE
    return _done(_LIBC.prctl(67, 1, 0, 0, 0))


def _sqlite() -> object:
    database = sqlite3.connect("/app.db", isolation_level=None)
    database.execute("create table t(x)")

    def write(*_signal: object) -> None:
        try:
            database.execute("insert into t values (1)")
            print("sqlite: written", flush=True)
        except sqlite3.Error as exc:
            print(f"sqlite: {exc}", flush=True)

    signal.signal(signal.SIGUSR1, write)
    return database


KINDS: dict[str, Callable[[], object]] = {
    "io_uring": _io_uring,
    "mptcp": _mptcp,
    "inotify": _inotify,
    "namespace": _namespace,
    "traced": _traced,
    "multicast": _multicast,
    "bound": _bound,
    "unix": _unix,
    "out": _out,
    "secret": _secret,
    "userfault": _userfault,
    "fuse": _fuse,
    "deleted": _deleted,
    "lock": _lock,
    "shm": _shm,
    "pipe": _pipe,
    "sleep": _sleep,
    "huge": _huge,
    "client": _client,
    "undo": _undo,
    "merged": _merged,
    "sqlite": _sqlite,
}

if __name__ == "__main__":
    held = KINDS[sys.argv[1]]()
    print(f"held {sys.argv[1]}", flush=True)
    while True:
        signal.pause()
