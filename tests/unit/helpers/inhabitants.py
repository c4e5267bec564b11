# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real processes that stand for a container and for its copy: each has a cgroup, and a program that is number 1 inside of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.groups import Group

_READY = "\nimport sys, time\nprint('ready', flush=True)\ntime.sleep(60)\n"


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


@contextmanager
def inhabited(group: Group, name: str, program: str, *prefix: str) -> Iterator[Side]:
    """Run a program in a cgroup below another one, and freeze it when it is ready.

    :param program: Python text; when its end is reached it says so and sleeps.
    :param prefix: a command that runs the program.
    """
    path = Path(group.path) / name
    path.mkdir()
    argv = [*prefix, "unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program + _READY]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the program failed, see above"
            init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
            for pid in _family(init):
                group.put(pid, name)
            made = TaskGroup(str(path))
            made.freeze()
            yield Side(init, made, "/nonexistent", own_network=False)
        finally:
            process.kill()
