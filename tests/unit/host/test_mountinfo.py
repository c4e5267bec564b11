# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of mounts of a process: as a kernel told it of a container of Docker 28.5.2, and that of our own."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import mountinfo, process_resources

MOUNTS = """\
4051 3915 0:434 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
4053 4051 0:462 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
4054 4051 0:463 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
4056 4051 0:465 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
4057 4056 0:38 /x /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw
4058 4054 0:460 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
4059 4054 0:466 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
4060 4051 254:0 /srv/scripts /s ro,relatime shared:7 master:1 - ext4 /dev/vda rw
4061 4051 254:0 /var/lib/docker/containers/99/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw
4064 4051 254:0 /usr/bin/tini-static /usr/sbin/docker-init ro,relatime - ext4 /dev/vda rw
3964 4053 0:462 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
3968 4053 0:467 / /proc/acpi ro,relatime - tmpfs tmpfs ro,size=4k,nr_inodes=1
3969 4053 0:463 /null /proc/interrupts rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
3972 4056 0:467 / /sys/firmware ro,relatime - tmpfs tmpfs ro,size=4k,nr_inodes=1
3980 4051 0:500 / /mnt/a\\040b rw,relatime - fuse.sshfs sshfs rw
3981 4060 0:501 / /s/below rw,relatime - nfs4 server:/x rw
3982 4051 0:502 / /cache rw,relatime - tmpfs tmpfs rw
3983 4051 0:503 / /fromhost rw,relatime - tmpfs tmpfs rw
"""


def test_masked_places() -> None:
    found = mountinfo.masked(mountinfo.parse(MOUNTS))
    assert found == ["/proc/acpi", "/proc/bus", "/proc/interrupts", "/sys/firmware"]


def test_foreign_mounts_are_those_that_nobody_asked_for() -> None:
    mounts = mountinfo.parse(MOUNTS)
    assert [one.place for one in mountinfo.foreign(mounts, ["/s"], ["/s"])] == ["/mnt/a b"]
    assert [one.place for one in mountinfo.foreign(mounts, ["/mnt/a b"], ["/mnt/a b"])] == ["/s/below"]
    # A tmpfs brings nothing along.
    assert [one.place for one in mountinfo.foreign(mounts, ["/s"], [])] == ["/mnt/a b", "/s/below"]
    nested = mountinfo.foreign(mounts, ["/s", "/s/below", "/mnt"], ["/s"])
    assert [one.place for one in nested] == ["/mnt/a b"]


@pytest.mark.parametrize("kind", ["vfat", "zfs", "f2fs", "bpf", "hugetlbfs", "fuse.sshfs"])
def test_kinds_that_criu_has_no_name_for_are_foreign(kind: str) -> None:
    mounts = mountinfo.parse(MOUNTS.replace("- tmpfs tmpfs rw\n", f"- {kind} x rw\n"))
    assert "/cache" in [one.place for one in mountinfo.foreign(mounts, [], [])]


def test_file_systems_in_memory() -> None:
    assert mountinfo.memory_places(mountinfo.parse(MOUNTS), ["/fromhost"]) == ["/dev", "/dev/shm", "/cache"]


def test_propagation() -> None:
    assert {one.place: one.propagation for one in mountinfo.parse(MOUNTS) if one.propagation} == {"/s": "shared,master"}


def test_our_own_mounts() -> None:
    assert "/proc" in {one.place for one in mountinfo.parse(process_resources.read("/proc/self/mountinfo"))}
