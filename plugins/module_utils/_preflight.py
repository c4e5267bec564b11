# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether a container can go from one host to the other, judged from what criu_check tells of both: pure rules.

Each rule is a small function that yields findings; all of them are reported at once. What the container itself forbids is
in ``_spec.refusals`` and ``_source.examine``, where its inspect data is.
"""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _images, _shim, _snapshots
from ansible_collections.livemigrate.criu.plugins.module_utils._support import parse_version

Facts = t.Mapping[str, t.Any]

# A little more than what any container needs beside its image: checkpoint copies, layers, logs.
_LEAST_FREE_BYTES = 512 << 20


class Verdict(t.NamedTuple):
    """What came out for a pair of hosts."""

    engine: str
    """``api`` or ``runtime``, see docs/decisions.md."""
    engine_reason: str
    """Why that one."""
    findings: list[Finding]
    """All that stands in the way; empty where nothing does."""


class Finding(t.NamedTuple):
    """Something that stands in the way."""

    rule: str
    message: str
    remedy: str


Rule = t.Callable[[Facts, Facts], t.Iterator[Finding]]
HostRule = t.Callable[[str, Facts], t.Iterator[Finding]]


def _each(rule: HostRule) -> Rule:
    """A rule about the pair out of one that holds for each host by itself."""

    @functools.wraps(rule)
    def judged(source: Facts, destination: Facts) -> t.Iterator[Finding]:
        yield from rule("source", source)
        yield from rule("destination", destination)

    return judged


@_each
def docker_present(where: str, facts: Facts) -> t.Iterator[Finding]:
    """There is an engine on both hosts, and it answers."""
    docker = facts["docker"]
    if not docker.get("running"):
        state = "does not answer" if docker.get("installed") else "is not installed"
        yield Finding(
            "docker_present",
            f"The Docker engine on the {where} {state}{': ' + docker['error'] if docker.get('error') else ''}.",
            "playbooks/provision.yml installs and starts it.",
        )


@_each
def docker_py_present(where: str, facts: Facts) -> t.Iterator[Finding]:
    """The modules can talk to the engine."""
    if not facts["python"].get("docker_py"):
        yield Finding(
            "docker_py_present",
            f"{facts['python'].get('executable')} on the {where} has no docker-py.",
            "playbooks/provision.yml brings it.",
        )


@_each
def criu_usable(where: str, facts: Facts) -> t.Iterator[Finding]:
    """CRIU is there and can work on its kernel."""
    if not facts["usable"]:
        yield Finding(
            "criu_usable",
            f"CRIU cannot be used on the {where}: {' '.join(facts['reasons'])}",
            "playbooks/provision.yml installs a CRIU; see the README of the role criu for newer ones.",
        )


@_each
def tools_present(where: str, facts: Facts) -> t.Iterator[Finding]:
    """What the channel and the network fence are made of is there."""
    needed = ("ip", "nft", "nsenter", "rsync", "ss", "ssh")
    missing = sorted(name for name in needed if facts["tools"].get(name, True) in (False, None, ""))
    if missing:
        yield Finding(
            "tools_present",
            f"The {where} lacks {' and '.join(missing)}.",
            "playbooks/provision.yml installs the packages.",
        )


@_each
def experimental_on(where: str, facts: Facts) -> t.Iterator[Finding]:
    """The engine's checkpoint calls are switched on."""
    if facts["docker"].get("running") and not facts["docker"].get("experimental"):
        yield Finding(
            "experimental_on",
            f"The Docker engine on the {where} runs without experimental features, which checkpoints are.",
            "The role livemigrate.criu.checkpointing turns them on (playbooks/provision.yml).",
        )


def engine_restores(_source: Facts, destination: Facts) -> t.Iterator[Finding]:
    """The destination's engine can restore."""
    verdict = destination["docker"].get("api_engine") or {}
    if verdict.get("restores") in ("none", "host_network"):
        yield Finding(
            "engine_restores",
            f"The Docker engine of the destination cannot restore a container: {verdict.get('reason')}",
            "Use an engine from the table in docs/support.md on the destination.",
        )


def same_architecture(source: Facts, destination: Facts) -> t.Iterator[Finding]:
    """Memory of one architecture runs on no other."""
    here, there = source["kernel"].get("machine"), destination["kernel"].get("machine")
    if here != there:
        yield Finding(
            "same_architecture", f"The source is {here}, the destination {there}.", "Choose a host of the same kind."
        )


@_each
def cgroup_v2(where: str, facts: Facts) -> t.Iterator[Finding]:
    """The freezer of cgroup version 1 cannot be relied on."""
    version = facts["docker"].get("cgroup_version") or facts["kernel"].get("cgroup_version")
    if str(version) == "1":
        yield Finding(
            "cgroup_v2",
            f"The {where} uses cgroup version 1, whose freezer cannot be relied on.",
            "Boot it with systemd.unified_cgroup_hierarchy=1.",
        )


def criu_not_older(source: Facts, destination: Facts) -> t.Iterator[Finding]:
    """CRIU promises to read the images of older releases, not of newer ones (4.2 changed the pagemap format)."""
    here, there = source["criu"].get("version"), destination["criu"].get("version")
    if here and there and parse_version(there)[:2] < parse_version(here)[:2]:
        yield Finding(
            "criu_not_older",
            f"The destination's CRIU {there} is older than the source's {here} and cannot be relied on to read its images.",
            "Bring the destination to the same CRIU (role livemigrate.criu.criu).",
        )


@_each
def storage_known(where: str, facts: Facts) -> t.Iterator[Finding]:
    """The writable layer can be reached on both hosts."""
    docker = facts["docker"]
    driver = docker.get("storage_driver")
    if not docker.get("running"):
        return
    if docker.get("image_store") == _images.CONTAINERD:
        if driver != _snapshots.SNAPSHOTTER:
            yield Finding(
                "storage_known",
                f"The engine on the {where} uses containerd's image store with the snapshotter {driver}; only overlayfs's "
                "writable layers can be moved.",
                f"Set storage-driver: {_snapshots.SNAPSHOTTER} in daemon.json; images and containers of the other one are "
                "out of sight then.",
            )
        elif not facts["tools"].get("ctr", True):
            yield Finding(
                "storage_known",
                f"The {where} lacks ctr, by which containerd tells where a container's writable layer lies.",
                "Install it; it is in the package of containerd.",
            )
    elif driver != "overlay2":
        yield Finding(
            "storage_known",
            f"The engine on the {where} uses the storage driver {driver}; only overlay2's writable layers can be moved.",
            "Set storage-driver: overlay2 in daemon.json, on a fresh data root, or use containerd's image store "
            "(features: containerd-snapshotter).",
        )


@_each
def disk_free(where: str, facts: Facts) -> t.Iterator[Finding]:
    """There is room for more than nothing."""
    for disk in facts.get("disk") or []:
        if int(disk["free_bytes"]) < _LEAST_FREE_BYTES:
            yield Finding(
                "disk_free",
                f"{disk['path']} on the {where} has {int(disk['free_bytes']) >> 20} MiB left; a migration needs "
                f"{_LEAST_FREE_BYTES >> 20} MiB and the container's own size.",
                "Make room.",
            )


def shim_registered(_source: Facts, destination: Facts) -> t.Iterator[Finding]:
    """The destination's engine can restore inside a start."""
    docker = destination["docker"]
    shim = docker.get("shim") or {}
    if docker.get("running") and shim.get("registered") and shim.get("version") != _shim.PROTOCOL:
        yield Finding(
            "shim_registered",
            f"The runtime {_shim.RUNTIME} of the destination is of another version of this collection (protocol "
            f"{shim.get('version')}, not {_shim.PROTOCOL}).",
            "The role livemigrate.criu.checkpointing replaces it, without a restart (playbooks/provision.yml).",
        )
    elif docker.get("running") and not shim.get("registered"):
        yield Finding(
            "shim_registered",
            f"The runtime {_shim.RUNTIME} is not registered with the Docker engine of the destination.",
            "The role livemigrate.criu.checkpointing registers it, without a restart (playbooks/provision.yml).",
        )


_ALWAYS: tuple[Rule, ...] = (
    docker_present,
    docker_py_present,
    criu_usable,
    tools_present,
    same_architecture,
    cgroup_v2,
    criu_not_older,
    storage_known,
    disk_free,
)
_OF_ENGINE: dict[str, tuple[Rule, ...]] = {
    "api": (experimental_on, engine_restores),
    "runtime": (shim_registered,),
}
RULES: tuple[Rule, ...] = (*_ALWAYS, *_OF_ENGINE["api"], *_OF_ENGINE["runtime"])


def choose_engine(source: Facts, destination: Facts, wanted: str = "auto") -> tuple[str, str]:
    """Which engine moves the container, and why.

    :param wanted: ``api``, ``runtime`` or ``auto``.
    """
    if wanted != "auto":
        return wanted, "asked for"
    if (destination["docker"].get("shim") or {}).get("registered"):
        return "runtime", f"the runtime {_shim.RUNTIME} is registered on the destination"
    if not [finding for rule in _OF_ENGINE["api"] for finding in rule(source, destination)]:
        return "api", f"the destination has no runtime {_shim.RUNTIME}, but its engine can restore"
    return "runtime", f"the destination's engine cannot restore by itself; the runtime {_shim.RUNTIME} is what it needs"


def judge(source: Facts, destination: Facts, engine: str = "auto") -> Verdict:
    """The engine, and all findings about a pair of hosts, as criu_check tells of them."""
    chosen, reason = choose_engine(source, destination, engine)
    rules = (*_ALWAYS, *_OF_ENGINE[chosen])
    return Verdict(chosen, reason, [finding for rule in rules for finding in rule(source, destination)])
