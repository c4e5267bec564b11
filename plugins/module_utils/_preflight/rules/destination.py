# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What of the destination stands in the way of one container: names, networks, ports, data, places to mount, and "
"room. Pure rules."""

from __future__ import annotations

import ipaddress
import os
import typing as t

from ..._base.versions import parse_version
from ..._docker import host_files
from ..._docker import volumes as docker_volumes
from ..._docker.spec.networks import ANY_ADDRESS, networks
from ..._network import sockets as network_sockets
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

# Host directories that no migration may write into, whatever a user names.
SYSTEM_DIRECTORIES = frozenset(
    {
        *(
            "/",
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/home",
            "/lib",
            "/lib64",
            "/proc",
            "/root",
            "/run",
            "/sbin",
            "/sys",
            "/usr",
        ),
        *("/tmp", "/var", "/var/lib", "/var/lib/docker", "/var/run"),  # noqa: S108
    }
)


def _both(case: Case) -> tuple[Facts, Facts]:
    if case.container is None or case.there is None:
        raise ValueError("a rule about the destination of a container was asked without them")
    return case.container, case.there


# -------------------------------------------------------------------------------------------------- the container itself


@rule(ERROR, "a container of that name on the destination", "run", "container", "there", volatile=True)
def name_taken(case: Case) -> _Found:
    container, there = _both(case)
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
    _container, there = _both(case)
    for one in there["old_copies_in_use"]:
        yield f"{one['why']} on the destination; the move would take its volumes, and remove it.", one["remedy"]


@rule(ERROR, "an image that neither host has", "criu#1049", "container", "there")
def image_missing(case: Case) -> _Found:
    container, there = _both(case)
    image = container["image"]
    if not there["image"]["present"] and not image["identity"] and not image["digests"]:
        yield (
            f"The container's image {image['reference']} is on neither host: the source's engine has lost it (docker rmi -f).",
            "Bring it to the destination (docker pull, docker load) with the id that docker inspect shows.",
        )


@rule(INFO, "an image that has to travel", "run", "container", "there")
def image_travels(case: Case) -> _Found:
    container, there = _both(case)
    image = container["image"]
    if not there["image"]["present"] and (image["identity"] or image["digests"]):
        yield (
            f"The image {image['reference']} ({image['size'] >> 20} MiB) is not on the destination.",
            "Nothing: it is pulled by its digest there, or sent by the source while the container runs.",
        )


@rule(ERROR, "what the destination's engine cannot express", "moby's API history", "destination", "container", "there")
def cannot_recreate(case: Case) -> _Found:
    container, _there = _both(case)
    api = (case.destination or {})["docker"].get("api_version") or ""
    known = [version for version in container["unsupported_fields"] if parse_version(version) <= parse_version(api)]
    # What the newest API that both know could not do.
    newest = max(known, key=parse_version, default="")
    if newest and (newest == api or parse_version(api) > (1, 51)):
        told = "; ".join(container["unsupported_fields"][newest])
        yield (
            f"The destination's engine (API {api}) cannot express all of the container: {told}.",
            "Bring a newer engine to the destination.",
        )


# --------------------------------------------------------------------------------------------------------------- network


@rule(ERROR, "a network of a swarm", "by reading", "container", "there")
def network_unsupported(case: Case) -> _Found:
    for network in (case.container or {})["networks"]:
        if network["scope"] == "swarm" or network["ingress"]:
            yield (
                f"Network {network['name']} belongs to a swarm; its containers are moved by the swarm itself.",
                "Put the container on a network of its host.",
            )


def _asked(case: Case) -> t.Iterator[tuple[str, list[str]]]:
    """Networks of the container, each with the static addresses that it asks for."""
    for network in networks(case.inspect):
        yield network.name, [one for one in (network.ipv4_requested, network.ipv6_requested) if one]


@rule(ERROR, "a network of the same name and another kind", "run", "container", "there")
def network_differs(case: Case) -> _Found:
    container, there = _both(case)
    here = {network["name"]: network for network in container["networks"]}
    for name, addresses in _asked(case):
        found = there["networks"].get(name)
        if found is None or name not in here:
            continue
        if found["driver"] != here[name]["driver"]:
            yield (
                f"Network {name} has the driver {here[name]['driver']} on the source and {found['driver']} on the destination.",
                "Make that network anew there.",
            )
            continue
        for address in addresses:
            if not any(_inside(address, subnet) for subnet in found["subnets"]):
                yield (
                    (
                        f"The container has the static address {address} on network {name}, which the destination's "
                        "network of that "
                        f"name ({', '.join(found['subnets']) or 'no subnet'}) does not hold."
                    ),
                    "Make that network anew there.",
                )


def _inside(address: str, subnet: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)


@rule(ERROR, "a static address that another container has there", "run", "container", "there", volatile=True)
def address_in_use(case: Case) -> _Found:
    _container, there = _both(case)
    for name, addresses in _asked(case):
        for address in set(addresses) & set((there["networks"].get(name) or {}).get("addresses_in_use", [])):
            yield (
                f"The container's static address {address} on network {name} is in use by another container of the destination.",
                "Stop that container, or give it another address.",
            )


@rule(ERROR, "a network whose addresses the destination uses otherwise", "run", "container", "there")
def network_overlaps(case: Case) -> _Found:
    _container, there = _both(case)
    for name, others in there["overlaps"].items():
        if others:
            yield (
                f"Network {name} has to be made on the destination, where its addresses are in use already: {', '.join(others)}.",
                "Take that network or route away there, or put the container on a network that both hosts have.",
            )


@rule(ERROR, "a network whose device the destination lacks", "run", "container", "there")
def network_parent_missing(case: Case) -> _Found:
    _container, there = _both(case)
    for parent in there["missing_parents"]:
        yield (
            f"A network of the container hangs on the device {parent}, which the destination does not have.",
            "Make the network there beforehand, on the device that leads to the same wire.",
        )


@rule(INFO, "a network that is made on the destination", "run", "container", "there")
def network_missing(case: Case) -> _Found:
    container, there = _both(case)
    missing = [one["name"] for one in container["networks"] if there["networks"].get(one["name"]) is None]
    if missing:
        yield (
            f"The destination lacks the network(s) {', '.join(missing)}.",
            "Nothing: they are made there as they are on the source.",
        )


# Networks on which containers find each other by no name.
_NAMELESS = ("bridge", "host", "none")


@rule(WARNING, "containers on the same network, which stay behind", "run", "container", "there")
def neighbours_stay(case: Case) -> _Found:
    container, there = _both(case)
    for network in container["networks"]:
        here = set(network.get("neighbours") or []) - set(
            (there["networks"].get(network["name"]) or {}).get("members") or []
        )
        if here and network["name"] not in _NAMELESS:
            yield (
                (
                    f"Other containers on the network {network['name']} stay behind: {', '.join(sorted(here))}. After the move "
                    f"they and {container['name']} do not find each other by name any more."
                ),
                (
                    "Move them to the same host as well, or have them find each other by other means (published ports, names in "
                    "DNS)."
                ),
            )


@rule(ERROR, "a published port that is taken", "run", "container", "there", volatile=True)
def port_taken(case: Case) -> _Found:
    _container, there = _both(case)
    if there["ports_taken"]:
        yield (
            f"Ports that the container publishes are taken on the destination: {', '.join(there['ports_taken'])}.",
            "Free them there (ss -lntup tells by whom), or re-create the container with others.",
        )


@rule(ERROR, "a published address that the destination does not have", "run", "container", "there")
def host_address_missing(case: Case) -> _Found:
    container, there = _both(case)
    wanted = {port["host_ip"] for port in container["ports"] if port["host_ip"] not in ANY_ADDRESS}
    missing = sorted(
        one for one in wanted if one not in there["addresses"] and not ipaddress.ip_address(one).is_loopback
    )
    if missing:
        yield (
            (
                f"Ports are published on {', '.join(missing)}, which the destination does not have: it could not start "
                "the container."
            ),
            "Give the destination that address, or re-create the container without it.",
        )


_NAMED = 3


@rule(
    ERROR,
    "sockets or addresses of IPv6, and a destination whose kernel has no IPv6",
    "socket(2), by reading",
    "destination",
    "container",
)
def ipv6_missing(case: Case) -> _Found:
    container = case.container or {}
    # Facts of another version do not tell.
    if (case.destination or {})["kernel"].get("ipv6", True):
        return
    addresses = [
        one for network in networks(case.inspect) for one in (network.ipv6_assigned, network.ipv6_requested) if one
    ]
    told = container.get("sockets")
    sockets = network_sockets.of_plain(told).six if told is not None else ()
    if sockets:
        named = ", ".join(str(one) for one in sockets[:_NAMED])
        more = f" and {len(sockets) - _NAMED} more" if len(sockets) > _NAMED else ""
        yield (
            (
                f"Programs have sockets of IPv6 open ({named}{more}), and the destination's kernel has no IPv6: they cannot be "
                "made there. One that listens on [::] is such a socket even where all its clients come by IPv4."
            ),
            (
                "Boot the destination with IPv6 (without ipv6.disable=1), or have the program listen on IPv4 alone (0.0.0.0, for "
                "Java -Djava.net.preferIPv4Stack=true)."
            ),
        )
    if addresses:
        yield (
            f"The container has the IPv6 address {addresses[0]}, and the destination's kernel has no IPv6.",
            "Boot the destination with IPv6 (without ipv6.disable=1), or put the container on a network without it.",
        )


# ------------------------------------------------------------------------------------------------------------------ data


def _foreign(what: str) -> Told:
    return (
        f"The {what} on the destination has content that no earlier move of this container put there.",
        "Remove it, or set migrate_overwrite_data: true to have it replaced.",
    )


@rule(
    ERROR,
    "data on the destination that is not the container's",
    "run",
    "container",
    "there",
    variable="migrate_overwrite_data",
)
def foreign_data(case: Case) -> _Found:
    container, there = _both(case)
    for entry in container["volumes"]:
        if not entry["travels"] or case.settings.overwrite_data:
            continue
        if entry["kind"] == "volume":
            if (there["volumes"].get(entry["name"]) or {}).get("has_content"):
                yield _foreign(f"volume {entry['name']}")
        elif there["binds"][os.path.normpath(entry["path"])]["has_content"]:
            yield _foreign(f"{entry['form']} {os.path.normpath(entry['path'])}")


@rule(ERROR, "a volume that containers of the destination use", "run", "container", "there", volatile=True)
def volume_used_there(case: Case) -> _Found:
    _container, there = _both(case)
    for name, found in there["volumes"].items():
        if found and found["used_by"]:
            yield (
                f"Volume {name} on the destination is used by the container(s) {', '.join(found['used_by'])} there.",
                "Remove them, or give them another volume.",
            )


@rule(
    ERROR,
    "a bind mount that running containers of the destination use",
    "by reading",
    "container",
    "there",
    volatile=True,
)
def bind_used_there(case: Case) -> _Found:
    _container, there = _both(case)
    for path, found in there["binds"].items():
        if found.get("used_by"):
            yield (
                (
                    f"{path} is used by the running container(s) {', '.join(found['used_by'])} of the destination, which mount "
                    "it, something in it, or a directory above it to write there: the move would delete files under them."
                ),
                (
                    "Stop them, or have them mount another directory (one above it read-only). If the files there are to stay, "
                    "take it out of migrate_bind_mounts."
                ),
            )


@rule(ERROR, "a volume of the same name and another kind", "run", "container", "there")
def volume_differs(case: Case) -> _Found:
    container, there = _both(case)
    for entry in container["volumes"]:
        found = there["volumes"].get(entry["name"]) if entry["kind"] == "volume" and entry["travels"] else None
        if found and (found["driver"] != "local" or found["options"] != entry["options"]):
            yield (
                f"The destination has a volume {entry['name']} of another kind (driver {found['driver']}, or other options).",
                "Remove it there, or make it as it is on the source.",
            )
        # Two hosts may call one share by two names. What is on the destination's own disk is no share.
        stays = there["volumes"].get(entry["name"]) if entry["kind"] == "volume" and not entry["travels"] else None
        if (
            stays
            and stays["driver"] == "local"
            and (stays["driver"], stays["options"]) != (entry["driver"], entry["options"])
            and not stays.get("shared", True)
        ):
            yield (
                (
                    f"Volume {entry['name']} is on other storage on the source (shared, or of the driver {entry['driver']}), "
                    "and the destination has a volume of that name on its own disk: the copy would go on with other data."
                ),
                "Remove it there, or make it as it is on the source.",
            )


@rule(
    ERROR,
    "a bind mount whose source the destination lacks",
    "run",
    "container",
    "there",
    variable="migrate_bind_mounts",
)
def bind_mount_missing(case: Case) -> _Found:
    container, there = _both(case)
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        if entry["kind"] == "bind" and not entry["travels"] and not there["binds"][path]["exists"]:
            yield (
                f"The container mounts {path} of its host at {entry['destination']}; that does not exist on the destination.",
                "Provide it there, or name it in migrate_bind_mounts to have its content moved."
                if entry["form"] in (docker_volumes.DIRECTORY, docker_volumes.FILE)
                else "Provide it there; it is neither a directory nor a file of the same name, so its content cannot be moved.",
            )


def _is_other_file(entry: Facts, found: Facts) -> bool:
    """Whether what is to become a file is a link or a device there: it would be replaced, not what it leads to."""
    return bool(entry["form"] == docker_volumes.FILE and (found["leads_to"] or not found["is_file"]))


@rule(ERROR, "a bind mount into which no migration writes", "run", "container", "there")
def bind_mount_refused(case: Case) -> _Found:
    container, there = _both(case)
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        if entry["kind"] != "bind" or not entry["travels"]:
            continue
        found = there["binds"][path]
        remedy = "Leave it out of migrate_bind_mounts and provide it on the destination."
        if path in SYSTEM_DIRECTORIES:
            yield f"{path} is a directory of the host itself; a migration does not write there.", remedy
        elif entry["form"] not in (docker_volumes.DIRECTORY, docker_volumes.FILE):
            yield (
                (
                    f"{path} is neither a directory nor a file of that name on the source (a socket, a device, a link to another "
                    "name); only these have content that can be moved."
                ),
                remedy,
            )
        elif found["exists"] and (
            found["is_directory"] != (entry["form"] == docker_volumes.DIRECTORY) or _is_other_file(entry, found)
        ):
            yield f"{path} is a {entry['form']} on the source and something else on the destination.", remedy
        elif found["exists"] and entry.get("reaches_shared") and found.get("reaches_shared"):
            yield (
                (
                    f"{path} is on storage that is shared between hosts, or has some mounted in it, on the source and on the "
                    "destination: what arrived there would delete and replace the files that the container is using."
                ),
                remedy,
            )


@rule(WARNING, "a volume of a plugin, whose content stays", "by reading", "container", "there")
def volume_stays(case: Case) -> _Found:
    container, there = _both(case)
    for entry in container["volumes"]:
        if entry["kind"] == "volume" and not entry["travels"] and not entry["shared"]:
            found = (
                "The destination has one of that name." if there["volumes"].get(entry["name"]) else "It is made there."
            )
            yield (
                (
                    f"Volume {entry['name']} is of the driver {entry['driver']}, and only that knows whether both hosts see the "
                    f"same content. Nothing of it is sent. {found}"
                ),
                "See that the driver has the content on the destination too, or copy it there yourself before the move.",
            )


@rule(WARNING, "a bind mount whose content stays", "run", "container", "there", variable="migrate_bind_mounts")
def bind_mount_stays(case: Case) -> _Found:
    container, there = _both(case)
    for entry in container["volumes"]:
        path = os.path.normpath(entry["path"])
        if entry["kind"] == "bind" and not entry["travels"] and not entry["shared"] and there["binds"][path]["exists"]:
            yield (
                (
                    f"The container goes on with what lies at {path} on the destination; a file that it has open there "
                    "has to be the same."
                ),
                "See that both are the same, or name it in migrate_bind_mounts to have its content moved."
                if entry["form"] in (docker_volumes.DIRECTORY, docker_volumes.FILE)
                else "See that both are the same.",
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
    container, there = _both(case)
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
    _container, there = _both(case)
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
    _container, there = _both(case)
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
    _container, there = _both(case)
    if there["missing_devices"]:
        yield (
            f"The container has devices that the destination lacks: {', '.join(there['missing_devices'])}.",
            "Provide them there, or re-create the container without them.",
        )


@rule(ERROR, "an AppArmor profile that the destination has not loaded", "criu/lsm.c", "container", "there")
def apparmor_profile_missing(case: Case) -> _Found:
    _container, there = _both(case)
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
