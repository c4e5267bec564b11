# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One migration from alpha to beta, as a process that a test can cut off at any task."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.conftest import LOGS, ROOT
from tests.lab.shell import bound

_TASK = re.compile(r"^TASK \[(?:livemigrate\.criu\.migrate : )?(.*?)\]")


class Migration:
    """A running `ansible-playbook playbooks/migrate.yml`, with what it prints."""

    _begun: ClassVar[list[Migration]] = []

    def __init__(
        self, container: str, arguments: Sequence[str] = (), *, playbook: str = "migrate.yml", inventory: str = ""
    ) -> None:
        self.container = container
        self.log: Path = LOGS / f"migration-{container}-{playbook}-{time.monotonic_ns()}.log"
        self._lines: list[str] = []
        self._reported = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            # A process of tests that is interrupted may be ended while it waits for this.
            bound(
                "ansible-playbook",
                "-i",
                inventory or str(ROOT / ".lab" / "inventory"),
                f"playbooks/{playbook}",
                *(["-e", f"container={container}"] if container else []),
                *arguments,
            ),
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._begun.append(self)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("w") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                with self._reported:
                    self._lines.append(line)
                    self._reported.notify_all()
        with self._reported:
            self._ended = True
            self._reported.notify_all()

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        with self._reported:
            return "".join(self._lines)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def until_task(self, name: str, timeout: float = 120) -> None:
        """Wait until a task begins."""

        def begun() -> bool:
            return any((found := _TASK.match(line)) and found.group(1).startswith(name) for line in self._lines)

        with self._reported:
            self._reported.wait_for(lambda: begun() or self._ended, timeout)
            assert begun(), f"the task {name!r} never began:\n{''.join(self._lines)}"

    def kill(self) -> None:
        """The control node dies: playbook, forks and SSH connections at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    @classmethod
    def kill_all(cls) -> None:
        """End those that a test which failed has left running."""
        while cls._begun:
            migration = cls._begun.pop()
            if migration._process.poll() is None:
                migration.kill()

    def end(self, timeout: float = 300) -> int:
        """Its exit code."""
        code = self._process.wait(timeout)
        with self._reported:
            self._reported.wait_for(lambda: self._ended, 10)
        return code

    def succeed(self, timeout: float = 300) -> str:
        """Its output; the test fails when it fails."""
        code = self.end(timeout)
        assert code == 0, f"exit code {code}:\n{self.output[-6000:]}"
        return self.output

    def fail_with(self, *texts: str, timeout: float = 300) -> str:
        """Its output; the test fails when it succeeds, or says none of the texts."""
        code = self.end(timeout)
        # Ansible folds no lines, but a message in YAML has its newlines.
        printed = " ".join(self.output.split())
        assert code != 0, f"it should have failed:\n{self.output[-6000:]}"
        for text in texts:
            assert text in printed, f"{text!r} is not in:\n{self.output[-6000:]}"
        return self.output
