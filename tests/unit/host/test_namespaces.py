# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Functions that run in the namespaces of another process."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import namespaces

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter namespaces")


@pytest.fixture
def other() -> Iterator[int]:
    """A process that has a network and a host name of its own."""
    argv = ["unshare", "--net", "--uts", "sh", "-c", "echo ready; exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def _network() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_a_function_runs_there_and_the_caller_stays_here(other: int) -> None:
    here = _network()
    there = namespaces.inside(other, ["net"], _network)
    assert there == os.readlink(f"/proc/{other}/ns/net") != here
    assert _network() == here


def test_who_is_there_already_is_not_moved_again(other: int) -> None:
    def nested() -> tuple[int, int]:
        return threading.get_ident(), namespaces.inside(other, ["net"], threading.get_ident)

    outer, inner = namespaces.inside(other, ["net", "uts"], nested)
    assert outer == inner != threading.get_ident()


def test_who_is_there_in_other_namespaces_is_moved_into_these(other: int) -> None:
    def nested() -> tuple[str, str]:
        return _network(), namespaces.inside(other, ["net"], _network)

    before, after = namespaces.inside(other, ["uts"], nested)
    assert before == _network() != after == os.readlink(f"/proc/{other}/ns/net")


def test_who_is_in_another_process_namespaces_is_moved_into_these(other: int) -> None:
    own = os.getpid()
    there, back = namespaces.inside(other, ["net"], lambda: (_network(), namespaces.inside(own, ["net"], _network)))
    assert there != back == _network()


def test_a_process_that_is_gone_is_reported(other: int) -> None:
    with pytest.raises(FileNotFoundError):
        namespaces.inside(2**22 + 1, ["net"], lambda: None)
    assert namespaces.inside(other, ["net"], lambda: "fine") == "fine"
