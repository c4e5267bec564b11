# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Named pipes of real processes: which of their readers a restore would tell of an end that never was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_resources

# Opens the pipe in the way that its first argument says, and then waits.
PROGRAM = """
import os, sys
way, path = sys.argv[1:]
descriptor = os.open(path, {"read": os.O_RDONLY, "write": os.O_WRONLY, "both": os.O_RDWR}[way] | os.O_NONBLOCK)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def _program(way: str, path: Path) -> Iterator[int]:
    argv = [sys.executable, "-c", PROGRAM, way, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def _seen(pids: Sequence[int], path: Path) -> list[str]:
    """What is told of one pipe; the processes of the tests hold others."""
    reported = process_resources.look(pids, pids[0])["pipes_without_writer"]
    return [one for one in reported if one.startswith(f"{path} ")]


@pytest.mark.parametrize(
    ("inside", "outside", "reported"),
    [
        (["read"], [], True),
        (["read", "read"], [], True),
        # Its writer stays behind.
        (["read"], ["write"], True),
        (["read", "write"], [], False),
        (["read", "both"], [], False),
        (["both"], [], False),
    ],
)
def test_who_writes_into_it(inside: list[str], outside: list[str], reported: bool, tmp_path: Path) -> None:
    """
    :param inside: how programs of the container hold it.
    :param outside: how others do.
    """
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ExitStack() as programs:
        pids = [programs.enter_context(_program(way, path)) for way in inside]
        for way in outside:
            programs.enter_context(_program(way, path))
        program = Path(f"/proc/{pids[0]}/comm").read_text().strip()
        assert _seen(pids, path) == ([f"{path} ({program})"] if reported else [])


def test_a_reader_whose_writer_has_gone_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with _program("read", path) as reader:
        with _program("write", path):
            pass
        assert _seen([reader], path) == []


def test_pipes_without_a_name_are_none_of_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert _seen([process.pid], tmp_path) == []
        finally:
            process.kill()
