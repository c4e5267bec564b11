# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What /proc tells of a process, whatever that calls itself."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import procfs


@pytest.mark.parametrize("name", ["sh", "a b", ") Z 99 (", "((", "\n) R 1"])
def test_a_name_says_nothing_of_the_state(name: str) -> None:
    fields = procfs.parse_stat(f"42 ({name}) S 7 " + " ".join(map(str, range(5, 53))))
    assert (fields[procfs.STATE], fields[procfs.PARENT], fields[procfs.STARTED]) == ("S", "7", "22")


def test_a_real_process_and_one_that_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            fields = procfs.stat_fields(process.pid)
            own = procfs.stat_fields(os.getpid())
        finally:
            process.kill()
    assert fields[procfs.PARENT] == str(os.getpid())
    assert int(fields[procfs.STARTED]) >= int(own[procfs.STARTED]) > 0
    with pytest.raises(FileNotFoundError):
        procfs.stat_fields(process.pid)
