# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether the kernels, processors and CRIUs of two hosts go together: pure rules."""

from __future__ import annotations

import typing as t

from ..._base.versions import parse_version
from ..finding import ERROR, INFO, WARNING, Case, Facts, Told, rule

_Found = t.Iterator[Told]

# Seconds by which two wall clocks may differ. How long the hosts took to answer is left out of it.
_CLOCK_SECONDS = 2.0
# Kernel options that CRIU needs beyond what `criu check` tries, and what fails without them.
_KERNEL_OPTIONS = {
    "CONFIG_CHECKPOINT_RESTORE": "everything",
    "CONFIG_UNIX_DIAG": "unix sockets",
    "CONFIG_INET_DIAG": "TCP sockets",
    "CONFIG_INET_UDP_DIAG": "UDP sockets",
    "CONFIG_PACKET_DIAG": "packet sockets",
    "CONFIG_NETLINK_DIAG": "netlink sockets",
    "CONFIG_FHANDLE": "inotify",
    "CONFIG_NETFILTER_XT_MARK": "the network lock",
}


@rule(ERROR, "two architectures", "by reading", "source", "destination")
def same_architecture(case: Case) -> _Found:
    source, destination = case.both_hosts()
    here, there = source["kernel"].get("machine"), destination["kernel"].get("machine")
    if here != there:
        yield f"The source is {here}, the destination {there}.", "Choose a host of the same kind."


@rule(ERROR, "two page sizes", "by reading", "source", "destination")
def same_page_size(case: Case) -> _Found:
    source, destination = case.both_hosts()
    here, there = source["kernel"].get("page_size"), destination["kernel"].get("page_size")
    if here != there:
        yield (
            f"The pages of the source have {here} bytes, those of the destination {there}.",
            "Boot a kernel with the same page size.",
        )


@rule(ERROR, "cgroup version 1", "criu 94b9b3c5d", "source", "destination")
def cgroup_v2(case: Case) -> _Found:
    for where, facts in case.hosts():
        version = facts["docker"].get("cgroup_version") or facts["kernel"].get("cgroup_version")
        if str(version) == "1":
            yield (
                f"The {where} uses cgroup version 1, whose freezer cannot be relied on.",
                "Boot it with systemd.unified_cgroup_hierarchy=1.",
            )


@rule(ERROR, "a CRIU on the destination that is older", "criu#2847", "source", "destination")
def criu_not_older(case: Case) -> _Found:
    # CRIU promises to read the images of older releases, not of newer ones (4.2 changed the pagemap format).
    source, destination = case.both_hosts()
    here, there = source["criu"].get("version"), destination["criu"].get("version")
    if here and there and parse_version(there)[:2] < parse_version(here)[:2]:
        remedy = (
            f"Bring the destination to it: playbooks/provision.yml -e criu_minimal_version={'.'.join(here.split('.')[:2])}, and "
            "where its packages have none, also -e criu_extra_suite=SUITE or -e criu_method=source (README of the role criu)."
        )
        yield (
            f"The destination's CRIU {there} is older than the source's {here} and cannot be relied on to read its images.",
            remedy,
        )


@rule(INFO, "features of CRIU that the destination's kernel lacks", "by reading", "source", "destination")
def criu_features(case: Case) -> _Found:
    source, destination = case.both_hosts()
    there = destination["criu"]["features"]
    lost = sorted(name for name, has in source["criu"]["features"].items() if has and there.get(name) is False)
    if lost:
        yield (
            f"The destination's kernel lacks what the source's offers CRIU: {', '.join(lost)}.",
            "Use the same kernel on both hosts if the restore fails.",
        )


@rule(ERROR, "a kernel whose overlayfs hides from /proc/PID/maps where files lie", "criu#860, criu#1239", "source")
def overlayfs_maps(case: Case) -> _Found:
    source = case.source or {}
    if source["criu"]["features"].get("overlayfs_maps") is False:
        yield (
            (
                f"The kernel {source['kernel'].get('release')} of the source shows wrong devices for files on "
                "overlayfs (Ubuntu's); "
                "CRIU would not find the programs of a container."
            ),
            "Boot a kernel without that patch.",
        )


@rule(WARNING, "kernel options that CRIU needs and that are off", "criu.org/Check_the_kernel", "source", "destination")
def kernel_config(case: Case) -> _Found:
    for where, facts in case.hosts():
        config = facts["kernel"]["config"]
        off = [f"{name} ({what})" for name, what in _KERNEL_OPTIONS.items() if config.get(name) is False]
        if off:
            yield (
                f"The kernel of the {where} was built without {', '.join(off)}.",
                "A container that uses none of it can be moved; else boot a kernel that has it.",
            )


@rule(WARNING, "a kernel on the destination that is older", "by reading", "source", "destination")
def kernel_older(case: Case) -> _Found:
    source, destination = case.both_hosts()
    here, there = source["kernel"].get("release"), destination["kernel"].get("release")
    if here and there and parse_version(there)[:2] < parse_version(here)[:2]:
        yield (
            (
                f"The destination's kernel {there} is older than the source's {here}; what programs have found on "
                "the newer one may "
                "not be there."
            ),
            "Boot the same kernel on both, or a newer one on the destination.",
        )


@rule(
    ERROR,
    "instructions of the source's processor that the destination's lacks",
    "podman#17496",
    "source",
    "destination",
)
def cpu_features(case: Case) -> _Found:
    source, destination = case.both_hosts()
    here, there = source["cpu"]["instructions"], destination["cpu"]["instructions"]
    missing = sorted(set(here) - set(there))
    # Where a host does not tell (another architecture), there is nothing to compare.
    if here and there and missing:
        yield (
            (
                f"The destination's processor ({destination['cpu']['model']}) lacks {', '.join(missing)} of the source's "
                f"({source['cpu']['model']}): programs that have seen them use them, and end by SIGILL."
            ),
            "Choose a host with the same or a newer processor, or give both the same processor model (virtual machines).",
        )


@rule(WARNING, "time namespaces on the source alone", "criu 3.14", "source", "destination")
def time_namespace(case: Case) -> _Found:
    source, destination = case.both_hosts()
    if source["kernel"]["time_namespace"] and not destination["kernel"]["time_namespace"]:
        yield (
            "The destination's kernel has no time namespaces: the monotonic clock of the container's programs will jump.",
            "Boot a kernel from 5.6 on with CONFIG_TIME_NS.",
        )


# By the kernel's default it is a share of the memory, so two hosts hardly ever have the same: a little less is no setting.
_OF_THE_MEMORY = "fs.inotify.max_user_watches"
# No limit, but a choice: 0 is by guess, 1 is always, 2 is never more than there is.
_CHOICE = "vm.overcommit_memory"


def _is_worse(name: str, here: int, there: int) -> bool:
    if name == _CHOICE:
        return there != here
    return there < (here // 2 if name == _OF_THE_MEMORY else here)


@rule(
    WARNING,
    "limits of the whole host that are lower on the destination",
    "proc(5), by reading",
    "source",
    "destination",
)
def host_limits_lower(case: Case) -> _Found:
    source, destination = case.both_hosts()
    # Facts of another version may have none.
    here, there = source.get("limits") or {}, destination.get("limits") or {}
    worse = [name for name in here if name in there and _is_worse(name, here[name], there[name])]
    if worse:
        limits = ", ".join(f"{name} = {there[name]} (on the source {here[name]})" for name in worse)
        settings = " ".join(f"{name}={here[name]}" for name in worse)
        yield (
            (
                f"The destination has other limits than the source: {limits}. They are the whole host's and do not travel, and a "
                "program that needs them fails there later, or when it is started again."
            ),
            f"Set them there (sysctl -w {settings}), and in a file in /etc/sysctl.d for the next boot.",
        )


@rule(WARNING, "wall clocks that differ", "by reading", "source", "destination")
def clock_skew(case: Case) -> _Found:
    source, destination = case.both_hosts()
    asked, last = destination["clock"]["asked_at"], case.judged_at
    if source["clock"]["asked_at"] is None or asked is None or last is None:
        return
    # The destination is asked when the source has answered, and all is judged when the destination has.
    here, there = _ahead(source["clock"], asked), _ahead(destination["clock"], last)
    least, most = there[0] - here[1], there[1] - here[0]
    if least > _CLOCK_SECONDS or most < -_CLOCK_SECONDS:
        direction = "ahead of" if least > 0 else "behind"
        low, high = sorted((abs(least), abs(most)))
        yield (
            f"The destination's clock is {low:.0f} to {high:.0f} s {direction} the source's (as far as the hosts' answers tell).",
            "Synchronise both (chrony, systemd-timesyncd); certificates, leases and timers of the container would see the jump.",
        )


def _ahead(clock: Facts, answered_at: float) -> tuple[float, float]:
    """By how much a host's clock is ahead of the control node's: at least, at most. It was read between question and answer.

    :param answered_at: the control node's clock when it had the answer, or later.
    """
    latest = max(answered_at - clock["age_seconds"], clock["asked_at"])
    return clock["wall"] - latest, clock["wall"] - clock["asked_at"]


@rule(
    ERROR,
    "a security module that the container is under and the destination lacks",
    "criu/lsm.c",
    "source",
    "destination",
    "container",
)
def lsm_missing(case: Case) -> _Found:
    source, destination = case.both_hosts()
    profile = case.inspect.get("AppArmorProfile") or ""
    if "apparmor" in source["kernel"]["lsm"] and profile not in ("", "unconfined"):
        lsm = destination["kernel"]["lsm"]
        if lsm and "apparmor" not in lsm:
            yield (
                f"The container is under the AppArmor profile {profile}, and the destination has no AppArmor ({', '.join(lsm)}).",
                "Boot the destination with AppArmor, or re-create the container with --security-opt apparmor=unconfined.",
            )
