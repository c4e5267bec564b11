# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ids in a user namespace: what the host calls them, and what the container does."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.ids import Ids

# As Docker has it with userns-remap, and a second range.
MAPPED = ["         0     100000      65536\n", "     65536       5000          1\n"]


def test_without_a_user_namespace_they_are_the_same() -> None:
    for ids in (Ids([]), Ids(["         0          0 4294967295\n"])):
        assert not ids.differ
        assert (ids.inside(1000), ids.outside(1000)) == (1000, 1000)


@pytest.mark.parametrize(("inside", "outside"), [(0, 100000), (1000, 101000), (65535, 165535), (65536, 5000)])
def test_each_is_translated_both_ways(inside: int, outside: int) -> None:
    ids = Ids(MAPPED)
    assert ids.differ
    assert (ids.outside(inside), ids.inside(outside)) == (outside, inside)


def test_one_without_a_name_there_stays() -> None:
    assert (Ids(MAPPED).inside(165536), Ids(MAPPED).outside(65537)) == (165536, 65537)


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_of_a_real_process(kind: str) -> None:
    assert Ids.of(os.getpid(), kind).inside(0) == 0
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo ready; read -r line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            pytest.skip("no user namespaces here")
        ids = Ids.of(process.pid, kind)
        process.kill()
    assert ids.differ
    assert ids.outside(0) == {"uid": os.geteuid(), "gid": os.getegid()}[kind]
    with pytest.raises(FileNotFoundError):
        Ids.of(process.pid, kind)
