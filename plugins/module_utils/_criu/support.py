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

from .._base.versions import Version, at_least, parse_version

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


def _dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)


def _carries_debian_12_mount_fix(revision: str | None) -> bool:
    """Debian 12 has the fix of CRIU 4.1.1 in 3.17.1-2+deb12u2; ``criu --version`` says 3.17.1 either way."""
    match = re.search(r"\+deb12u(\d+)", revision or "")
    return bool(match) and int(match.group(1)) >= 2 if match else False


class CriuFault(t.NamedTuple):
    """Something that is known against a range of CRIU versions, or of kernels. Each part that is empty holds for all."""

    #: what the list of versions calls it
    title: str
    #: CRIU older than this
    criu_below: Version
    #: kernels from this on
    kernel_from: Version
    #: kernels older than this
    kernel_below: Version
    machine: str
    #: the sentence; ``{criu}`` and ``{kernel}`` stand for what the host has
    sentence: str
    #: what it rests on
    source: str
    #: whether such a CRIU is used all the same
    usable: bool = False
    #: whether the try of CRIU (see _criu/self_test.py) meets it: then that decides, and not the versions
    tried: bool = False


CRIU_FAULTS: tuple[CriuFault, ...] = (
    CriuFault(
        f"kernels before {_dotted(OLDEST_KERNEL)}",
        (),
        (),
        OLDEST_KERNEL,
        "",
        f"The kernel is {{kernel}}; before {_dotted(OLDEST_KERNEL)} CRIU cannot repair TCP sockets in a container.",
        "criu#592",
    ),
    CriuFault(
        f"CRIU below {_dotted(OLDEST_CRIU)}",
        OLDEST_CRIU,
        (),
        (),
        "",
        f"CRIU is {{criu}}; {_dotted(OLDEST_CRIU)} is the oldest that can leave cgroups to the container runtime.",
        "criu PR 1800",
    ),
    CriuFault(
        "CRIU below 4.1 on kernel 6.13 or newer, x86_64",
        (4, 1),
        (6, 13),
        (),
        "x86_64",
        "CRIU {criu} does not know the vDSO of kernel {kernel}; 6.13 and newer need CRIU 4.1.",
        "run (3.17.1); criu#2532",
        tried=True,
    ),
    CriuFault(
        "CRIU below 4.2 on kernel 6.16 or newer",
        (4, 2),
        (6, 16),
        (),
        "",
        "CRIU {criu} cannot dump a process with a TCP socket on kernel {kernel}; 6.16 and newer need CRIU 4.2.",
        "run (4.1.1, whose criu check looks good); criu#2705",
        tried=True,
    ),
    CriuFault(
        "CRIU below 4.1.1, but for Debian 12's 3.17.1-2+deb12u2",
        (4, 1, 1),
        (),
        (),
        "",
        "CRIU {criu} cannot restore mount namespaces on kernels since mid 2025 (6.16 and the stable updates of "
        "older series): 4.1.1 can, and so does Debian 12's 3.17.1-2+deb12u2.",
        "criu#2694",
        usable=True,
        tried=True,
    ),
    CriuFault(
        "CRIU below 4.3 on kernel 7.1 or newer",
        (4, 3),
        (7, 1),
        (),
        "",
        "CRIU {criu} may not work on kernel {kernel}: since 7.1 there is no UDP-Lite.",
        "criu#3002",
        usable=True,
        tried=True,
    ),
)


class EngineFault(t.NamedTuple):
    """A range of engines, or of their containerd, that cannot restore through their own API. An empty end is open."""

    title: str
    #: engines from this on
    since: Version
    #: engines older than this
    below: Version
    #: ``none`` or ``host_network``, see EngineVerdict
    restores: str
    #: the sentence; ``{engine}`` and ``{containerd}`` stand for what the host has
    sentence: str
    source: str
    #: whether the range is one of containerd
    containerd: bool = False


_HOST_NETWORK = (
    "Docker {engine} cannot restore a container that has a network namespace of its own (bind-mount /proc/0/ns/net); "
    "26.0.1 to 27.5.1 can."
)
ENGINE_FAULTS: tuple[EngineFault, ...] = (
    EngineFault("before 19.03", (), (19, 3), "none", "Docker {engine} is older than 19.03.", "moby#35691, moby#41613"),
    EngineFault(
        "any with containerd 1.3 or 1.4",
        (1, 3),
        (1, 5),
        "none",
        "containerd {containerd} ignores checkpoints silently and starts afresh; 1.5 is the first that does not.",
        "moby#41639",
        containerd=True,
    ),
    EngineFault(
        "25.0.0 to 25.0.3",
        (25,),
        (25, 0, 4),
        "none",
        "Docker {engine} cannot restore (content digest not found); 25.0.4 can.",
        "moby PR 47456",
    ),
    EngineFault(
        "26.0.0, but for containers on the host's network",
        (26,),
        (26, 0, 1),
        "host_network",
        _HOST_NETWORK,
        "moby PR 47621",
    ),
    EngineFault(
        "28 and newer, but for containers on the host's network",
        (28,),
        (),
        "host_network",
        _HOST_NETWORK,
        "run (28.5.2); moby#50750",
    ),
)


def _between(version: Version, since: Version, below: Version) -> bool:
    """Whether a version is in a range. One that is not known is in none that has an end."""
    if not version:
        return not since and not below
    return at_least(version, since) and (not below or not at_least(version, below))


def criu_verdict(
    version: str | None,
    package_revision: str | None,
    check_ok: bool | None,
    check_output: str,
    kernel_release: str,
    machine: str,
    works: bool | None = None,
    error: str | None = None,
) -> CriuVerdict:
    """Judge a CRIU on a kernel.

    :param version: of CRIU, as it prints it; None where there is no CRIU that runs.
    :param package_revision: the distribution's revision of its package, None when it is in no package.
    :param check_ok: the outcome of ``criu check``; None when it could not be run.
    :param check_output: its output, for the message.
    :param kernel_release: as ``uname -r``.
    :param machine: as ``uname -m``.
    :param works: the outcome of trying it on this host; None when it was not tried.
    :param error: what that said when it failed.
    """
    reasons: list[str] = []
    remarks: list[str] = []
    criu = parse_version(version)
    kernel = parse_version(kernel_release)
    for fault in CRIU_FAULTS:
        if fault.criu_below and (not criu or at_least(criu, fault.criu_below)):
            continue
        if fault.machine not in ("", machine) or not _between(kernel, fault.kernel_from, fault.kernel_below):
            continue
        if fault.tried and works:
            continue
        if fault.usable and not fault.kernel_from and _carries_debian_12_mount_fix(package_revision):
            continue
        (remarks if fault.usable else reasons).append(fault.sentence.format(criu=version, kernel=kernel_release))
    if not criu:
        reasons.append("CRIU is not installed.")
    elif check_ok is False:
        reasons.append(f"criu check fails: {_last_line(check_output)}")
    elif check_ok is None:
        reasons.append(f"criu check could not be run: {_last_line(check_output)}")
    elif works is False:
        reasons.append(f"CRIU was tried here: {error}")
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
    for fault in ENGINE_FAULTS:
        if _between(ctrd if fault.containerd else docker, fault.since, fault.below):
            return EngineVerdict(fault.restores, fault.sentence.format(engine=engine, containerd=containerd))
    return EngineVerdict("all", "")
