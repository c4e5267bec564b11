# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What of a container decides whether and how it can move, as its own host tells it.

The result is plain data without secrets: no environment, no arguments, no label values, no options of volumes. It goes to the
control node for the preflight, and the same is judged on the source itself when a session opens
(``_subjects/container/examine.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import typing as t

from ..._base import valid_names
from ..._base.errors import MigrationError
from ..._docker import directories, host_files, replaced_mounts, starting_units
from ..._docker import images as docker_images
from ..._docker import volumes as docker_volumes
from ..._docker.socket import Asks
from ..._docker.spec import create as spec_create
from ..._docker.spec import mounts as spec_mounts
from ..._docker.spec import networks as spec_networks
from ..._host import (
    deleted_files,
    huge_pages,
    kernel_keys,
    mountinfo,
    open_databases,
    process_resources,
    process_sockets,
    processors,
    unix_peers,
)
from ..._host.tasks import TaskGroup
from ..._network import fence as network_fence
from ..._network import sockets as network_sockets
from ..._session import lineage
from ..._surroundings import memory_files
from . import device_nodes
from . import network as facts_of_network

Facts = dict[str, t.Any]
Inspect = t.Mapping[str, t.Any]

# What rules read of inspect data. Nested where only a part of an object may be reported.
_TOP = ("Id", "Name", "Image", "Platform", "HostnamePath", "HostsPath", "ResolvConfPath", "LogPath", "AppArmorProfile")
_STATE = ("Status", "Running", "Paused", "Restarting", "Dead", "Pid")
_CONFIG = ("Image", "Tty", "OpenStdin", "AttachStdin", "NetworkDisabled", "MacAddress", "ExposedPorts")
_HOST = (
    *(
        "NetworkMode",
        "PidMode",
        "IpcMode",
        "UsernsMode",
        "Cgroup",
        "CgroupnsMode",
        "UTSMode",
        "AutoRemove",
        "Isolation",
    ),
    *(
        "Runtime",
        "Capabilities",
        "Privileged",
        "Devices",
        "PublishAllPorts",
        "PortBindings",
        "Init",
        "Tmpfs",
        "Binds",
        "Links",
    ),
)
_MOUNT = ("Type", "Name", "Source", "Destination", "Driver", "RW", "Propagation", "Mode")
_ENDPOINT = ("NetworkID", "IPAddress", "GlobalIPv6Address", "MacAddress", "IPAMConfig", "Links")
# Labels by which others manage a container: it is reported that they are there, but not their content.
_MANAGERS = ("com.docker.swarm.", "io.kubernetes.", "com.docker.compose.project")
# Engines whose API is asked for, to see which fields of the container each of them would not know.
_APIS = ("1.40", "1.41", "1.42", "1.43", "1.44", "1.45", "1.46", "1.47", "1.48", "1.49", "1.50", "1.51")
# How many connections of a kind a message names.
_NAMED = 8
# Between two looks at the connections: what is there in both lasts.
_LASTING_SECONDS = 0.3
# For a process of `docker exec` to end by itself, and at most for one of a health check.
_EXEC_SECONDS = 1.0
_CHECK_SECONDS = 5.0
# Of a health check that names none, in nanoseconds as inspect data have it (defaultProbeTimeout in the engine's source).
_DEFAULT_TIMEOUT = 30e9


def _only(data: t.Mapping[str, t.Any] | None, names: t.Iterable[str]) -> Facts:
    return {name: data[name] for name in names if name in data} if data else {}


def decisive(inspect: Inspect) -> Facts:
    """The part of inspect data that rules read; it has the same form, and nothing in it is a secret."""
    config, host = inspect.get("Config") or {}, inspect.get("HostConfig") or {}
    kept = _only(inspect, _TOP)
    kept["State"] = _only(inspect.get("State"), _STATE)
    kept["Config"] = _only(config, _CONFIG)
    kept["Config"]["Labels"] = {name: "" for name in config.get("Labels") or {} if name.startswith(_MANAGERS)}
    test = (config.get("Healthcheck") or {}).get("Test") or []
    kept["Config"]["Healthcheck"] = {"Test": test[:1]}
    kept["HostConfig"] = _only(host, _HOST)
    kept["HostConfig"]["RestartPolicy"] = _only(host.get("RestartPolicy"), ("Name",))
    kept["HostConfig"]["LogConfig"] = _only(host.get("LogConfig"), ("Type",))
    kept["HostConfig"]["DeviceRequests"] = [{} for _request in host.get("DeviceRequests") or []]
    kept["HostConfig"]["Annotations"] = dict.fromkeys(set(host.get("Annotations") or {}) & {"org.criu.config"}, "")
    kept["HostConfig"]["Mounts"] = [_only(one, ("Type", "Source", "Target")) for one in host.get("Mounts") or []]
    kept["Mounts"] = [_only(one, _MOUNT) for one in inspect.get("Mounts") or []]
    network = inspect.get("NetworkSettings") or {}
    endpoints = network.get("Networks") or {}
    kept["NetworkSettings"] = {
        "Ports": network.get("Ports") or {},
        "Networks": {name: _only(endpoint, _ENDPOINT) for name, endpoint in endpoints.items()},
    }
    return kept


def options_digest(options: t.Mapping[str, t.Any] | None) -> str:
    """By which two volumes' options can be compared without telling them: those of network shares hold passwords."""
    return hashlib.sha256(json.dumps(dict(options or {}), sort_keys=True).encode()).hexdigest() if options else ""


def tree_bytes(path: str, deadline: float) -> tuple[int, bool]:
    """What a directory takes on its disk, and whether all of it was counted before the time was up.

    :param deadline: by ``time.monotonic()``.
    """
    total, waiting = 0, [path]
    while waiting:
        if time.monotonic() > deadline:
            return total, False
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total, True


def _volume_facts(asks: Asks, inspect: Inspect, bind_mounts: t.Sequence[str]) -> tuple[list[Facts], list[str]]:
    """The volumes and binds without what may be secret of them, and which of the named bind mounts are none of it."""
    sources = {mount.source for mount in spec_mounts.mounts(inspect) if mount.kind == "bind"}
    known = [path for path in bind_mounts if os.path.normpath(path) in sources]
    unknown = [path for path in bind_mounts if path not in known]
    return [_volume(entry) for entry in docker_volumes.of_container(asks, inspect, known)], unknown


def _volume(entry: t.Mapping[str, t.Any]) -> Facts:
    create = entry["create"]
    return {
        **{key: value for key, value in entry.items() if key != "create"},
        "driver": create["Driver"] if create else "",
        "options": options_digest(create["DriverOpts"]) if create else "",
    }


def of_spec(spec: t.Mapping[str, t.Any], name: str, ancestry: t.Sequence[str]) -> Facts:
    """What rules about a destination read of a container, out of the spec that its source has sent.

    :param name: of the container.
    :param ancestry: ids that it had before.
    """
    return {
        "name": name,
        "ancestry": list(ancestry),
        "inspect": spec["inspect"],
        "image": spec["image"],
        "networks": [{"name": one["Name"], **network_facts(one)} for one in spec["networks"]],
        "ports": _ports(spec["inspect"]),
        "volumes": [_volume(entry) for entry in spec["volumes"]],
        "unsupported_fields": {},
    }


def _ports(inspect: Inspect) -> list[Facts]:
    return [dataclasses.asdict(port) for port in spec_networks.published_ports(inspect)]


def _storage(inspect: Inspect) -> tuple[str, str | None]:
    """Where the writable layer lies, or why nobody can say."""
    try:
        return directories.upper_directory(inspect), None
    except MigrationError as exc:
        return "", exc.message


def _unsupported(inspect: Inspect) -> dict[str, list[str]]:
    """What engines of each API could not express of the container; none where all can."""
    unsupported = {}
    for api in _APIS:
        # One that cannot be made again at all is another rule's business.
        with contextlib.suppress(MigrationError):
            plan = spec_create.creation_parameters(inspect, image_id="", api_version=api)
            fields = [f"{note['field']}: {note['why']}" for note in plan["unsupported_fields"]]
            if fields:
                unsupported[api] = fields
    return unsupported


def _networks(asks: Asks, inspect: Inspect) -> list[Facts]:
    networks = []
    for endpoint in spec_networks.networks(inspect):
        found = asks.find_network(endpoint.name) or {}
        others = [name for container, name in members(found).items() if container != inspect["Id"]]
        networks.append({"name": endpoint.name, **network_facts(found), "neighbours": sorted(others)})
    return networks


def members(network: Inspect) -> dict[str, str]:
    """The names of the running containers that are on a network, by their ids."""
    return {
        identity: str(one.get("Name") or "")
        for identity, one in (network.get("Containers") or {}).items()
        # An endpoint of the engine's own (ingress) has no container.
        if one.get("Name") and not identity.startswith("ep-")
    }


def network_facts(network: Inspect) -> Facts:
    """What of a network's inspect data decides."""
    options = network.get("Options") or {}
    return {
        "driver": network.get("Driver") or "bridge",
        "scope": network.get("Scope") or "local",
        "ingress": bool(network.get("Ingress")),
        "subnets": sorted(
            one["Subnet"] for one in (network.get("IPAM") or {}).get("Config") or [] if one.get("Subnet")
        ),
        "parent": options.get("parent") or "",
    }


def _used_bytes(init: int, places: t.Iterable[str]) -> int:
    total = 0
    for place in places:
        with contextlib.suppress(OSError):
            filesystem = os.statvfs(f"/proc/{init}/root{place}")
            total += (filesystem.f_blocks - filesystem.f_bfree) * filesystem.f_frsize
    return total


def _used_files(init: int, places: t.Iterable[str]) -> int:
    """How many files there are in file systems in memory; none of those that count none (``nr_inodes=0``)."""
    total = 0
    for place in places:
        with contextlib.suppress(OSError):
            filesystem = os.statvfs(f"/proc/{init}/root{place}")
            total += filesystem.f_files - filesystem.f_ffree
    return total


def checkpoint_bytes(inspect: Inspect) -> int:
    """What a checkpoint of a running container takes at most: its memory, file systems in memory, and files without a name."""
    group, init = TaskGroup.of_container(inspect), int(inspect["State"]["Pid"])
    mounts = mountinfo.parse(process_resources.read(f"/proc/{init}/mountinfo"))
    places = mountinfo.memory_places(mounts, _places(inspect, init).binds)
    return group.resident_bytes + _used_bytes(init, places) + deleted_files.deleted_files(group.pids()).total


def _exec_patience(inspect: Inspect) -> float:
    """Seconds within which processes of ``docker exec`` that come and go have ended: longer where there is a health check.

    Those of message brokers and databases start a program that takes some seconds. The freeze has more patience.
    """
    check = (inspect.get("Config") or {}).get("Healthcheck") or {}
    if (check.get("Test") or ["NONE"])[0] == "NONE":
        return _EXEC_SECONDS
    timeout = float(check.get("Timeout") or _DEFAULT_TIMEOUT) / 1e9
    return max(_EXEC_SECONDS, min(timeout, _CHECK_SECONDS))


def _lasting_foreign(group: TaskGroup, init: int, seconds: float) -> list[str]:
    """Processes of ``docker exec`` that do not end within some seconds, as those of a health check do."""
    deadline = time.monotonic() + seconds
    while True:
        foreign = group.foreign(init)
        if not foreign or time.monotonic() >= deadline:
            return foreign
        time.sleep(0.1)


def _lasting_databases(found: t.Iterable[Facts], group: TaskGroup) -> list[Facts]:
    """Those of the open databases that stay open, one after the other."""
    databases = open_databases.lasting([open_databases.Database(**one) for one in found], group.pids)
    return [one._asdict() for one in databases]


class _Places(t.NamedTuple):
    """Where mounts are in a container as the kernel has them, symbolic links followed."""

    own: list[str]
    """Those that the container was created with."""
    binds: list[str]
    """Those of them that are volumes and bind mounts: all but the tmpfs."""
    engines: list[str]
    """What the engine and runc mount by themselves, wherever that lies."""


# The rest of what they mount is below no bind mount: where /dev is one, the engine leaves out its own pts and mqueue.
_ENGINES_PLACES = (
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/dev/console", "/sys/fs/cgroup"),  # noqa: S108
    host_files.INIT_PLACE,
)


def _places(inspect: Inspect, init: int) -> _Places:
    """The places of a running container's mounts.

    :param init: its first process.
    """
    host = inspect.get("HostConfig") or {}
    hidden = [*(host.get("MaskedPaths") or ()), *(host.get("ReadonlyPaths") or ())]
    mounts = spec_mounts.mounts(inspect)
    every = [*(mount.destination for mount in mounts), *_ENGINES_PLACES, *hidden]
    links = host_files.real_places(f"/proc/{init}/root", every)

    def real(places: t.Iterable[str]) -> list[str]:
        return [links.get(place, place) for place in places]

    return _Places(
        real(mount.destination for mount in mounts),
        real(mount.destination for mount in mounts if mount.kind != "tmpfs"),
        real([*_ENGINES_PLACES, *hidden]),
    )


def _foreign_mounts(tables: t.Iterable[t.Sequence[mountinfo.KernelMount]], places: _Places) -> list[str]:
    found = (one for table in tables for one in mountinfo.foreign(table, places.own, places.binds))
    return sorted({f"{one.place} ({one.kind})" for one in found})


def _below_binds(mounts: t.Sequence[mountinfo.KernelMount], places: _Places) -> list[Facts]:
    found = mountinfo.below_binds(mounts, places.own, places.binds, places.engines)
    return [
        {"place": place, "kind": kind, "below": outer}
        for place, kind, outer in sorted({(one.place, one.kind, outer) for one, outer in found})
    ]


def _replaced(
    inspect: Inspect,
    kernel_mounts: t.Sequence[mountinfo.KernelMount],
    inside: t.Iterable[t.Sequence[mountinfo.KernelMount]],
    init: int,
) -> list[Facts]:
    """The mounts whose source on the host has been replaced since the container started.

    :param inside: the mounts of programs that have mounts of their own.
    """
    parts = {
        str(one.get("Target"))
        for one in (inspect.get("HostConfig") or {}).get("Mounts") or []
        if (one.get("VolumeOptions") or {}).get("Subpath")
    }
    # What is a part of a volume only is not the directory that inspect names.
    sources = {
        mount.destination: mount.source
        for mount in spec_mounts.mounts(inspect)
        if (mount.kind == "bind" or (mount.kind == "volume" and mount.driver == "local"))
        and mount.destination not in parts
    }
    found = {one for table in (kernel_mounts, *inside) for one in replaced_mounts.deleted(table, sources)}
    found.update(replaced_mounts.renamed(kernel_mounts, sources, init))
    return [one._asdict() for one in sorted(found)]


def _upper_protocols(pids: t.Sequence[int], sockets: network_sockets.Sockets) -> dict[str, str]:
    """What the kernel runs on top of TCP connections (kTLS), by their inodes; these are texts, as in JSON."""
    connections = {one.inode for one in sockets.inet if one.is_connection}
    found = process_sockets.upper_protocols(pids, connections) if connections else {}
    return {str(inode): name for inode, name in found.items()}


def of_processes(inspect: Inspect, first: network_sockets.Sockets | None = None, *, patient: bool = True) -> Facts:
    """What the kernel has of a running container: processes, mounts, memory, sockets.

    :param first: an earlier look at its sockets; what was there then too lasts.
    :param patient: whether processes of ``docker exec`` are given time to end.
    """
    group, init = TaskGroup.of_container(inspect), int(inspect["State"]["Pid"])
    pids = group.pids()
    places = _places(inspect, init)
    kernel_mounts = mountinfo.parse(process_resources.read(f"/proc/{init}/mountinfo"))
    on_host = (inspect.get("HostConfig") or {}).get("NetworkMode") == "host"
    strangers = [] if on_host else network_fence.lasting_strangers(init, group.pids)
    shares_network = on_host or bool(strangers)
    resources = process_resources.look(pids, init, own_network=not shares_network)
    memory, taken = resources.pop("dump_bytes"), resources.pop("taken_bytes")
    # Programs that have mounts of their own (bwrap, Docker in Docker).
    inside = [
        mountinfo.parse(process_resources.read(f"/proc/{pid}/mountinfo")) for pid in resources.pop("mount_namespaces")
    ]
    resident = group.resident_bytes
    memory_places = mountinfo.memory_places(kernel_mounts, places.binds)
    facts: Facts = {
        "processes": {
            **resources,
            "foreign": _lasting_foreign(group, init, _exec_patience(inspect) if patient else 0.0),
            "databases": _lasting_databases(resources["databases"], group),
            "keys": kernel_keys.count(inspect["Id"]),
            "tied": processors.tied(group),
            "huge_pages": huge_pages.of_processes(pids, huge_pages.pools()),
            "peers": [],
            "upper_protocols": {},
        },
        "kernel_mounts": {
            "masked": mountinfo.masked(kernel_mounts),
            "foreign": _foreign_mounts([kernel_mounts, *inside], places),
            "below_binds": _below_binds(kernel_mounts, places),
            "replaced": _replaced(inspect, kernel_mounts, inside, init),
        },
        "memory": {
            "resident_bytes": resident,
            "dump_bytes": memory or resident,
            "taken_bytes": taken or resident,
            "tmpfs_bytes": _used_bytes(init, memory_places),
            "tmpfs_files": _used_files(init, memory_places),
            "tmpfs_files_most": memory_files.MOST_FILES,
        },
        "sockets": None,
        "lasting": [],
        "strangers": strangers,
        "network_made": {},
    }
    ordered = [init, *(pid for pid in pids if pid != init)]
    # Where sockets cannot be asked, nothing is compared either.
    with contextlib.suppress(OSError):
        facts["processes"]["peers"] = unix_peers.of_processes(ordered)[:_NAMED]
    with contextlib.suppress(MigrationError):
        now = network_sockets.look(ordered)
        if shares_network:
            now = network_sockets.own(now, ordered)
        facts["sockets"] = network_sockets.plain(now)
        with contextlib.suppress(OSError):
            facts["processes"]["upper_protocols"] = _upper_protocols(ordered, now)
        facts["lasting"] = [list(map(str, one)) for one in network_sockets.lasting(first or now, now)]
    if network_fence.refusal(inspect) is None:
        # Where it is not known, the comparison with the copy decides.
        with contextlib.suppress(OSError):
            facts["network_made"] = facts_of_network.look(init, inspect)
    return facts


def gather(
    asks: Asks,
    name: str,
    bind_mounts: t.Sequence[str] = (),
    *,
    sizes: bool = True,
    lasting: bool = True,
    patient: bool = True,
    meanwhile: t.Callable[[], t.Any] | None = None,
) -> Facts:
    """The container of that name, or why there is nothing to tell of it (``found`` is false then, and ``error`` says why).

    All else is as in :func:`of_inspect`.
    """
    try:
        inspect = asks.find(valid_names.container_name(name))
    except MigrationError as exc:
        return {"found": False, "name": name, "error": exc.message}
    if inspect is None:
        return {"found": False, "name": name, "error": valid_names.unknown(name, asks.names())}
    return of_inspect(asks, inspect, bind_mounts, sizes=sizes, lasting=lasting, patient=patient, meanwhile=meanwhile)


def of_inspect(
    asks: Asks,
    inspect: Inspect,
    bind_mounts: t.Sequence[str] = (),
    *,
    sizes: bool = True,
    lasting: bool = True,
    patient: bool = True,
    meanwhile: t.Callable[[], t.Any] | None = None,
) -> Facts:
    """A container.

    :param inspect: its inspect data, read just now.
    :param bind_mounts: host paths of bind mounts whose content is to move.
    :param sizes: whether to count what its files take, for a second at most, and to ask systemd who starts it.
    :param lasting: whether to look twice at its connections, 0.3 s apart.
    :param patient: see :func:`of_processes`.
    :param meanwhile: what can be done between the two looks.
    """
    pid = int((inspect.get("State") or {}).get("Pid") or 0)
    first, first_at = None, time.monotonic()
    if lasting and pid:
        with contextlib.suppress(MigrationError):
            first = network_sockets.look([pid])
    volumes, unknown = _volume_facts(asks, inspect, bind_mounts)
    layer, storage_error = _storage(inspect)
    facts: Facts = {
        "found": True,
        "name": inspect["Name"].lstrip("/"),
        "id": inspect["Id"],
        "ancestry": [inspect["Id"], *lineage.ancestry(inspect["Id"])],
        "inspect": decisive(inspect),
        "image": docker_images.describe(asks, inspect),
        "networks": _networks(asks, inspect),
        "ports": _ports(inspect),
        "volumes": volumes,
        "unknown_binds": unknown,
        "storage_error": storage_error,
        "unsupported_fields": _unsupported(inspect),
        "processes": None,
    }
    if sizes:
        facts["started_by"] = starting_units.of(inspect)
        facts["device_nodes"] = device_nodes.of_container(inspect, pid) if pid else []
        deadline = time.monotonic() + 1.0
        counted, complete = tree_bytes(layer, deadline) if layer else (0, False)
        moved = {entry["name"]: tree_bytes(entry["path"], deadline) for entry in volumes if entry["travels"]}
        facts["sizes"] = {
            "layer_bytes": counted,
            "volume_bytes": sum(size for size, _all in moved.values()),
            "complete": complete and all(everything for _size, everything in moved.values()),
        }
    if pid:
        if first is not None:
            if meanwhile is not None:
                meanwhile()
            time.sleep(max(0.0, first_at + _LASTING_SECONDS - time.monotonic()))
        with contextlib.suppress(MigrationError, OSError):
            facts.update(of_processes(inspect, first, patient=patient))
    return facts
