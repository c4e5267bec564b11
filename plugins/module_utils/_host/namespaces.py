# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Running a function in the namespaces of another process, or in fresh ones.

Linux gives namespaces to threads, so the function runs in a thread of its own, which ends with it. Only for the kinds that a
thread of a larger program may change alone: network, IPC, UTS, and mounts (see setns(2)). In the mount namespace of another
process the thread finds that one's files, programs and libraries and no others: nothing may be imported or started there.
"""

from __future__ import annotations

import ctypes
import os
import threading
import typing as t

# By sched.h. The names are those of /proc/PID/ns.
_FLAGS = {"net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000, "mnt": 0x00020000}
# By sched.h: root and working directory of its own, without which the kernel lets no thread into another mount namespace.
_CLONE_FS = 0x00000200
# Loaded once: it costs more than the calls.
_LIBC = ctypes.CDLL(None, use_errno=True)

Result = t.TypeVar("Result")


class _Entered(threading.local):
    """Which namespaces of which process the calling thread is in, by :func:`inside`."""

    pid = 0
    kinds: frozenset[str] = frozenset()


_ENTERED = _Entered()


def inside(pid: int, kinds: t.Iterable[str], function: t.Callable[[], Result]) -> Result:
    """Run a function in namespaces of a process; programs that it starts are in them too.

    A thread is made for that, and ends with it. A function that is there already is called as it is:
    who has many of them to call enters once. On a host that is busy a thread takes more time than most of them do.

    :param pid: the process, as this host numbers it.
    :param kinds: out of ``net``, ``ipc``, ``uts`` and ``mnt``, that one last.
    :raises OSError: when the process is gone, or as the function does.
    """
    wanted = tuple(kinds)
    if _ENTERED.pid == pid and _ENTERED.kinds.issuperset(wanted):
        return function()

    def enter() -> None:
        for kind in wanted:
            if kind == "mnt":
                call("unshare", _CLONE_FS)
            descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                call("setns", descriptor, _FLAGS[kind])
            finally:
                os.close(descriptor)
        _ENTERED.pid, _ENTERED.kinds = pid, frozenset(wanted)

    return _in_a_thread(enter, function)


def inside_fresh(kinds: t.Iterable[str], function: t.Callable[[], Result]) -> Result:
    """Run a function in new namespaces, which end with it and with the programs that it has started.

    As the kernel makes them on this host today; that of mounts has what this process's has.

    :param kinds: out of ``net``, ``ipc``, ``uts`` and ``mnt``.
    :raises OSError: as the function does.
    """
    flags = 0
    for kind in kinds:
        flags |= _FLAGS[kind]
    return _in_a_thread(lambda: call("unshare", flags), function)


def shares(pid: int, other: int, kind: str) -> bool:
    """Whether two processes are in the same namespace of a kind, as ``/proc/PID/ns`` names it.

    :raises OSError: when one of them is gone.
    """
    return os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{other}/ns/{kind}")


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that Python has none for, and that answers 0 when it has succeeded.

    :param arguments: numbers, bytes and None; numbers are passed as longs, which mount(2) takes its flags as.
    :raises OSError: with the name of the function and the kernel's reason.
    """
    values = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    if getattr(_LIBC, name)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _in_a_thread(enter: t.Callable[[], None], function: t.Callable[[], Result]) -> Result:
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            enter()
            results.append(function())
        except BaseException as exc:  # noqa: BLE001 - raised again below, in the thread that waits for it
            errors.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
