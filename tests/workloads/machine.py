# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the workloads need to know of this machine and its lab. The only file here that knows tests/lab."""

from __future__ import annotations

from pathlib import Path

from tests.lab import Lab, aptsource
from tests.lab.settings import load_settings


def cache_directory() -> Path:
    """Where things that are slow to make are kept between runs, the lab's base file systems among them."""
    return load_settings().cache


def debian_archive(suite: str) -> tuple[str, list[str]]:
    """The URI of the archive that this machine's apt uses, and the apt options to reach SUITE there.

    LabError where the machine has none.
    """
    mirror = aptsource.find_mirror()
    return mirror.uri, [*mirror.options, *aptsource.suite_options(mirror, suite)]


def host_address(name: str) -> str:
    """The address of a lab host. LabError where the lab does not have it."""
    return Lab.load().machine(name).address


def root_shell(name: str) -> list[str]:
    """The words before a shell command line that run it as root on a lab host.

    Over ssh, as one reaches any host; where sshd refuses root, through the host's console.
    """
    machine = Lab.load().machine(name)
    if machine.login_user() != "root":
        return machine.console_command(["sh", "-c"])
    words = machine.ssh_command()
    # Many small commands in a row: one connection serves them, and ends by itself. %C keeps the socket's path short.
    words[1:1] = [
        "-o",
        "BatchMode=yes",
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPath=/tmp/.wl-%C",
        "-o",
        "ControlPersist=20",
    ]
    return words
