# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base systems of the virtual machines: a stock Debian with its own kernel, built once per flavour and recipe.

This file is the recipe: its hash is part of the cached directory's name, so a change here makes a new base. In that
directory: root/ (the file system, of which every machine's disk is made), vmlinux and initrd.img.

Everything in the system is Debian's as released: kernel, AppArmor, udev, CRIU, Docker. What the lab adds is the guest agent
(its console), settings of sshd and apt, and an initramfs without drivers for hardware that the machine does not have.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path

from . import aptsource, identity
from .basefs import bootstrap, cached, forget_identity, write_files
from .settings import BARE, Settings, suite_of
from .shell import LabError, bound, run

_PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "apparmor", "qemu-guest-agent", "e2fsprogs", "lz4",
    "systemd", "systemd-sysv", "dbus", "udev", "openssh-server", "sudo", "python3", "python3-apt", "iproute2", "iptables",
    "nftables", "iputils-ping", "netbase", "curl", "rsync", "zstd", "xz-utils", "procps", "psmisc", "lsof", "kmod",
    "ca-certificates", "acl", "attr", "less",
)  # fmt: skip

# What provision.yml would install: unpacked here in a tenth of the time that an emulated machine needs. The flavours
# that end in "-bare" lack them.
_PROVISIONED = {
    "bookworm": ("docker.io", "criu"),
    "trixie": ("docker.io", "docker-cli", "criu", "python3-docker"),
    "forky": ("docker.io", "docker-cli", "criu", "python3-docker"),
}

_MASKED = (
    "systemd-networkd-wait-online.service",
    # Mirrors change and hosts are thrown away: nothing may start to download by itself in the middle of a test.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    # Work of which these machines have no use, and which costs an emulated one many seconds.
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "man-db.timer",
    "dpkg-db-backup.timer",
)

_FILES = {
    "etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
    "etc/apt/apt.conf.d/90lab": 'Acquire::Languages "none";\nDPkg::Lock::Timeout "300";\n',
    "etc/dpkg/dpkg.cfg.d/lab": (
        "path-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\npath-exclude=/usr/share/doc/*\n"
        "path-include=/usr/share/doc/*/copyright\n"
    ),
    "etc/ssh/sshd_config.d/10-lab.conf": (
        "# root-login.conf in this directory decides about root; the lab writes it.\n"
        "PasswordAuthentication no\nUseDNS no\nPrintMotd no\nMaxSessions 64\nMaxStartups 64\nLoginGraceTime 300\n"
    ),
    # So that a test can be understood after a power cut.
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=32M\n",
}

# The initramfs: before the kernel is installed, whose package makes it.
_INITRAMFS_HOOK = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d"; '
    'echo MODULES=list > "$1/etc/initramfs-tools/conf.d/lab"; '
    'printf "%s\\n" virtio_pci virtio_blk ext4 > "$1/etc/initramfs-tools/modules"'
)

_PACKERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"\x02\x21\x4c\x18": "lz4", b"\x1f\x8b\x08": "gzip"}


def base_directory(settings: Settings, flavour: str) -> Path:
    """Where the cached base of a flavour is, whether it has been built or not."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return settings.cache / f"{flavour}-{recipe}"


def ensure_base(settings: Settings, flavour: str, mirror: aptsource.Mirror) -> Path:
    """The base of a flavour, built now unless it is in the cache. One to two minutes for a build."""
    directory = base_directory(settings, flavour)
    return cached(directory, f"the base system of {flavour}", lambda building: _build(building, flavour, mirror))


def _build(directory: Path, flavour: str, mirror: aptsource.Mirror) -> None:
    suite = suite_of(flavour)
    root = directory / "root"
    directory.mkdir()
    provisioned = () if flavour.endswith(BARE) else _PROVISIONED[suite]
    bootstrap(root, suite, [*_PACKAGES, *provisioned], mirror, [f"--essential-hook={_INITRAMFS_HOOK}"])
    write_files(root, _FILES, _MASKED)
    run(["chroot", str(root), "systemctl", "enable", "systemd-networkd.service", "ssh.service"])
    forget_identity(root)
    # The machines' own `apt-get update` then finds most of it done: reading a suite's lists takes an emulated machine long.
    identity.write_apt(root, suite, mirror)
    run(
        bound("chroot", str(root), "sh", "-c", "apt-get -qq update && apt-cache gencaches"),
        timeout=300,
        check=False,
    )
    _extract_kernel(root, directory / "vmlinux")
    initramfs = sorted((root / "boot").glob("initrd.img-*"))
    if not initramfs:
        raise LabError(f"the kernel of {flavour} came without an initramfs")
    initramfs[-1].rename(directory / "initrd.img")
    os.sync()


def _extract_kernel(root: Path, target: Path) -> None:
    """Take the uncompressed kernel out of Debian's vmlinuz.

    QEMU boots it at once (by PVH), where the kernel's own unpacking takes an emulated machine half a minute.
    """
    image = sorted((root / "boot").glob("vmlinuz-*"))[-1].read_bytes()
    # Linux's boot protocol, version 2.08: where the packed kernel lies, after the real-mode sectors.
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    packed = image[start : start + length]
    program = next((program for magic, program in _PACKERS.items() if packed.startswith(magic)), None)
    if program is None:
        raise LabError(f"the kernel in {root}/boot is packed in a way that the lab does not know: {packed[:4].hex()}")
    # The kernel's build adds the unpacked size, which makes the program fail after it has written everything.
    done = subprocess.run(["chroot", str(root), program, "-dcq"], input=packed, capture_output=True, check=False)
    if not done.stdout.startswith(b"\x7fELF"):
        raise LabError(f"{program} found no kernel in {root}/boot: {done.stderr.decode(errors='replace').strip()}")
    target.write_bytes(done.stdout)
