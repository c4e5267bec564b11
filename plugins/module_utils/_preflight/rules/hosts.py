# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether two hosts are fit for a move between them: pure rules over what criu_check tells of both."""

from __future__ import annotations

import typing as t

from ..._base.versions import at_least, parse_version
from ..._criu import options as criu_options
from ..._docker import images as docker_images
from ..._docker import shim as shim_module
from ..._docker import snapshots
from ..._docker.spec.networks import primary_network
from ..finding import (
    ERROR,
    INFO,
    WARNING,
    Case,
    Facts,
    Told,
    rule,
)

_Found = t.Iterator[Told]

_PROVISION = "playbooks/provision.yml installs and starts it."
_NEWER_CRIU = "playbooks/provision.yml installs a CRIU; see the README of the role criu for newer ones."
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


def _pair(case: Case) -> tuple[Facts, Facts]:
    if case.source is None or case.destination is None:
        raise ValueError("a rule about both hosts was asked without them")
    return case.source, case.destination


# -------------------------------------------------------------------------------------------------- what has to be there


@rule(ERROR, "no Docker engine, or one that does not answer", "run", "source", "destination")
def docker_present(case: Case) -> _Found:
    for where, facts in case.hosts():
        docker = facts["docker"]
        if not docker.get("running"):
            state = "does not answer" if docker.get("installed") else "is not installed"
            told = f": {docker['error']}" if docker.get("error") else ""
            yield f"The Docker engine on the {where} {state}{told}.", _PROVISION


@rule(ERROR, "no docker-py for the modules", "run", "source", "destination")
def docker_py_present(case: Case) -> _Found:
    for where, facts in case.hosts():
        if not facts["python"].get("docker_py"):
            yield (
                f"{facts['python'].get('executable')} on the {where} has no docker-py.",
                "playbooks/provision.yml brings it.",
            )


@rule(ERROR, "a CRIU that is missing or cannot work on its kernel", "docs/support.md", "source", "destination")
def criu_usable(case: Case) -> _Found:
    for where, facts in case.hosts():
        if not facts["usable"] and not _fails_when_tried(facts):
            yield f"CRIU cannot be used on the {where}: {' '.join(facts['reasons'])}", _NEWER_CRIU


def _fails_when_tried(facts: Facts) -> bool:
    return (facts.get("self_test") or {}).get("ok") is False


@rule(ERROR, "a CRIU that fails or crashes when it dumps and restores a tiny container", "run", "source", "destination")
def criu_works(case: Case) -> _Found:
    for where, facts in case.hosts():
        if _fails_when_tried(facts):
            lines = facts["self_test"].get("host_lines")
            yield (
                f"CRIU does not work on the {where}: {' '.join(facts['reasons'])}",
                "Take these lines out of that file, or out of checkpointing_criu_options." if lines else _NEWER_CRIU,
            )


@rule(
    ERROR, "options of the host with which CRIU fails or crashes", "run (4.1.1)", "source", "destination", engine="api"
)
def criu_options_work(case: Case) -> _Found:
    for where, facts in case.hosts():
        error = (facts.get("self_test") or {}).get("host_file_error")
        if error:
            yield (
                f"With /etc/criu/runc.conf of the {where} as it is, CRIU fails: {error}",
                "Take network-lock out of it (CRIU up to 4.2 crashes over that), or use migrate_engine: runtime.",
            )


@rule(INFO, "a CRIU that could not be tried", "run", "source", "destination")
def criu_not_tried(case: Case) -> _Found:
    for where, facts in case.hosts():
        tried = facts.get("self_test") or {"ok": True}
        if tried["ok"] is None and facts["usable"]:
            yield (
                f"Whether CRIU can dump and restore on the {where} is not known: {tried['error']}",
                "Nothing; if it cannot, the dump or the restore fails, and the container goes on where it is.",
            )


@rule(WARNING, "what is known against a CRIU that can be used", "docs/support.md", "source", "destination")
def criu_remarks(case: Case) -> _Found:
    for where, facts in case.hosts():
        for remark in facts["remarks"]:
            yield f"{where.capitalize()}: {remark}", "Bring a newer CRIU (role livemigrate.criu.criu)."


# What the channel and the network fence are made of.
_TOOLS = ("ip", "nft", "nsenter", "rsync", "ss", "ssh")


@rule(ERROR, "tools that are missing: rsync and ssh, or nftables and iproute2", "run", "source", "destination")
def tools_present(case: Case) -> _Found:
    for where, facts in case.hosts():
        missing = sorted(name for name in _TOOLS if facts["tools"].get(name, True) in (False, None, ""))
        if missing:
            yield f"The {where} lacks {' and '.join(missing)}.", "playbooks/provision.yml installs the packages."


@rule(ERROR, "an rsync that cannot be confined to the directory it works on", "run", "source", "destination")
def rsync_confined(case: Case) -> _Found:
    for where, facts in case.hosts():
        if facts["rsync"]["error"]:
            yield (
                f"rsync on the {where} cannot be kept from the host's other files: {facts['rsync']['error']}",
                "Where the host is a container itself, it has to be one that may mount (systemd-nspawn, or a privileged one).",
            )


# The first one that does not follow links which somebody has put in its way (CVE-2026-53797, CVE-2026-53801 and others).
_SAFE_RSYNC = (3, 5)


@rule(WARNING, "an rsync before 3.5 on a kernel before 5.10: it follows links", "run", "source", "destination")
def rsync_follows_links(case: Case) -> _Found:
    for where, facts in case.hosts():
        version = facts["rsync"]["version"]
        if facts["rsync"]["follows_links"] and version and not at_least(parse_version(version), _SAFE_RSYNC):
            yield (
                (
                    f"The {where}'s kernel {facts['kernel']['release']} cannot be told to follow no symbolic link, and its rsync "
                    f"{version} follows one that is put into its way while it works. The container could lead it to the host's "
                    "programs (/usr), though to no other files."
                ),
                "Bring rsync 3.5 or newer, or Linux 5.10 or newer.",
            )


@rule(ERROR, "no tar or gzip, by which CRIU packs file systems in memory", "run", "source", "destination")
def archive_tools(case: Case) -> _Found:
    for where, facts in case.hosts():
        missing = sorted(name for name in ("gzip", "tar") if facts["tools"].get(name, True) in (False, None, ""))
        if missing:
            yield (
                f"The {where} lacks {' and '.join(missing)}, by which CRIU packs /dev/shm and every tmpfs of a container.",
                "playbooks/provision.yml installs the packages.",
            )


@rule(ERROR, "nothing by which CRIU can hold a container's network", "criu/net.c", "source", "destination")
def network_lock(case: Case) -> _Found:
    if case.settings.engine == "runtime" and criu_options.can_skip_network_lock(case.source or {}):
        # The fence is the lock, and the images tell the destination's CRIU that there is no other.
        return
    for where, facts in case.hosts():
        # The engine runtime names no other way to CRIU: up to 4.2 it would crash over that.
        named = facts["criu"]["options"].get("network-lock") if case.settings.engine == "api" else ""
        how = str(named or "iptables")
        program = {"iptables": "iptables-restore", "nftables": "nft"}.get(how)
        if program and facts["tools"].get(program, True) in (False, None, ""):
            yield (
                (
                    f"The {where} lacks {program}, by which CRIU holds the network of a container while it works "
                    f"(network-lock={how})."
                ),
                "playbooks/provision.yml installs the package.",
            )


@rule(ERROR, "the source cannot reach the destination's SSH daemon", "run", "source")
def channel_reachable(case: Case) -> _Found:
    peer = (case.source or {}).get("peer")
    if peer and peer["error"]:
        yield (
            (
                f"The source does not reach the SSH daemon of the destination at {peer['address']} port {peer['port']}: "
                f"{peer['error']}"
            ),
            (
                "See in its log on the destination why (journalctl -u ssh -u sshd), and try again in some minutes. It does that "
                "to an address that has often failed to log in (PerSourcePenalties; PerSourcePenaltyExemptList exempts one), "
                "and where many log in at once (MaxStartups)."
            )
            if peer.get("turned_away")
            else "Set migrate_destination_address and migrate_destination_port to where the source finds it, and let it through.",
        )


@rule(ERROR, "an address at which the source finds another host than the destination", "run", "source", "destination")
def channel_leads_elsewhere(case: Case) -> _Found:
    source, destination = _pair(case)
    peer = source.get("peer")
    if not peer or peer["error"]:
        return
    shown, here, there = (
        set(keys) for keys in (peer["host_keys"], source["ssh_host_keys"], destination["ssh_host_keys"])
    )
    # A tunnel that begins on the source leads to the destination all the same, and its keys prove it.
    proved = bool(shown & there) and not shown & here
    if peer["is_own"] and not proved:
        found = "the source itself"
    elif shown and there and not shown & there:
        found = "the source itself" if shown & here else "another host, whose keys are not the destination's"
    else:
        return
    yield (
        f"At {peer['address']} port {peer['port']} the source does not find the destination, but {found}.",
        (
            "Set migrate_destination_address and migrate_destination_port to where the source reaches the destination's SSH "
            "daemon; ansible_host and ansible_port are how the control node does."
        ),
    )


@rule(
    ERROR,
    "an account whose login would break the channel: it prints something, or sshd refuses it",
    "run",
    "destination",
    variable="migrate_channel_user",
)
def channel_login(case: Case) -> _Found:
    account = (case.destination or {}).get("channel_login")
    if not account:
        return
    if account["prints"]:
        yield (
            (
                f"The account {account['user']} on the destination prints text whenever it logs in, which would get between the "
                f"hosts' data: {account['prints']!r}."
            ),
            (
                "Have its shell's start-up files print nothing where nobody sits at a terminal (at the top of .bashrc: "
                "[[ $- == *i* ]] || return), or name another account in migrate_channel_user."
            ),
        )
    for why in (account["fails"], account["refused"]):
        if why:
            yield (
                f"The source cannot log in to the account {account['user']} on the destination: {why}.",
                "Mend that, or name another account in migrate_channel_user.",
            )


@rule(ERROR, "a container that is not there", "run", "source")
def container_found(case: Case) -> _Found:
    asked = (case.source or {}).get("container")
    if asked and not asked["found"] and (case.source or {})["docker"].get("running"):
        yield str(asked["error"]), "Name one that runs on the source, as docker ps shows it."


# ----------------------------------------------------------------------------------------------------------- the engines


@rule(
    ERROR,
    "experimental mode is off",
    "moby daemon/checkpoint.go",
    "source",
    "destination",
    engine="api",
    variable="migrate_engine",
)
def experimental_on(case: Case) -> _Found:
    for where, facts in case.hosts():
        if facts["docker"].get("running") and not facts["docker"].get("experimental"):
            yield (
                f"The Docker engine on the {where} runs without experimental features, which checkpoints are.",
                "The role livemigrate.criu.checkpointing turns them on (playbooks/provision.yml).",
            )


@rule(ERROR, "an engine that cannot restore", "docs/support.md", "destination", engine="api", variable="migrate_engine")
def engine_restores(case: Case) -> _Found:
    verdict = (case.destination or {})["docker"].get("api_engine") or {}
    on_host = case.container is not None and primary_network(case.inspect) == "host"
    if verdict.get("restores") == "none" or (verdict.get("restores") == "host_network" and not on_host):
        yield (
            f"The Docker engine of the destination cannot restore a container: {verdict.get('reason')}",
            "Use an engine from the table in docs/support.md on the destination, or migrate_engine: runtime.",
        )


@rule(ERROR, "no runtime shim on the destination", "run", "destination", engine="runtime", variable="migrate_engine")
def shim_registered(case: Case) -> _Found:
    docker = (case.destination or {})["docker"]
    shim = docker.get("shim") or {}
    if docker.get("running") and shim.get("registered") and shim.get("version") != shim_module.PROTOCOL:
        yield (
            (
                f"The runtime {shim_module.RUNTIME} of the destination is of another version of this collection (protocol "
                f"{shim.get('version')}, not {shim_module.PROTOCOL})."
            ),
            "The role livemigrate.criu.checkpointing replaces it, without a restart (playbooks/provision.yml).",
        )
    elif docker.get("running") and not shim.get("registered"):
        yield (
            f"The runtime {shim_module.RUNTIME} is not registered with the Docker engine of the destination.",
            "The role livemigrate.criu.checkpointing registers it, without a restart (playbooks/provision.yml).",
        )


@rule(ERROR, "an engine that is rootless or remaps users", "runc's documentation", "source", "destination")
def engine_rootless(case: Case) -> _Found:
    for where, facts in case.hosts():
        kinds = {"rootless": "runs without root", "userns_remap": "remaps user ids"}
        for key, told in kinds.items():
            if facts["docker"].get(key):
                yield (
                    f"The Docker engine on the {where} {told}; runc makes no checkpoints then.",
                    "Use an ordinary engine.",
                )


@rule(ERROR, "a storage driver whose writable layers cannot be moved", "docs/support.md", "source", "destination")
def storage_known(case: Case) -> _Found:
    for where, facts in case.hosts():
        docker = facts["docker"]
        driver = docker.get("storage_driver")
        if not docker.get("running"):
            continue
        if docker.get("image_store") == docker_images.CONTAINERD:
            if driver != snapshots.SNAPSHOTTER:
                yield (
                    (
                        f"The engine on the {where} uses containerd's image store with the snapshotter {driver}; "
                        "only overlayfs's "
                        "writable layers can be moved."
                    ),
                    (
                        f"Set storage-driver: {snapshots.SNAPSHOTTER} in daemon.json; images and containers of the "
                        "other one are "
                        "out of sight then."
                    ),
                )
            elif not facts["tools"].get("ctr", True):
                yield (
                    f"The {where} lacks ctr, by which containerd tells where a container's writable layer lies.",
                    "Install it; it is in the package of containerd.",
                )
        elif driver != "overlay2":
            yield (
                f"The engine on the {where} uses the storage driver {driver}; only overlay2's writable layers can be moved.",
                (
                    "Set storage-driver: overlay2 in daemon.json, on a fresh data root, or use containerd's image store "
                    "(features: containerd-snapshotter)."
                ),
            )


@rule(INFO, "runc that enters the wrong time namespace after a restore", "runc PR 4696", "destination")
def runc_time_namespace(case: Case) -> _Found:
    runc = (case.destination or {})["docker"].get("runc_version")
    if runc and not at_least(parse_version(runc), (1, 2, 7)):
        yield (
            (
                f"runc {runc} of the destination puts processes of docker exec into another time namespace than the restored "
                "container's; those that stay there would be in the way of moving it on."
            ),
            "Nothing for this move; runc from 1.2.7 on does it right.",
        )


@rule(INFO, "cgroup drivers that differ", "criu PR 1800", "source", "destination")
def cgroup_driver_differs(case: Case) -> _Found:
    source, destination = _pair(case)
    here, there = source["docker"].get("cgroup_driver"), destination["docker"].get("cgroup_driver")
    if here and there and here != there:
        yield (
            f"The source's engine uses the cgroup driver {here}, the destination's {there}: another path for the container's.",
            "Nothing: cgroups are left to the container runtime (manage-cgroups=ignore).",
        )


# ------------------------------------------------------------------------------------------ kernels, processors, and CRIU


@rule(ERROR, "two architectures", "by reading", "source", "destination")
def same_architecture(case: Case) -> _Found:
    source, destination = _pair(case)
    here, there = source["kernel"].get("machine"), destination["kernel"].get("machine")
    if here != there:
        yield f"The source is {here}, the destination {there}.", "Choose a host of the same kind."


@rule(ERROR, "two page sizes", "by reading", "source", "destination")
def same_page_size(case: Case) -> _Found:
    source, destination = _pair(case)
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
    source, destination = _pair(case)
    here, there = source["criu"].get("version"), destination["criu"].get("version")
    if here and there and parse_version(there)[:2] < parse_version(here)[:2]:
        yield (
            f"The destination's CRIU {there} is older than the source's {here} and cannot be relied on to read its images.",
            "Bring the destination to the same CRIU (role livemigrate.criu.criu).",
        )


@rule(INFO, "features of CRIU that the destination's kernel lacks", "by reading", "source", "destination")
def criu_features(case: Case) -> _Found:
    source, destination = _pair(case)
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
    source, destination = _pair(case)
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
    source, destination = _pair(case)
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
    source, destination = _pair(case)
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
    source, destination = _pair(case)
    # Facts of another version may have none.
    here, there = source.get("limits") or {}, destination.get("limits") or {}
    worse = [name for name in here if name in there and _is_worse(name, here[name], there[name])]
    if worse:
        told = ", ".join(f"{name} = {there[name]} (on the source {here[name]})" for name in worse)
        settings = " ".join(f"{name}={here[name]}" for name in worse)
        yield (
            (
                f"The destination has other limits than the source: {told}. They are the whole host's and do not travel, and a "
                "program that needs them fails there later, or when it is started again."
            ),
            f"Set them there (sysctl -w {settings}), and in a file in /etc/sysctl.d for the next boot.",
        )


@rule(WARNING, "wall clocks that differ", "by reading", "source", "destination")
def clock_skew(case: Case) -> _Found:
    source, destination = _pair(case)
    asked, last = destination["clock"]["asked_at"], case.judged_at
    if source["clock"]["asked_at"] is None or asked is None or last is None:
        return
    # The destination is asked when the source has answered, and all is judged when the destination has.
    here, there = _ahead(source["clock"], asked), _ahead(destination["clock"], last)
    least, most = there[0] - here[1], there[1] - here[0]
    if least > _CLOCK_SECONDS or most < -_CLOCK_SECONDS:
        word = "ahead of" if least > 0 else "behind"
        low, high = sorted((abs(least), abs(most)))
        yield (
            f"The destination's clock is {low:.0f} to {high:.0f} s {word} the source's (as far as the hosts' answers tell).",
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
    source, destination = _pair(case)
    profile = case.inspect.get("AppArmorProfile") or ""
    if "apparmor" in source["kernel"]["lsm"] and profile not in ("", "unconfined"):
        lsm = destination["kernel"]["lsm"]
        if lsm and "apparmor" not in lsm:
            yield (
                f"The container is under the AppArmor profile {profile}, and the destination has no AppArmor ({', '.join(lsm)}).",
                "Boot the destination with AppArmor, or re-create the container with --security-opt apparmor=unconfined.",
            )
