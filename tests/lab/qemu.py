# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""QEMU: where it comes from, and the command lines that make a disk and run a machine.

The machine's own QEMU is not asked: Debian 12's (7.2) crashes its guests under emulation. A Debian 13 root file system with
QEMU 10 is kept in the cache and entered by chroot, in a mount namespace of its own, of which nothing stays behind.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from . import aptsource
from .basefs import bootstrap, cached
from .settings import Settings
from .shell import run

_SUITE = "trixie"
_PACKAGES = ("qemu-system-x86", "qemu-utils", "seabios")

# Where QEMU finds the machine's directory and the base in its root.
_MACHINE = "/mnt/machine"
_BASE = "/mnt/base"
_DISK_BYTES = 12 << 30

_ENTER = """
root=$1 machine=$2 base=$3
shift 3
mkdir -p "$root/mnt/machine" "$root/mnt/base"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --bind "$machine" "$root/mnt/machine"
mount --bind "$base" "$root/mnt/base"
exec chroot "$root" "$@"
"""


def ensure_qemu(settings: Settings, mirror: aptsource.Mirror) -> Path:
    """QEMU's root file system, built now unless it is in the cache (about 40 s)."""
    return cached(
        _directory(settings), "QEMU's file system", lambda building: bootstrap(building, _SUITE, _PACKAGES, mirror)
    )


def _directory(settings: Settings) -> Path:
    recipe = hashlib.sha256(repr((_SUITE, _PACKAGES)).encode()).hexdigest()[:12]
    return settings.cache / f"qemu-{recipe}"


def _enter(settings: Settings, machine: Path, base: Path, *command: str) -> list[str]:
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _ENTER, "enter"]
    return [*unshare, str(_directory(settings)), str(machine), str(base), *command]


def make_disk(settings: Settings, tree: Path, machine: Path, base: Path) -> None:
    """Make a machine's disk of a directory tree: origin.img holds it as it was made, disk.qcow2 what is written later."""
    origin = machine / "origin.img"
    origin.unlink(missing_ok=True)
    with origin.open("wb") as handle:
        handle.truncate(_DISK_BYTES)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0", "-d", str(tree), str(origin)], timeout=600)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "origin.img", f"{_MACHINE}/disk.qcow2"]
    run(_enter(settings, machine, base, *command))


def machine_command(
    settings: Settings, machine: Path, base: Path, *, namespace: str, mac: str, kernel_arguments: str = ""
) -> list[str]:
    """The command line that runs a machine, in the network namespace where its tap device is.

    Standard input and output speak QMP. An end of the machine ends QEMU, also when the machine asked for a reboot.
    """
    accelerator = os.environ.get("LIVEMIGRATE_LAB_ACCEL") or "tcg,thread=multi"
    processors = os.environ.get("LIVEMIGRATE_LAB_CPUS") or "1"
    memory = os.environ.get("LIVEMIGRATE_LAB_MEMORY") or "1280"
    return [
        "nsenter", f"--net=/run/netns/{namespace}",
        *_enter(
            settings, machine, base,
            "qemu-system-x86_64", "-accel", accelerator, "-cpu", "Nehalem", "-smp", processors, "-m", memory,
            "-display", "none", "-no-reboot", "-no-user-config", "-nodefaults", "-qmp", "stdio",
            "-chardev", f"file,id=console,path={_MACHINE}/console.log,append=on", "-serial", "chardev:console",
            "-kernel", f"{_BASE}/vmlinux", "-initrd", f"{_BASE}/initrd.img",
            # nokaslr and mitigations=off: an emulated processor has no use for them, and they cost it much.
            "-append", f"root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off nokaslr {kernel_arguments}",
            # A flush of the machine reaches the image file, but waits for no disk of ours. What it has not flushed is lost
            # with QEMU: its own page cache, and the places of newly written blocks, which QEMU holds back until a flush.
            "-drive", f"file={_MACHINE}/disk.qcow2,format=qcow2,if=virtio,cache=unsafe,discard=unmap",
            "-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net,mac={mac},romfile=",
            "-device", "virtio-rng-pci",
            "-chardev", f"pipe,id=agent,path={_MACHINE}/agent",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        ),
    ]  # fmt: skip
