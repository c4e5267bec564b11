# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a host has for a container that is to come: its name, image, networks, addresses, ports, volumes, and places to mount.

Only looked at; nothing is made. The result is plain data for the rules of ``_preflight/rules/destination.py``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import typing as t

from ..._base import durable
from ..._docker import host_files, left_data, mount_users, old_copy_names
from ..._docker import images as docker_images
from ..._docker import volumes as docker_volumes
from ..._docker.socket import Asks
from ..._host import filesystems, process_resources, system_directories
from ..._network import sockets as network_sockets
from ..._session import lineage
from ..._session import session as sessions
from ..._session.arrivals import Arrivals
from . import container as facts_of_container
from . import device_nodes

Facts = dict[str, t.Any]
Wanted = t.Mapping[str, t.Any]

# Networks whose subnet is that of the wire on which the host is, too: that it has a route there is what they are for.
_ON_THE_WIRE = ("macvlan", "ipvlan")
# A device of a VLAN, as the engine names and makes it where its device is there (parseVlan in its source).
_VLAN = re.compile(r"([^.]+)\.([0-9]{1,4})")
_LAST_VLAN = 4094

_PROFILES = "/sys/kernel/security/apparmor/profiles"


def has_content(path: str) -> bool:
    """Whether there is anything at a path: for a directory, anything in it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return bool(os.listdir(path))
    return os.path.exists(path)


def _users(asks: Asks, volume: str, own: t.Container[str]) -> list[str]:
    """The containers that use a volume, without the container's own old copies."""
    return [one["Names"][0].lstrip("/") for one in asks.containers({"volume": volume}) if one["Id"] not in own]


def _is_shared(volume: Wanted) -> bool:
    """Whether a volume's content is seen by other hosts too; it need not be mounted now."""
    options = volume.get("Options") or {}
    # That of a bind mount: what a share is called is no path.
    places = [volume["Mountpoint"], *(one for one in (str(options.get("device") or ""),) if one.startswith("/"))]
    return any(filesystems.is_shared(durable.filesystem_type(place), options) for place in places)


def volumes(asks: Asks, entries: t.Iterable[Wanted], own_data: left_data.Notes, own_ids: t.Container[str]) -> Facts:
    """Of each volume that the container has: None where there is none of that name, else what it is.

    :param own_data: what earlier moves of this container have noted of the data that they left here.
    :param own_ids: ids of the container's own old copies, which may go on using it.
    """
    facts: Facts = {}
    for entry in entries:
        if entry["kind"] != "volume":
            continue
        found = asks.find_volume(entry["name"])
        facts[entry["name"]] = found and _volume(asks, entry, found, own_data, own_ids)
    return facts


def _volume(asks: Asks, entry: Wanted, found: Wanted, own_data: left_data.Notes, own_ids: t.Container[str]) -> Facts:
    path, content = found["Mountpoint"], has_content(found["Mountpoint"])
    own = left_data.is_left(own_data, entry["name"], path, str(found.get("CreatedAt") or ""))
    return {
        "driver": found.get("Driver"),
        "options": facts_of_container.options_digest(found.get("Options")),
        "shared": _is_shared(found),
        "has_content": content and not own,
        "has_base": content,
        "used_by": _users(asks, entry["name"], own_ids) if entry["travels"] else [],
    }


def binds(asks: Asks, entries: t.Iterable[Wanted], own_data: left_data.Notes, own_ids: t.Container[str]) -> Facts:
    """Of each host path that the container mounts: what is there, and where its content travels who uses it.

    :param own_data: what earlier moves of this container have noted of the data that they left here.
    :param own_ids: ids of the container's own old copies, which may go on using it.
    """
    facts: Facts = {}
    uses: list[mount_users.Use] | None = None
    for entry in entries:
        if entry["kind"] == "bind":
            path = os.path.normpath(entry["path"])
            travels = bool(entry.get("travels"))
            content, own = has_content(path), left_data.is_left(own_data, path, path)
            if travels and uses is None:
                uses = mount_users.uses(asks, own_ids, running=True)
            facts[path] = {
                "exists": os.path.lexists(path),
                "is_directory": os.path.isdir(path),
                "is_file": os.path.isfile(path),
                "has_content": content and not own,
                "has_base": content,
                "leads_to": os.path.realpath(path) if os.path.islink(path) else "",
                "host_directory": system_directories.written_to(path, is_file=entry.get("form") == docker_volumes.FILE),
                "reaches_shared": filesystems.reaches_shared(path),
                "used_by": mount_users.overwritten(uses or [], path, own=own) if travels else [],
            }
    return facts


def taken_by_moves(asks: Asks, entries: t.Iterable[Wanted], arrivals: Arrivals) -> dict[str, list[str]]:
    """The volumes and paths, of those whose content travels, into which other moves bring something now: ids of their sessions.

    A volume need not be there yet: the other session may be about to make it.
    """
    taken: dict[str, list[str]] = {}
    for entry in entries:
        if entry["travels"]:
            if entry["kind"] == "volume":
                name, path = entry["name"], (asks.find_volume(entry["name"]) or {}).get("Mountpoint")
                found = {*arrivals.into_name(name), *(arrivals.into_path(path) if path else ())}
            else:
                name = os.path.normpath(entry["path"])
                found = set(arrivals.into_path(name))
            if found:
                taken[name] = sorted(found)
    return taken


def _addresses_in_use(network: Wanted) -> list[str]:
    found = []
    for endpoint in (network.get("Containers") or {}).values():
        for key in ("IPv4Address", "IPv6Address"):
            address = (endpoint.get(key) or "").partition("/")[0]
            if address:
                found.append(address)
    return sorted(found)


def _networks(asks: Asks, wanted: t.Iterable[Wanted]) -> Facts:
    facts: Facts = {}
    for network in wanted:
        found = asks.find_network(network["name"])
        facts[network["name"]] = found and {
            **facts_of_container.network_facts(found),
            "addresses_in_use": _addresses_in_use(found),
            "members": sorted(facts_of_container.members(found).values()),
        }
    return facts


def parse_routes(text: str) -> list[str]:
    """The subnets of /proc/net/route, the default route left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] != "00000000":
            address, mask = (int.from_bytes(bytes.fromhex(fields[n]), "little") for n in (1, 7))
            with contextlib.suppress(ValueError):
                found.append(str(ipaddress.ip_network((address, bin(mask).count("1")), strict=False)))
    return sorted(set(found))


def overlapping(subnets: t.Iterable[str], others: t.Iterable[str]) -> list[str]:
    """Those of the others that share addresses with one of the subnets."""
    own = [ipaddress.ip_network(one, strict=False) for one in subnets]
    return sorted(
        {
            other
            for other in others
            for network in own
            if network.version == ipaddress.ip_network(other, strict=False).version
            and network.overlaps(ipaddress.ip_network(other, strict=False))
        }
    )


def overlaps(
    wanted: t.Iterable[Wanted], found: t.Mapping[str, t.Any], routes: t.Collection[str]
) -> dict[str, list[str]]:
    """What of this host's routes shares addresses with a network that would have to be made, by the name of the network.

    :param wanted: the container's networks.
    :param found: those that are here, by name; None for one that is not.
    """
    return {
        one["name"]: overlapping(one["subnets"], routes)
        for one in wanted
        if found[one["name"]] is None and one["driver"] not in _ON_THE_WIRE
    }


def missing_parents(wanted: t.Iterable[Wanted], found: t.Mapping[str, t.Any], devices: t.Collection[str]) -> list[str]:
    """The devices on which a network would have to be made and that are neither here nor made by the engine.

    :param wanted: see :func:`overlaps`.
    :param found: see :func:`overlaps`.
    :param devices: the network devices of this host.
    """

    def can_be_had(device: str) -> bool:
        vlan = _VLAN.fullmatch(device)
        made = vlan is not None and vlan.group(1) in devices and 1 <= int(vlan.group(2)) <= _LAST_VLAN
        return made or device in devices

    parents = (one["parent"] for one in wanted if found[one["name"]] is None and one["parent"])
    return sorted({parent for parent in parents if not can_be_had(parent)})


def _devices() -> list[str]:
    """The network devices of this host."""
    with contextlib.suppress(OSError):
        return os.listdir("/sys/class/net")
    return []


def _listening() -> list[Facts]:
    """What listens in the network of this host: protocol, address, port."""
    found = []
    for protocol, states in (("tcp", (network_sockets.LISTEN,)), ("udp", (network_sockets.CLOSED,))):
        for version in ("", "6"):
            text = process_resources.read(f"/proc/net/{protocol}{version}")
            for one in network_sockets.parse_inet(protocol, text):
                if one.state in states:
                    found.append({"protocol": protocol, "address": str(one.address), "port": one.port})
    return found


def _published(asks: Asks, own_ids: t.Container[str]) -> list[Facts]:
    """The ports that running containers publish here, which no program needs to listen on."""
    return [
        {
            "protocol": port.get("Type"),
            "address": port.get("IP") or "0.0.0.0",  # noqa: S104 - as the engine means it
            "port": port["PublicPort"],
            "container": one["Names"][0].lstrip("/"),
        }
        for one in asks.containers(running=True)
        if one["Id"] not in own_ids
        for port in one.get("Ports") or []
        if port.get("PublicPort")
    ]


def taken(ports: t.Iterable[Wanted], listening: t.Iterable[Wanted]) -> list[str]:
    """Which of the ports that the container publishes are taken, and by whom, each as a text.

    :param ports: ``port`` ("80/tcp"), ``host_ip``, ``host_port``.
    :param listening: ``protocol``, ``address``, ``port``, and ``container`` where it is one.
    """
    taken_by = {}
    for port in ports:
        protocol = str(port["port"]).partition("/")[2] or "tcp"
        for one in listening:
            if one["port"] != port["host_port"] or one["protocol"] != protocol or not port["host_port"]:
                continue
            here, there = ipaddress.ip_address(one["address"]), port["host_ip"]
            if not there or ipaddress.ip_address(there).is_unspecified or here.is_unspecified or str(here) == there:
                who = f"container {one['container']}" if one.get("container") else "a program of the host"
                key = f"{protocol} port {port['host_port']}"
                if key not in taken_by or one.get("container"):
                    taken_by[key] = f"{key} ({who})"
    return sorted(taken_by.values())


def _old_copies_in_use(asks: Asks, past: t.Iterable[sessions.Session]) -> list[Facts]:
    """The old copies that earlier moves of the container have left here and that a move back must not remove."""
    found = []
    for earlier in past:
        old = asks.find(earlier.subject_id)
        why = old_copy_names.why_in_use(earlier, old) if old else ""
        if why:
            found.append({"why": why, "remedy": old_copy_names.remedy(earlier)})
    return found


def gather(asks: Asks, wanted: Wanted, *, session: str = "") -> Facts:
    """What this host has for a container.

    :param wanted: what ``facts_of_container.gather`` returned on the source.
    :param session: the id of the session that is about to make it; empty where there is none yet.
    """
    past = lineage.past_of(wanted["ancestry"])
    own_ids = {one.subject_id for one in past}
    own_data: dict[str, list[Wanted]] = {}
    for one in past:
        for name, noted in one.facts.get("left_data", {}).items():
            own_data.setdefault(name, []).append(noted)
    taken_by = asks.find(wanted["name"])
    image = docker_images.find(asks, wanted["image"])
    info = asks.info()
    init = host_files.find_init(info.get("InitBinary"))
    routes = parse_routes(process_resources.read("/proc/net/route"))
    networks = _networks(asks, wanted["networks"])
    own_addresses = network_sockets.parse_own_addresses(
        process_resources.read("/proc/net/fib_trie"), process_resources.read("/proc/net/if_inet6")
    )
    host = wanted["inspect"].get("HostConfig") or {}
    devices = [str(one.get("PathOnHost") if isinstance(one, dict) else one) for one in host.get("Devices") or []]
    return {
        "old_copies_in_use": _old_copies_in_use(asks, past),
        "old_layer": any(asks.find(one) is not None for one in own_ids),
        "name_status": taken_by["State"]["Status"] if taken_by else None,
        "image": {"present": image is not None},
        "networks": networks,
        "overlaps": overlaps(wanted["networks"], networks, routes),
        "missing_parents": missing_parents(wanted["networks"], networks, _devices()),
        "addresses": sorted(map(str, own_addresses)),
        "ports_taken": taken(wanted["ports"], [*_listening(), *_published(asks, own_ids)]),
        "volumes": volumes(asks, wanted["volumes"], own_data, own_ids),
        "binds": binds(asks, wanted["volumes"], own_data, own_ids),
        "taken_by": taken_by_moves(asks, wanted["volumes"], Arrivals(session)),
        "missing_places": [
            path for path in (wanted.get("kernel_mounts") or {}).get("masked", []) if not os.path.lexists(path)
        ],
        "missing_devices": [path for path in devices if not os.path.exists(path)],
        # The spec that an open session has sent does not tell of them: it was the preflight that asked.
        "other_devices": device_nodes.differing(wanted.get("device_nodes") or ()),
        "init": init,
        "init_leads_to": os.path.realpath(init) if init and os.path.islink(init) else "",
        "apparmor_profiles": _profiles(),
    }


def _profiles() -> list[str] | None:
    """The loaded AppArmor profiles; None where the kernel does not tell."""
    text = process_resources.read(_PROFILES)
    return sorted(line.rpartition(" (")[0] for line in text.splitlines()) if text else None
