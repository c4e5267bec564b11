# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What of the destination stands in the way of one container: its name, its image, places to mount and devices. Pure rules."""

from __future__ import annotations

import os
import typing as t

from ..._base.versions import parse_version
from ..._docker import host_files
from ..finding import ERROR, INFO, WARNING, Case, Facts, Told, rule

_Found = t.Iterator[Told]

# How many devices a message names.
_NAMED = 4


# -------------------------------------------------------------------------------------------------- the container itself


@rule(ERROR, "a container of that name on the destination", "run", "container", "there", volatile=True)
def name_taken(case: Case) -> _Found:
    container, there = case.both_sides()
    if there["name_status"]:
        yield (
            f"The destination already has a container {container['name']} (status {there['name_status']}).",
            "Remove or rename it there.",
        )


@rule(
    ERROR,
    "an old copy of the container on the destination that somebody has started again or renamed",
    "by reading",
    "container",
    "there",
    volatile=True,
)
def old_copy_in_use(case: Case) -> _Found:
    _container, there = case.both_sides()
    for one in there["old_copies_in_use"]:
        yield f"{one['why']} on the destination; the move would take its volumes, and remove it.", one["remedy"]


@rule(ERROR, "an image that neither host has", "criu#1049", "container", "there")
def image_missing(case: Case) -> _Found:
    container, there = case.both_sides()
    image = container["image"]
    if not there["image"]["present"] and not image["identity"] and not image["digests"]:
        yield (
            f"The container's image {image['reference']} is on neither host: the source's engine has lost it (docker rmi -f).",
            "Bring it to the destination (docker pull, docker load) with the id that docker inspect shows.",
        )


@rule(INFO, "an image that has to travel", "run", "container", "there")
def image_travels(case: Case) -> _Found:
    container, there = case.both_sides()
    image = container["image"]
    if not there["image"]["present"] and (image["identity"] or image["digests"]):
        yield (
            f"The image {image['reference']} ({image['size'] >> 20} MiB) is not on the destination.",
            "Nothing: it is pulled by its digest there, or sent by the source while the container runs.",
        )


@rule(ERROR, "what the destination's engine cannot express", "moby's API history", "destination", "container", "there")
def cannot_recreate(case: Case) -> _Found:
    container, _there = case.both_sides()
    api = (case.destination or {})["docker"].get("api_version") or ""
    known = [version for version in container["unsupported_fields"] if parse_version(version) <= parse_version(api)]
    # What the newest API that both know could not do.
    newest = max(known, key=parse_version, default="")
    if newest and (newest == api or parse_version(api) > (1, 51)):
        fields = "; ".join(container["unsupported_fields"][newest])
        yield (
            f"The destination's engine (API {api}) cannot express all of the container: {fields}.",
            "Bring a newer engine to the destination.",
        )


# ----------------------------------------------------------------------------------------------------- places and devices


@rule(
    ERROR,
    "a bind mount of a symbolic link",
    "run (26.1.5)",
    "container",
    "there",
    engine="api",
    variable="migrate_engine",
)
def mount_is_link(case: Case) -> _Found:
    container, there = case.both_sides()
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        target = there["binds"][path]["leads_to"] if entry["kind"] == "bind" else ""
        if target:
            yield (
                (
                    f"{path} (mounted at {entry['destination']}) is a symbolic link on the destination; CRIU would "
                    "mount the link, "
                    "not what it leads to."
                ),
                f"Mount {target} instead, or use migrate_engine: runtime.",
            )
    if (case.inspect.get("HostConfig") or {}).get("Init") and there["init_leads_to"]:
        yield (
            (
                f"{there['init']} (mounted at {host_files.INIT_PLACE}) is a symbolic link on the destination; CRIU "
                "would mount the "
                "link, not what it leads to."
            ),
            f'Set "init-path": "{there["init_leads_to"]}" in daemon.json there, or use migrate_engine: runtime.',
        )


@rule(ERROR, "a container with `--init`, and no docker-init on the destination", "run", "container", "there")
def init_missing(case: Case) -> _Found:
    _container, there = case.both_sides()
    if (case.inspect.get("HostConfig") or {}).get("Init") and not there["init"]:
        yield (
            "The container was made with --init, and the destination has no docker-init to be its first process.",
            "Install it there (it comes with the engine; on Debian it is a part of docker.io and tini).",
        )


@rule(
    ERROR,
    "a container with `--init`, and another docker-init on the destination",
    "run",
    "container",
    "source",
    "destination",
)
def init_differs(case: Case) -> _Found:
    ours, theirs = ((facts or {}).get("docker", {}).get("init_bytes") for facts in (case.source, case.destination))
    if (case.inspect.get("HostConfig") or {}).get("Init") and ours and theirs and ours != theirs:
        yield (
            (
                f"The container runs under the source's docker-init, which has {ours} bytes; that of the destination has "
                f"{theirs}. CRIU restores a program only where its file has the same size."
            ),
            'Bring the source\'s file to the destination, and name it there with "init-path" in daemon.json.',
        )


@rule(ERROR, "places below /proc and /sys that the destination's kernel lacks", "criu#1240", "container", "there")
def masked_path_missing(case: Case) -> _Found:
    _container, there = case.both_sides()
    if there["missing_places"]:
        yield (
            (
                f"These places of the kernel are covered in the container and are not there on the destination: "
                f"{', '.join(there['missing_places'])}."
            ),
            (
                "Load the module that makes them there, unload it here before the container starts, or re-create "
                "the container with "
                "--security-opt systempaths=unconfined."
            ),
        )


@rule(ERROR, "a device that the destination lacks", "run", "container", "there")
def device_missing(case: Case) -> _Found:
    _container, there = case.both_sides()
    if there["missing_devices"]:
        yield (
            f"The container has devices that the destination lacks: {', '.join(there['missing_devices'])}.",
            "Provide them there, or re-create the container without them.",
        )


def _is_dangerous(node: Facts) -> bool:
    """Whether somebody has named a device, or what the copy's node leads to is a disk of the destination."""
    return bool(node["given"] or (node["owner"] and node["numbers"].startswith("b")))


def _devices(nodes: t.Iterable[Facts]) -> str:
    """Each with both numbers, for a sentence."""
    texts = []
    for node in nodes:
        here = f"{node['host_path']} is {node['here']}" if node["here"] else f"there is no {node['host_path']}"
        owner = f", and {node['numbers']} is {node['owner']}" if node["owner"] else ""
        texts.append(f"{node['path']} is {node['numbers']} in the container; on the destination {here}{owner}")
    more = [f"and {len(texts) - _NAMED} more"] if len(texts) > _NAMED else []
    return "; ".join([*texts[:_NAMED], *more])


@rule(ERROR, "a device that is another one on the destination", "run", "container", "there")
def device_differs(case: Case) -> _Found:
    _container, there = case.both_sides()
    nodes = [node for node in there.get("other_devices") or () if _is_dangerous(node)]
    if nodes:
        yield (
            (
                "The copy's device nodes keep the numbers that they have on the source, and these are other devices on the "
                f"destination: {_devices(nodes)}."
            ),
            (
                "Re-create the container without these devices or without --privileged, or remove the nodes in it (rm) where it "
                "uses none of them."
            ),
        )


@rule(WARNING, "devices of a privileged container that are others on the destination", "run", "container", "there")
def device_nodes_differ(case: Case) -> _Found:
    _container, there = case.both_sides()
    nodes = [node for node in there.get("other_devices") or () if not _is_dangerous(node)]
    if nodes:
        yield (
            (
                "The container is privileged and has all devices of its host. The copy's device nodes keep the numbers of the "
                f"source, and these are other devices on the destination: {_devices(nodes)}."
            ),
            "Make sure that it uses none of them.",
        )


@rule(ERROR, "an AppArmor profile that the destination has not loaded", "criu/lsm.c", "container", "there")
def apparmor_profile_missing(case: Case) -> _Found:
    _container, there = case.both_sides()
    profile = case.inspect.get("AppArmorProfile") or ""
    # The engine loads its own when it needs it.
    if there["apparmor_profiles"] is not None and profile not in (
        "",
        "unconfined",
        "docker-default",
        *there["apparmor_profiles"],
    ):
        yield (
            f"The container is under the AppArmor profile {profile}, which is not loaded on the destination.",
            "Load it there (apparmor_parser).",
        )
