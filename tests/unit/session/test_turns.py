# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns of the sessions of one host, with processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.livemigrate.criu.plugins.module_utils._session import turns

# Exit code 0: it would have its turn at once.
_ASK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def _another(directory: Path) -> int:
    return subprocess.run([sys.executable, "-I", "-c", _ASK, str(directory)], check=False).returncode


def test_no_other_process_has_its_turn_meanwhile_and_no_file_stays(tmp_path: Path) -> None:
    with turns.taken(str(tmp_path)):
        assert _another(tmp_path) == 3
    assert _another(tmp_path) == 0
    assert os.listdir(tmp_path) == []


def test_a_turn_ends_with_an_error_as_well(tmp_path: Path) -> None:
    try:
        with turns.taken(str(tmp_path)):
            raise OSError(28, "No space left on device")
    except OSError:
        pass
    assert _another(tmp_path) == 0
