# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A docker host: loads an image, starts a container, asks about it, removes it."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import machine
from .build import build
from .probe import Answer, NoAnswerError, ask
from .recipes import Recipe


class HostError(Exception):
    """A command on a host failed; the text holds its own words."""


@dataclass(frozen=True)
class Host:
    """One host: NAME for messages, ADDRESS for its published ports, SHELL the words before a command line for it."""

    name: str
    address: str
    shell: tuple[str, ...]

    @classmethod
    def of_lab(cls, name: str) -> Host:
        """A host of the lab, by its name (alpha, beta, gamma)."""
        return cls(name, machine.host_address(name), tuple(machine.root_shell(name)))

    def run(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        text_input: str = "",
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command there, no shell expansion. HostError when it fails (with check) or takes TIMEOUT seconds."""
        try:
            done = subprocess.run(
                [*self.shell, shlex.join(command)],
                input=text_input,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise HostError(f"{self.name}: {shlex.join(command)}: no end after {timeout:.0f} s") from error
        if check and done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise HostError(f"{self.name}: {shlex.join(command)}: exit code {done.returncode}: {words}")
        return done

    def docker(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        """The standard output of a docker command, without the last line end."""
        return self.run(["docker", *arguments], check=check, timeout=timeout).stdout.rstrip("\n")

    def load(self, recipe: Recipe) -> str:
        """Brings the image there (built first where the cache lacks it) and returns its tag."""
        tar: Path = build(recipe)
        with tar.open("rb") as stream:
            done = subprocess.run(
                [*self.shell, "docker load --quiet"],
                stdin=stream,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
        if done.returncode != 0:
            raise HostError(f"{self.name}: docker load: {done.stderr.strip()[-2000:]}")
        return recipe.tag

    def start(self, name: str, image: str, arguments: Sequence[str] = (), command: Sequence[str] = ()) -> str:
        """`docker run -d` with a name and any further arguments; returns the container's full id.

        Never with a terminal or an open standard input.
        """
        return self.docker("run", "--detach", "--name", name, *arguments, image, *command)

    def inspect(self, name: str) -> dict[str, Any]:
        """What `docker inspect` tells of a container."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", "--type", "container", name))
        return found[0]

    def published(self, name: str, port: int) -> tuple[str, int]:
        """Address and port at which a container's TCP port can be reached from outside."""
        bindings = self.inspect(name)["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        if not bindings:
            raise HostError(f"{self.name}: container {name} does not publish port {port}")
        return self.address, int(bindings[0]["HostPort"])

    def probe_url(self, name: str, recipe: Recipe) -> str:
        """The URL under which a container of RECIPE tells count and token, through its published port."""
        address, port = self.published(name, recipe.port)
        return f"http://{address}:{port}{recipe.path}"

    def wait_until_answering(self, name: str, recipe: Recipe, timeout: float = 60) -> Answer:
        """The first answer of a container that just started. HostError, with its log, when it ends or stays silent."""
        url = self.probe_url(name, recipe)
        limit = time.monotonic() + timeout
        while True:
            try:
                return ask(url, timeout=5)
            except NoAnswerError as error:
                state = self.inspect(name)["State"]
                if not state["Running"] or time.monotonic() > limit:
                    log = self.run(["docker", "logs", "--tail", "20", name], check=False)
                    raise HostError(
                        f"{self.name}: container {name} ({state['Status']}) does not answer at {url}: {error}; "
                        f"its log:\n{log.stdout}{log.stderr}"
                    ) from error
                time.sleep(0.2)

    def remove(self, name: str) -> None:
        """Removes a container with its anonymous volumes, running or not, there or not."""
        self.docker("rm", "--force", "--volumes", name)
