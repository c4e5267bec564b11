# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether the engines of both hosts can dump and restore, and what they keep containers in: pure rules."""

from __future__ import annotations

import typing as t

from ..._base.versions import at_least, parse_version
from ..._docker import images as docker_images
from ..._docker import snapshots
from ..._docker.shim import PROTOCOL, RUNTIME
from ..._docker.spec.networks import primary_network
from ..finding import ERROR, INFO, Case, Told, rule

_Found = t.Iterator[Told]


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
    if docker.get("running") and shim.get("registered") and shim.get("version") != PROTOCOL:
        yield (
            (
                f"The runtime {RUNTIME} of the destination is of another version of this collection (protocol "
                f"{shim.get('version')}, not {PROTOCOL})."
            ),
            "The role livemigrate.criu.checkpointing replaces it, without a restart (playbooks/provision.yml).",
        )
    elif docker.get("running") and not shim.get("registered"):
        yield (
            f"The runtime {RUNTIME} is not registered with the Docker engine of the destination.",
            "The role livemigrate.criu.checkpointing registers it, without a restart (playbooks/provision.yml).",
        )


@rule(ERROR, "an engine that is rootless or remaps users", "runc's documentation", "source", "destination")
def engine_rootless(case: Case) -> _Found:
    for where, facts in case.hosts():
        kinds = {"rootless": "runs without root", "userns_remap": "remaps user ids"}
        for key, problem in kinds.items():
            if facts["docker"].get(key):
                yield (
                    f"The Docker engine on the {where} {problem}; runc makes no checkpoints then.",
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
    source, destination = case.both_hosts()
    here, there = source["docker"].get("cgroup_driver"), destination["docker"].get("cgroup_driver")
    if here and there and here != there:
        yield (
            f"The source's engine uses the cgroup driver {here}, the destination's {there}: another path for the container's.",
            "Nothing: cgroups are left to the container runtime (manage-cgroups=ignore).",
        )
