# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which swap spaces can be read without a key: by what the kernel tells of the devices below them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host.swap import has_noswap, in_the_clear

HEADER = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


class Host:
    """A /sys with block devices, and a /proc/swaps."""

    def __init__(self, place: Path) -> None:
        self.place, self.lines = place, HEADER
        (place / "dev" / "block").mkdir(parents=True)

    def device(self, name: str, *below: str, uuid: str = "", backing: str = "") -> None:
        directory = self.place / "class" / "block" / name
        (directory / "slaves").mkdir(parents=True)
        for one in below:
            (directory / "slaves" / one).touch()
        if uuid:
            (directory / "dm").mkdir()
            (directory / "dm" / "uuid").write_text(uuid + "\n")
        if backing:
            (directory / "backing_dev").write_text(backing + "\n")

    def swap(self, path: Path, kind: str, device: str) -> None:
        """Swap space at a path, whose device number leads to a device of that name."""
        path.touch()
        status = path.stat()
        number = status.st_rdev if kind == "partition" else status.st_dev
        link = self.place / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
        link.symlink_to(f"../../devices/virtual/block/{device}")
        self.lines += f"{str(path).replace(' ', chr(92) + '040')}\t{kind}\t1048572\t0\t-2\n"

    def clear(self) -> list[str]:
        (self.place / "swaps").write_text(self.lines)
        return in_the_clear(str(self.place / "swaps"), str(self.place))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.device("vda2")
    made.device("vdb")
    made.device("dm-0", "vda2", uuid="CRYPT-PLAIN-swap")
    made.device("dm-1", "dm-0", uuid="LVM-abc")
    made.device("dm-2", "vdb", uuid="LVM-def")
    made.device("dm-3", "dm-0", "vdb", uuid="LVM-ghi")
    made.device("zram0", backing="none")
    made.device("zram1", backing="/dev/vdb")
    made.device("md0", "vda2")
    return made


@pytest.mark.parametrize(
    ("device", "clear"),
    [
        ("vda2", True),
        ("dm-0", False),
        # A volume in an encrypted group, one in a plain group, and one of which a part is plain.
        ("dm-1", False),
        ("dm-2", True),
        ("dm-3", True),
        # Memory, and memory that is written to a disk after a while.
        ("zram0", False),
        ("zram1", True),
        ("md0", True),
        ("of-no-known-kind", True),
    ],
)
@pytest.mark.parametrize("kind", ["partition", "file"])
def test_by_what_lies_below(kind: str, device: str, clear: bool, host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a swap"
    host.swap(path, kind, device)
    assert host.clear() == ([str(path)] if clear else [])


def test_no_swap_and_swap_that_cannot_be_looked_at(host: Host) -> None:
    assert host.clear() == []
    host.lines += "/nowhere/swap\tfile\t1\t0\t-2\n/dev/vda2\\040(deleted)\tpartition\t1\t0\t-2\n"
    assert host.clear() == ["/nowhere/swap", "/dev/vda2 (deleted)"]
    assert in_the_clear("/nowhere/swaps") == []


def test_the_kernel_s_answer_is_what_a_mount_says(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    script = 'mount -t tmpfs -o noswap none "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path)], capture_output=True, check=False
    )
    before = os.listdir("/proc/self/fd")
    assert has_noswap() == (done.returncode == 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
