# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base root file systems: built once per flavour and recipe, kept in the cache, copied for every host.

This file is the recipe: its hash is part of the cached directory's name, so a change here makes a new base. What
differs between machines or labs (mirror, keys, names) is not in the base; machine.py writes it into each copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import aptsource
from .settings import READY, Settings, suite_of
from .shell import LabError, bound, exclusive, note, run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Neither docker nor criu, but for the flavours that are told to have them: the collection's roles bring those.
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "python3-apt", "iproute2", "iptables",
    "nftables", "iputils-ping", "netbase", "curl", "rsync", "zstd", "xz-utils", "procps", "psmisc", "lsof", "kmod",
    "ca-certificates", "acl", "attr", "less",
)  # fmt: skip

# What provision.yml would install on a Debian whose own CRIU works with the machine's kernel: unpacked once for all hosts
# whose provisioning is not what a test is about. No openssh-client: a host that has Docker and CRIU may lack small tools
# and package lists.
_PROVISIONED = ("docker.io", "docker-cli", "criu", "python3-docker")

# A lab host shares its kernel with the machine: these units would reach through to it.
_MASKED = (
    "systemd-networkd-wait-online.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "systemd-timesyncd.service",
    # Mirrors change and hosts are thrown away: nothing may start to download by itself in the middle of a test.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)

_FILES = {
    # Only sysctls that belong to a network namespace; the others (kernel.*, fs.*, vm.*) are the machine's.
    "etc/systemd/system/systemd-sysctl.service.d/lab.conf": (
        "[Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-sysctl --prefix=/net\n"
    ),
    # Kept over reboots and power cuts, so that a test can be understood afterwards; small.
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=32M\n",
    # A reboot must not wait for a minute and a half for a stuck unit. Long enough for dockerd to stop its containers.
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStopSec=20s\n",
    # The file system below is ext4 on the machine's disk: syncing every file of every package costs minutes.
    "etc/dpkg/dpkg.cfg.d/lab": (
        "force-unsafe-io\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\npath-exclude=/usr/share/doc/*\n"
        "path-include=/usr/share/doc/*/copyright\n"
    ),
    "etc/apt/apt.conf.d/90lab": 'Acquire::Languages "none";\nDPkg::Lock::Timeout "60";\n',
    "etc/ssh/sshd_config.d/10-lab.conf": (
        "# root-login.conf in this directory decides about root; the lab writes it.\n"
        "PasswordAuthentication no\nUseDNS no\nPrintMotd no\nMaxSessions 64\nMaxStartups 64\n"
    ),
}


def base_directory(settings: Settings, flavour: str) -> Path:
    """Where the cached base of a flavour is, whether it has been built or not."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return settings.cache / f"{flavour}-{recipe}"


def ensure_base(settings: Settings, flavour: str, mirror: aptsource.Mirror) -> Path:
    """The base of a flavour, built now unless it is in the cache. About 20 to 40 s for a build."""
    base = base_directory(settings, flavour)
    return cached(base, f"the base file system of {flavour}", lambda building: _build(building, flavour, mirror))


def cached(directory: Path, what: str, build: Callable[[Path], None]) -> Path:
    """A directory of the cache, made by build() where it is not there: whole or not at all, by one process at a time."""
    if directory.is_dir():
        return directory
    cache = directory.parent
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(cache / f".{directory.name}.lock"):
        if not directory.is_dir():
            building = cache / f".{directory.name}.building"
            if building.exists():
                shutil.rmtree(building)
            note(f"building {what} (once; kept in {cache})")
            try:
                build(building)
                building.rename(directory)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
    return directory


def bootstrap(
    root: Path, suite: str, packages: Sequence[str], mirror: aptsource.Mirror, hooks: Sequence[str] = ()
) -> None:
    """A root file system of a Debian release with these packages. hooks: further options of mmdebstrap."""
    if not _KEYRING.exists():
        raise LabError(f"{_KEYRING} is missing: install debian-archive-keyring")
    options = [*mirror.options, *aptsource.suite_options(mirror, suite)]
    # An `up` that is killed must not leave the build running behind its back: its end kills unshare, the end of that
    # kills the first process of the PID namespace, and with it go all others, and the mounts of their mount namespace.
    run(
        [
            *bound("unshare"), "--pid", "--mount-proc", "--fork", "--kill-child",
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
            f"--include={','.join(packages)}", f"--keyring={_KEYRING}",
            *(f"--aptopt={option}" for option in options),
            "--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*", *hooks,
            suite, str(root), mirror.uri,
        ],
        timeout=900,
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )  # fmt: skip


def _build(root: Path, flavour: str, mirror: aptsource.Mirror) -> None:
    bootstrap(root, suite_of(flavour), [*_PACKAGES, *(_PROVISIONED if flavour.endswith(READY) else ())], mirror)
    write_files(root, _FILES, _MASKED)
    forget_identity(root)


def write_files(root: Path, files: Mapping[str, str], masked: Sequence[str]) -> None:
    """Write these files, mask these units, and make the user ops, who may become root by sudo."""
    for relative, text in files.items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for unit in masked:
        link = root / "etc/systemd/system" / unit
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to("/dev/null")
    run(["chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo", "ops"])


def forget_identity(root: Path) -> None:
    """Remove what must not be the same on all hosts made of this base."""
    # Every copy gets its own: keys and ids of the base would be the same on all hosts. apt's settings of the build are
    # in mmdebstrap's files; the copies get those of the machine they run on.
    for pattern in ("etc/ssh/ssh_host_*", "etc/apt/sources.list", "etc/*/*.d/99mmdebstrap"):
        for path in root.glob(pattern):
            path.unlink()
    (root / "etc/machine-id").write_text("")
    os.sync()
