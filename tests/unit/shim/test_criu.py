# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that is called in place of CRIU: CRIU gets a cgroup namespace when runc has moved it, and what runc says to it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.support import wait_for
from tests.unit.shim.support import CONTAINER, FILES

# Tells in which namespace it is, where it is in that, and what it was told.
CRIU = """#!/bin/bash
readlink /proc/self/ns/cgroup
grep ^0:: /proc/self/cgroup
[ "$1" = swrk ] && read -r -N 4 -u "$2" said
echo "$* $said"
"""


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


class Called:
    """The program, with a socket as runc has it."""

    def __init__(self, place: Path, *arguments: str, **env: str) -> None:
        (place / "criu").write_text(CRIU)
        (place / "criu").chmod(0o755)
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = f"{FILES}:{place}:{os.environ['PATH']}"
        words = [str(theirs.fileno()) if word == "FD" else word for word in arguments]
        self.process = subprocess.Popen(
            ["criu", *words],
            executable=str(FILES / "criu"),
            env={**os.environ, "PATH": path, **env},
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.number = theirs.fileno()
        theirs.close()

    def reported(self) -> list[str]:
        output, _none = self.process.communicate(timeout=10)
        assert self.process.returncode == 0
        return output.splitlines()


def _outside() -> str:
    return os.readlink("/proc/self/ns/cgroup")


def test_a_restore_gets_a_namespace_whose_root_is_the_containers_cgroup(group: Group, tmp_path: Path) -> None:
    """runc moves it first and speaks then; nothing that it says is lost."""
    called = Called(tmp_path, "swrk", "FD", LIVEMIGRATE_RESTORE=CONTAINER)
    (Path(group.path) / f"docker-{CONTAINER}.scope").mkdir()
    # As long as runc says nothing it waits.
    wait_for(lambda: Path(f"/proc/{called.process.pid}/comm").read_text() == "criu\n", "it is there")
    group.put(called.process.pid, f"docker-{CONTAINER}.scope")
    called.ours.send(b"req!")
    namespace, place, printed = called.reported()
    assert namespace != _outside()
    assert place == "0::/"
    assert printed == f"swrk {called.number} req!"


def test_the_question_for_the_version_gets_none(tmp_path: Path) -> None:
    """For that runc does not move it."""
    called = Called(tmp_path, "swrk", "FD", LIVEMIGRATE_RESTORE=CONTAINER)
    called.ours.send(b"ver?")
    namespace, _place, printed = called.reported()
    assert (namespace, printed) == (_outside(), f"swrk {called.number} ver?")


def test_a_runc_that_goes_away_is_not_waited_for(tmp_path: Path) -> None:
    called = Called(tmp_path, "swrk", "FD", LIVEMIGRATE_RESTORE=CONTAINER)
    called.ours.close()
    assert called.reported()[2] == f"swrk {called.number} "


@pytest.mark.parametrize("arguments", [["--version"], ["check", "--extra"]])
def test_everything_else_is_criu(tmp_path: Path, arguments: list[str]) -> None:
    called = Called(tmp_path, *arguments)
    assert called.reported()[2].split() == arguments
