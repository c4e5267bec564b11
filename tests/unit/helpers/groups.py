# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real cgroup of version 2 for a test, and the runtime shim's part for a copy that is held in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from tests.unit.helpers.support import wait_for


def unified() -> Path | None:
    """Where the hierarchy of version 2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _dash, right = line.partition(" - ")
        if right.split()[0] == "cgroup2":
            return Path(left.split()[4])
    return None


class Group(TaskGroup):
    """A TaskGroup with what Docker and strangers do to it."""

    def put(self, pid: int, below: str = "") -> None:
        (Path(self.path) / below / "cgroup.procs").write_text(str(pid))

    def thawed_by_a_stranger(self) -> None:
        (Path(self.path) / "cgroup.freeze").write_text("0")
        self.wait_frozen(False, 5)


@contextlib.contextmanager
def own_group() -> Iterator[Group]:
    """A cgroup of our own below the one of this process."""
    root = unified()
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/")
    if root is None:
        pytest.skip("no cgroup version 2 is mounted here")
    path = root / own.lstrip("/") / f"livemigrate-unit-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as exc:
        pytest.skip(f"no cgroup can be made below {path.parent}: {exc.strerror}")
    try:
        yield Group(str(path))
    finally:
        for base, _directories, _files in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                (Path(base) / "cgroup.kill").write_text("1")
        wait_for(lambda: "populated 0" in (path / "cgroup.events").read_text(), "the cgroup is empty")
        for base, _directories, _files in os.walk(path, topdown=False):
            os.rmdir(base)


@contextlib.contextmanager
def first_process(group: Group, *more: str) -> Iterator[int]:
    """A process that is the first of a PID namespace of its own, in the group; its number here.

    :param more: options of unshare(1), for more namespaces.
    """
    argv = ["unshare", "--pid", "--fork", "--kill-child", *more, "sleep", "60"]
    with subprocess.Popen(argv) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(children.read_text, "the process is there")
        pid = int(children.read_text())
        # Only then is its memory what it stays.
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the program is loaded")
        group.put(pid)
        try:
            yield pid
        finally:
            process.kill()


class Shim:
    """Does with a mark and a group what the shim does with a copy (tests/unit/shim has the real one), and notes what the engine
    says then.

    :param noted: whether the engine answers.
    """

    def __init__(self, mark: Mark, group: Group, init: int, *, noted: bool = True) -> None:
        self._mark, self._group, self._init, self._noted = mark, group, init, noted
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Shim:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def tell(self, group: str | None = None) -> None:
        """Say what is held, and that it has its network."""
        Path(self._mark.path("held")).write_text(f"{self._init}\n{group or self._group.path}\n")
        Path(self._mark.path("plumbed")).write_text("1\n")

    def answer(self) -> None:
        """The engine has noted that the copy runs, and says so to the unit that has asked for it."""
        volatile_root = Path(self._mark.work).parent.parent
        durable.write_json(str(volatile_root / str(self._mark.session) / "start.json"), {"error": ""})

    def _work(self) -> None:
        while not self._over.wait(0.002):
            if self._mark.ready and not self._mark.plumbed:
                self._group.freeze()
                self.tell()
                if self._noted:
                    self.answer()
                return
