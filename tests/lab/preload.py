# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's cure for a machine without CAP_SYS_RESOURCE (see preload/prlimit_answer.c for what it does).

Why /etc/ld.so.preload in the host, and not a wrapper: CRIU is started by runc as `criu swrk`, by Ansible, by hand, from
/usr/sbin when Debian's package brought it and from /usr/local/sbin when it was built from source. A wrapper on PATH
would be overwritten by the second, and missed by whoever calls CRIU by its path. The file is read in the host only:
containers have their own root file system and so their own (missing) /etc/ld.so.preload.
"""

from __future__ import annotations

import os
from pathlib import Path

from .shell import run

SOURCE = Path(__file__).resolve().parent / "preload" / "prlimit_answer.c"
INSTALLED = "usr/lib/livemigrate-lab/prlimit_answer.so"

_CAP_SYS_RESOURCE = 24


def is_needed() -> bool:
    """Whether the capability bounding set of this process, which the hosts inherit, lacks CAP_SYS_RESOURCE."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return not int(line.split()[1], 16) & 1 << _CAP_SYS_RESOURCE
    return False


def build(output: Path) -> None:
    """Compile the library to output, unless it is there and not older than its source."""
    if output.exists() and output.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    run(
        [
            "gcc", "-Os", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
            # No libc behind it: see the end of the comment in the source.
            "-ffreestanding", "-fno-stack-protector", "-nostdlib",
            "-Wl,-soname,prlimit_answer.so", "-Wl,-z,relro,-z,now",
            "-o", str(temporary), str(SOURCE),
        ]
    )  # fmt: skip
    temporary.replace(output)


def install(library: Path, root: Path) -> None:
    """Put the library into a host's root file system and have every program there load it."""
    target = root / INSTALLED
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(library.read_bytes())
    target.chmod(0o755)
    (root / "etc/ld.so.preload").write_text(f"/{INSTALLED}\n")
