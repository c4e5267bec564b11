# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A CRIU that crashes: the kernel's words about it, or its own."""

from __future__ import annotations

import os

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import death as criu_death

LOG = """\
(00.000010) Version: 4.1.1 (gitid 0)
(00.001190) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.106471) Error (criu/sockets.c:628): sockets: Can't get 1:16 opt: Operation not supported
(00.106941) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            "4,1120,95000000,-;criu[812]: segfault at 48 ip 000055d2 sp 00007ffc error 4 in criu[b4,55d2+a0]\n SUBSYSTEM=x\n",
            "criu[812]: segfault at 48 ip 000055d2 sp 00007ffc error 4 in criu[b4,55d2+a0]",
        ),
        (
            "3,1121,95000000,-;Out of memory: Killed process 812 (criu) total-vm:1kB\n",
            "Out of memory: Killed process 812 (criu) total-vm:1kB",
        ),
        ("4,1119,50000000,-;criu[511]: segfault at 48 ip 1 sp 2 error 4 in criu[b4,55d2+a0]\n", ""),
        ("6,1122,95000000,-;eth0: link becomes ready\n", ""),
        ("no record", ""),
    ],
)
def test_the_kernels_words_about_this_crash_and_no_other(record: str, words: str) -> None:
    assert criu_death.about_criu(record, 90.0) == words


def test_the_kernels_words_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu_death, "kernel_message", lambda _since: "criu[812]: segfault at 48")
    printed = criu_death.sentence("while it dumped the container", LOG, 0.0)
    assert printed.startswith(f"CRIU 4.1.1 crashed on kernel {os.uname().release} while it dumped the container")
    assert "criu[812]: segfault at 48" in printed
    assert "livemigrate.criu.criu" in printed


def test_its_own_words_are_reported_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's CRIU 3.17.1, restoring with an action script in the options file."""
    monkeypatch.setattr(criu_death, "kernel_message", lambda _since: "")
    log = (
        "(00.000429) Version: 3.17.1 (gitid 0)\n"
        "(00.049893) Error (criu/action-scripts.c:172): BUG at criu/action-scripts.c:172\n"
    )
    printed = criu_death.sentence("while it restored a small container", log, 0.0)
    assert printed.startswith(f"CRIU 3.17.1 crashed on kernel {os.uname().release} while it restored a small container")
    assert "its log ends with: BUG at criu/action-scripts.c:172. " in printed
