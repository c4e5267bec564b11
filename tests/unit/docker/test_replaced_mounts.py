# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bind mounts in a mount namespace of a real process, whose sources are replaced on the host afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import replaced_mounts
from ansible_collections.livemigrate.criu.plugins.module_utils._host import mountinfo, process_resources

KINDS = ("file", "directory", "socket")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the process mounts something: a path without a link in it, as the kernel tells it."""
    return Path(os.path.realpath(tmp_path)) / "place"


@pytest.fixture
def source(place: Path) -> Path:
    """What it mounts there."""
    return place.with_name("source")


def _make(kind: str, path: Path) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.write_text("content")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))


@pytest.fixture
def mounting(place: Path, source: Path) -> Iterator[Callable[[], int]]:
    """A function that starts a process which has mounted the source at the place."""
    started: list[subprocess.Popen[str]] = []

    def start() -> int:
        if source.is_dir():
            place.mkdir()
        else:
            place.touch()
        script = 'mount --bind "$1" "$2" && echo ready && exec sleep 600'
        argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(source), str(place)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _reported(init: int, place: Path, source: Path) -> list[replaced_mounts.Replaced]:
    mounts = mountinfo.parse(process_resources.read(f"/proc/{init}/mountinfo"))
    sources = {str(place): str(source)}
    return [*replaced_mounts.deleted(mounts, sources), *replaced_mounts.renamed(mounts, sources, init)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_mounted_is_replaced(kind: str, place: Path, source: Path, mounting: Callable[[], int]) -> None:
    _make(kind, source)
    init = mounting()
    assert _reported(init, place, source) == []
    if kind == "directory":
        shutil.rmtree(source)
    else:
        source.unlink()
    gone = [replaced_mounts.Replaced(str(place), str(source), gone=True)]
    assert _reported(init, place, source) == gone
    _make(kind, source)
    assert _reported(init, place, source) == gone


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_mounted_is_renamed(kind: str, place: Path, source: Path, mounting: Callable[[], int]) -> None:
    """As an editor does that keeps the old file beside the new one."""
    _make(kind, source)
    init = mounting()
    source.rename(source.with_name("source~"))
    renamed = [replaced_mounts.Replaced(str(place), str(source), gone=False)]
    assert _reported(init, place, source) == renamed
    _make(kind, source)
    assert _reported(init, place, source) == renamed


def test_a_file_that_is_written_in_place_is_the_same(place: Path, source: Path, mounting: Callable[[], int]) -> None:
    _make("file", source)
    init = mounting()
    source.write_text("other content")
    assert _reported(init, place, source) == []


def test_a_link_as_a_source_is_what_it_leads_to(place: Path, source: Path, mounting: Callable[[], int]) -> None:
    _make("file", source.with_name("real"))
    source.symlink_to("real")
    assert _reported(mounting(), place, source) == []
