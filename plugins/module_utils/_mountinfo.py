# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The mounts of a container as its kernel has them (/proc/PID/mountinfo), as far as they decide: pure functions."""

from __future__ import annotations

import typing as t

# Mounted inside of a container (by privileged programs, Docker in Docker, FUSE): CRIU has no way to mount them again.
_UNSUPPORTED = (
    "overlay",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "squashfs",
    "iso9660",
)
_KERNEL = ("/proc/", "/sys/")


class KernelMount(t.NamedTuple):
    """A line of mountinfo."""

    place: str
    kind: str
    root: str
    propagation: str
    options: str
    """Those of the mount itself, not those of its file system."""


def parse(mountinfo: str) -> list[KernelMount]:
    """All mounts, in the order of the kernel."""
    found = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        words = left.split()
        if not separator or len(words) < 6:
            continue
        optional = [word.partition(":")[0] for word in words[6:]]
        propagation = ",".join(word for word in optional if word in ("shared", "master"))
        found.append(KernelMount(unescape(words[4]), right.split()[0], unescape(words[3]), propagation, words[5]))
    return found


def unescape(text: str) -> str:
    """A place as the programs of the container call it: the kernel escapes what would break its lines."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def masked(mounts: t.Iterable[KernelMount]) -> list[str]:
    """The places below /proc and /sys that are covered: each has to exist on the destination for the cover to be "
    "mounted again."""
    return sorted(
        {
            one.place
            for one in mounts
            if one.place.startswith(_KERNEL) and one.kind not in ("cgroup", "cgroup2", "mqueue")
        }
    )


def foreign(mounts: t.Iterable[KernelMount], declared: t.Collection[str]) -> list[KernelMount]:
    """Mounts that were made inside of the container and that CRIU cannot mount again.

    :param declared: the places of the container's own mounts; what lies below them came with them.
    """
    return [
        one
        for one in mounts
        # What the engine itself binds (resolv.conf, docker-init) is a part of one of the host's file systems.
        if one.root == "/"
        and one.place != "/"
        and (one.kind in _UNSUPPORTED or one.kind.startswith("fuse"))
        and not one.kind.startswith("fuse.lxcfs")
        and not any(one.place == place or one.place.startswith(place.rstrip("/") + "/") for place in declared)
        and not one.place.startswith(("/dev/", *_KERNEL))
    ]


def memory_places(mounts: t.Iterable[KernelMount], declared: t.Collection[str]) -> list[str]:
    """The places of file systems in memory that are the container's own: their content is in its checkpoint.

    :param declared: the places of bind mounts, which may be in the host's memory.
    """
    return [
        one.place
        for one in mounts
        if one.kind == "tmpfs"
        and one.root == "/"
        and one.place not in declared
        and not one.place.startswith(_KERNEL)
        and one.place not in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
    ]
