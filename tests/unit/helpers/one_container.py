# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine with one container: its own memory of it, and the files from which it knows it again after a power cut."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.unit.helpers.moved import AnyEngine

NEVER = {"Name": "no", "MaximumRetryCount": 0}
ALWAYS = {"Name": "always", "MaximumRetryCount": 0}


class CutOff(BaseException):
    """The process that works ends at this point."""


class OneContainer(AnyEngine):
    """What the engine is asked, in order, and what of it is so.

    :param root: its data root.
    :param running: whether the container has tasks, asked of those who have them.
    """

    def __init__(
        self,
        root: Path,
        container: str,
        *,
        running: Callable[[], bool] = lambda: True,
        policy: Mapping[str, Any] | None = None,
        name: str = "web",
    ) -> None:
        self.container = container
        self.name, self.policy = name, dict(policy or NEVER)
        self.started = True
        self.removed: list[tuple[str, bool]] = []
        self.calls: list[str] = []
        #: called before each call is done, with its name
        self.before: Callable[[str], None] = lambda _call: None
        self._running = running
        self.directory = root / "containers" / container
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / f"{container}-json.log").write_text("lines\n")
        self._note()

    @property
    def runs(self) -> bool:
        return self.started and self._running()

    def _note(self) -> None:
        """As the engine does: written beside it, flushed and renamed. What the directory then holds is not flushed."""
        for name, data in (
            ("config.v2.json", {"Name": f"/{self.name}"}),
            ("hostconfig.json", {"RestartPolicy": self.policy}),
        ):
            beside = self.directory / f"{name}.tmp"
            beside.write_text(json.dumps(data))
            os.rename(beside, self.directory / name)

    def _called(self, call: str) -> None:
        self.before(call)
        self.calls.append(call)

    def find(self, container: str) -> dict[str, Any] | None:
        assert container == self.container
        self._called("look")
        state = {"Running": self.runs, "Status": "running" if self.runs else "exited", "Paused": False}
        host = {"RestartPolicy": dict(self.policy)}
        return {"Id": container, "Name": f"/{self.name}", "State": state, "HostConfig": host}

    def inspect(self, container: str) -> dict[str, Any]:
        found = self.find(container)
        assert found is not None
        return found

    def rename(self, _container: str, name: str) -> None:
        self._called("rename")
        self.name = name
        self._note()

    def set_restart_policy(self, _container: str, policy: Mapping[str, Any]) -> None:
        self._called("policy")
        self.policy = dict(policy)
        self._note()

    def kill(self, _container: str) -> None:
        self._called("kill")

    def start(self, _container: str) -> None:
        self._called("start")
        self.started = True

    def remove(self, container: str, *, force: bool = True) -> None:
        self._called("remove")
        self.removed.append((container, force))

    def containers(self, *_filters: object, running: bool = False) -> list[dict[str, Any]]:  # noqa: ARG002
        return [{"Id": self.container}]

    def restarts(self) -> None:
        """The engine of this host is restarted, without live-restore: what ran ends, and policies start it again."""
        self.started = self.policy["Name"] in ("always", "unless-stopped")
