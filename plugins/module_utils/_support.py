# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Which CRIU works on which kernel, and which Docker Engine can restore: pure rules over versions.

Every rule here has its row in docs/support.md, with what it rests on.
"""

from __future__ import annotations

import re
import typing as t

Version = tuple[int, ...]

# manage-cgroups=ignore does not work before it (criu PR 1800), and without that a restored container is put into the
# old container's cgroup, where it cannot be paused or migrated again.
OLDEST_CRIU: Version = (3, 17)
# "Can't turn TCP repair mode ON" in a container before it (criu#592).
OLDEST_KERNEL: Version = (4, 12)


class CriuVerdict(t.NamedTuple):
    """What is to be said of a CRIU on its kernel."""

    # Why it cannot be used; empty when it can.
    reasons: list[str]
    # What to keep in mind although it can be used.
    remarks: list[str]


class EngineVerdict(t.NamedTuple):
    """Whether a Docker Engine can restore a checkpoint through its own API."""

    # "all", "host_network" (only containers without a network namespace of their own), "none" or "unknown".
    restores: str
    # Why not all; empty for "all".
    reason: str


def parse_version(text: str | None) -> Version:
    """The first dotted number in a text, ``1.7.24~ds1`` as ``(1, 7, 24)``; ``()`` where there is none."""
    match = re.search(r"\d+(?:\.\d+)*", text or "")
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def at_least(version: Version, wanted: Version) -> bool:
    """Whether *version* is *wanted* or newer; a missing part counts as 0."""
    length = max(len(version), len(wanted))
    return version + (0,) * (length - len(version)) >= wanted + (0,) * (length - len(wanted))


def _dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)


def _carries_debian_12_mount_fix(revision: str | None) -> bool:
    """Debian 12 has the fix of CRIU 4.1.1 in 3.17.1-2+deb12u2; ``criu --version`` says 3.17.1 either way."""
    match = re.search(r"\+deb12u(\d+)", revision or "")
    return bool(match) and int(match.group(1)) >= 2 if match else False


def criu_verdict(
    version: str | None,
    package_revision: str | None,
    check_ok: bool | None,
    check_output: str,
    kernel_release: str,
    machine: str,
) -> CriuVerdict:
    """Judge a CRIU on a kernel.

    :param version: of CRIU, as it prints it; None where there is no CRIU that runs.
    :param package_revision: the distribution's revision of its package, None when it is in no package.
    :param check_ok: the outcome of ``criu check``; None when it could not be run.
    :param check_output: its output, for the message.
    :param kernel_release: as ``uname -r``.
    :param machine: as ``uname -m``.
    """
    reasons: list[str] = []
    remarks: list[str] = []
    criu = parse_version(version)
    kernel = parse_version(kernel_release)
    if kernel and not at_least(kernel, OLDEST_KERNEL):
        reasons.append(
            f"The kernel is {kernel_release}; before {_dotted(OLDEST_KERNEL)} CRIU cannot repair TCP sockets in a container."
        )
    if not criu:
        reasons.append("CRIU is not installed.")
        return CriuVerdict(reasons, remarks)
    if not at_least(criu, OLDEST_CRIU):
        reasons.append(
            f"CRIU is {version}; {_dotted(OLDEST_CRIU)} is the oldest that can leave cgroups to the container runtime."
        )
    if machine == "x86_64" and at_least(kernel, (6, 13)) and not at_least(criu, (4, 1)):
        reasons.append(
            f"CRIU {version} does not know the vDSO of kernel {kernel_release}; 6.13 and newer need CRIU 4.1."
        )
    if at_least(kernel, (6, 16)) and not at_least(criu, (4, 2)):
        reasons.append(
            f"CRIU {version} cannot dump a process with a TCP socket on kernel {kernel_release}; 6.16 and newer need CRIU 4.2."
        )
    if not at_least(criu, (4, 1, 1)) and not _carries_debian_12_mount_fix(package_revision):
        remarks.append(
            f"CRIU {version} cannot restore mount namespaces on kernels since mid 2025 (6.16 and the stable updates of "
            "older series): 4.1.1 can, and so does Debian 12's 3.17.1-2+deb12u2."
        )
    if at_least(kernel, (7, 1)) and not at_least(criu, (4, 3)):
        remarks.append(f"CRIU {version} may not work on kernel {kernel_release}: since 7.1 there is no UDP-Lite.")
    if check_ok is False:
        reasons.append(f"criu check fails: {_last_line(check_output)}")
    elif check_ok is None:
        reasons.append(f"criu check could not be run: {_last_line(check_output)}")
    return CriuVerdict(reasons, remarks)


def _last_line(output: str) -> str:
    """The line of CRIU's output that says why: its last error, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error")]
    return (errors or lines or ["no output"])[-1]


def engine_verdict(engine: str | None, containerd: str | None) -> EngineVerdict:
    """Judge whether a Docker Engine restores checkpoints.

    :param engine: version of the engine, None where there is none.
    :param containerd: version of its containerd, None where unknown.
    """
    docker, ctrd = parse_version(engine), parse_version(containerd)
    if not docker:
        return EngineVerdict("unknown", "The Docker Engine does not answer.")
    if not at_least(docker, (19, 3)):
        return EngineVerdict("none", f"Docker {engine} is older than 19.03.")
    if at_least(ctrd, (1, 3)) and not at_least(ctrd, (1, 5)):
        return EngineVerdict(
            "none",
            f"containerd {containerd} ignores checkpoints silently and starts afresh; 1.5 is the first that does not.",
        )
    if at_least(docker, (25,)) and not at_least(docker, (25, 0, 4)):
        return EngineVerdict("none", f"Docker {engine} cannot restore (content digest not found); 25.0.4 can.")
    if docker[:3] in {(26,), (26, 0), (26, 0, 0)} or at_least(docker, (28,)):
        return EngineVerdict(
            "host_network",
            f"Docker {engine} cannot restore a container that has a network namespace of its own "
            "(bind-mount /proc/0/ns/net); 26.0.1 to 27.5.1 can.",
        )
    return EngineVerdict("all", "")
