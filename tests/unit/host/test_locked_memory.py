# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory of real processes that the kernel locks, or merges, as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_resources


@pytest.mark.parametrize(
    ("statement", "kinds"),
    [
        # MCL_CURRENT and MCL_FUTURE, and something that is mapped later.
        ("libc.mlockall(3); keep = bytearray(8 << 20)", {"locked_memory"}),
        ("libc.mlockall(1); keep = bytearray(8 << 20)", set()),
        ("keep = bytearray(8 << 20); libc.mlock(ctypes.c_char_p(b'key'), 3)", set()),
        ("assert libc.prctl(67, 1, 0, 0, 0) == 0", {"merged_memory"}),
        ("pass", set()),
    ],
)
def test_what_the_kernel_does_with_all_memory_of_a_process(statement: str, kinds: set[str]) -> None:
    """Locking what there is now is done again by CRIU; locking what is to come is not."""
    if "prctl" in statement and "ksm_merge_any" not in process_resources.read("/proc/self/ksm_stat"):
        pytest.skip("this kernel does not tell of KSM")
    program = f"import ctypes, time; libc = ctypes.CDLL(None); {statement}; print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = set(process_resources.look([process.pid], process.pid)["held"])
        process.kill()
    assert found & {"locked_memory", "merged_memory"} == kinds
