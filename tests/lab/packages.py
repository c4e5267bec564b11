# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the machine itself needs to run the lab."""

from __future__ import annotations

import shutil
from pathlib import Path

from .preload import is_needed as preload_is_needed
from .shell import LabError, exclusive, note, run

# dpkg does not wait for another dpkg: two labs, or two commands for one lab, take turns.
_LOCK = Path("/run/lock/livemigrate-lab-packages")

_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "tc": "iproute2",
    "bridge": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "apt-get": "apt",
}


# Beside those, for virtual machines.
_FOR_VIRTUAL = {"mke2fs": "e2fsprogs", "unshare": "util-linux"}


def install_missing(virtual: bool = False) -> None:
    """Install the Debian packages of the programs that are not there; nothing is upgraded or removed."""
    wanted = {**_PROGRAMS, **(_FOR_VIRTUAL if virtual else {})}
    if preload_is_needed():
        wanted["gcc"] = "gcc"
    if all(map(shutil.which, wanted)):
        return
    with exclusive(_LOCK):
        _install(wanted)


def _install(wanted: dict[str, str]) -> None:
    """Install the packages of those programs that are not there. wanted: program to package."""
    missing = sorted({package for program, package in wanted.items() if not shutil.which(program)})
    if not missing:
        return
    note(f"installing on this machine: {' '.join(missing)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", "--no-upgrade", *missing]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    if run(install, check=False, timeout=600, env=quiet).returncode != 0:
        # Most often the package lists are missing or old, as on every new container image.
        run(["apt-get", "update"], timeout=300, env=quiet)
        run(install, timeout=600, env=quiet)
    still = [program for program in wanted if not shutil.which(program)]
    if still:
        raise LabError(f"installed {' '.join(missing)}, but still not found: {' '.join(still)}")
