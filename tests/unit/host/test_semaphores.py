# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Semaphores that the kernel gives back when a program ends, which no restore knows of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_resources

# Its first argument is how semaphores are used, by their flags; the second how many threads are started.
SEMAPHORES = """
import ctypes, struct, sys, threading, time
libc = ctypes.CDLL(None)
if sys.argv[1]:
    libc.semget(0x2222, 1, 0o1600)
    assert libc.semop(0, struct.pack("=Hhh", 0, 1, int(sys.argv[1])), 1) == 0
for _thread in range(int(sys.argv[2])):
    threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
time.sleep(60)
"""


SEM_UNDO = 0x1000


@pytest.mark.parametrize(
    ("flags", "threads", "prefix", "kinds"),
    [
        (str(SEM_UNDO), 0, ["unshare", "--ipc"], {"semaphore_undo"}),
        ("0", 0, ["unshare", "--ipc"], set()),
        # Threads share the list, so each program that has some has one.
        ("0", 1, ["unshare", "--ipc"], {"semaphore_undo"}),
        ("", 1, ["unshare", "--ipc"], set()),
        # In the namespace of the host are the semaphores of others, and another rule has it.
        ("", 1, [], set()),
    ],
)
@pytest.mark.usefixtures("needs_namespaces")
def test_semaphores_that_the_kernel_gives_back(flags: str, threads: int, prefix: list[str], kinds: set[str]) -> None:
    """By the list that it keeps with each process; this one has threads too, and so a list of its own."""
    argv = [*prefix, sys.executable, "-c", SEMAPHORES, flags, str(threads)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = set(process_resources.look([process.pid], process.pid)["held"])
        process.kill()
    assert {kind for kind in found if kind.startswith("semaphore")} == kinds
