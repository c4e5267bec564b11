# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine that pauses and unpauses a container, without anything behind it, and the state of a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.helpers import moved


class Pausing(moved.AnyEngine):
    """An engine that answers at once. It believes about its container what it is told."""

    def __init__(self, *, paused: bool, running: bool = True, exit_code: int = 0) -> None:
        super().__init__()
        self.state = {"Paused": paused, "Running": running, "Status": "running", "ExitCode": exit_code}
        self.calls: list[str] = []

    def find(self, container: str) -> dict[str, Any]:
        return {
            "Id": container,
            "Name": "/web",
            "State": self.state,
            "HostConfig": {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}},
        }

    inspect = find

    def unpause(self, _container: str) -> None:
        self.calls.append("unpause")
        self.state["Paused"] = False

    def start(self, _container: str, checkpoint: str = "", **_timeout: float) -> None:
        self.calls.append("start from the checkpoint" if checkpoint else "start")

    def remove_checkpoint(self, _container: str, _checkpoint: str) -> bool:
        return False


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
