# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The mounts of a container as its kernel has them (/proc/PID/mountinfo), as far as they decide: pure functions."""

from __future__ import annotations

import os
import typing as t

# Mounted inside of a container (by privileged programs, Docker in Docker, FUSE): CRIU has no way to mount them again. It refuses
# what it has no word for (fstypes in criu/filesystems.c), and of those that it knows it fails over these.
_UNSUPPORTED = (
    *("overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "zfs", "vfat", "exfat", "ntfs3"),
    *("squashfs", "erofs", "iso9660", "udf"),
    *("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs"),
    *("bpf", "configfs", "hugetlbfs", "nfsd", "ramfs", "rpc_pipefs"),
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
    number: int = 0
    parent: int = 0
    """The number of the mount that it is mounted on."""
    device: str = ""
    """Of its file system: ``MAJOR:MINOR``."""


def parse(mountinfo: str) -> list[KernelMount]:
    """All mounts, in the order of the kernel."""
    found = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if not separator or len(fields) < 6:
            continue
        optional = [field.partition(":")[0] for field in fields[6:]]
        propagation = ",".join(field for field in optional if field in ("shared", "master"))
        numbers = int(fields[0]), int(fields[1])
        place, root = unescape(fields[4]), unescape(fields[3])
        found.append(KernelMount(place, right.split()[0], root, propagation, fields[5], *numbers, fields[2]))
    return found


def host_text() -> str:
    """/proc/self/mountinfo: the mounts that this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as handle:
        return handle.read()


def of_host() -> list[KernelMount]:
    """The same, parsed."""
    return parse(host_text())


def below(mounts: t.Iterable[KernelMount], trees: t.Iterable[str]) -> list[KernelMount]:
    """What is mounted below directories: rsync goes into it."""
    above = tuple(os.path.join(os.path.realpath(tree), "") for tree in trees)
    # An automounter would mount what nobody has asked for; what it has mounted has a line of its own.
    return [one for one in mounts if one.place.startswith(above) and one.kind != "autofs"]


def covered(mounts: t.Sequence[KernelMount]) -> set[int]:
    """The numbers of those mounts that no path leads to, because another one lies upon them or upon the way to them."""
    found: set[int] = set()
    by_number = {one.number: one for one in mounts}
    beside: dict[int, list[KernelMount]] = {}
    for one in mounts:
        beside.setdefault(one.parent, []).append(one)

    def hidden(mount: KernelMount) -> bool:
        parent = by_number.get(mount.parent)
        others = (other for other in beside[mount.parent] if other.number != mount.number)
        covered = any(mount.place.startswith(other.place.rstrip("/") + "/") for other in others)
        return covered or (parent is not None and parent.number != mount.number and hidden(parent))

    for mount in mounts:
        upon = (other for other in beside.get(mount.number, ()) if other.number != mount.number)
        if any(other.place == mount.place for other in upon) or hidden(mount):
            found.add(mount.number)
    return found


def unescape(text: str) -> str:
    """A place as the programs of the container call it: the kernel escapes what would break its lines."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def masked(mounts: t.Iterable[KernelMount]) -> list[str]:
    """The places below /proc and /sys that are covered: each has to exist on the destination for the cover to be
    mounted again."""
    return sorted(
        {
            one.place
            for one in mounts
            if one.place.startswith(_KERNEL) and one.kind not in ("cgroup", "cgroup2", "mqueue")
        }
    )


def _outer(place: str, declared: t.Iterable[str]) -> str | None:
    """The innermost of the container's own mounts that a place lies below; None where it lies below none."""
    return max((one for one in declared if place.startswith(one.rstrip("/") + "/")), key=len, default=None)


def foreign(
    mounts: t.Iterable[KernelMount], declared: t.Collection[str], binds: t.Collection[str]
) -> list[KernelMount]:
    """Mounts that were made inside of the container and that CRIU cannot mount again.

    :param declared: the places of the container's own mounts.
    :param binds: those of them that are volumes and bind mounts; for what lies below them see :func:`below_binds`.
    """
    return [
        one
        for one in mounts
        # What the engine itself binds (resolv.conf, docker-init) is a part of one of the host's file systems.
        if one.root == "/"
        and one.place != "/"
        and (one.kind in _UNSUPPORTED or one.kind.startswith("fuse"))
        and not one.kind.startswith("fuse.lxcfs")
        and one.place not in declared
        and _outer(one.place, declared) not in binds
        and not one.place.startswith(("/dev/", *_KERNEL))
    ]


def below_binds(
    mounts: t.Iterable[KernelMount],
    declared: t.Collection[str],
    binds: t.Collection[str],
    engines: t.Collection[str],
) -> list[tuple[KernelMount, str]]:
    """What is mounted below volumes and bind mounts and is none of the container's own mounts, each with the place it lies in.

    A bind mount brings what is mounted below its source on the host, and runc names only the bind mount itself to CRIU. Of the
    rest CRIU refuses most kinds, and of a tmpfs it makes a private one of the copy, with what was in the host's.

    :param declared: see :func:`foreign`.
    :param binds: see :func:`foreign`.
    :param engines: the places of what the engine mounts by itself; it may lie in a bind mount (of /etc, or /sys).
    """
    found = []
    for one in mounts:
        outer = _outer(one.place, declared)
        if outer in binds and outer is not None and one.place not in declared and one.place not in engines:
            found.append((one, outer))
    return found


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
