# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What cannot be moved, and what should be said, judging by inspect data alone.

Facts of the hosts (engine and CRIU versions, kernels, space) are judged elsewhere: this is about the container.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._spec_mounts import mounts
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_networks import (
    ANY_ADDRESS,
    UNKNOWN,
    networks,
    primary_network,
    published_ports,
)

Inspect = t.Mapping[str, t.Any]


class Finding(t.NamedTuple):
    """One reason to refuse, or one warning. Never holds a secret: no environment, no arguments, no label values."""

    #: stable name in snake_case
    code: str
    #: the fact, one sentence
    message: str
    #: what to do about it, one sentence
    remedy: str


_RECREATE = "Re-create the container without it, then move it."
# With a remapped user namespace the data-root has one more level: /var/lib/docker/165536.165536/containers/ID/hostname
_REMAPPED = re.compile(r"/\d+\.\d+/containers/[0-9a-f]+/")
_READABLE_LOGS = ("json-file", "local", "journald")
_RUNTIMES = (
    "",
    "runc",
    "livemigrate",
    "io.containerd.runc.v2",
    "io.containerd.runc.v1",
    "io.containerd.runtime.v1.linux",
)
_SHARED = ("shared", "rshared", "slave", "rslave")


def _host(inspect: Inspect) -> t.Mapping[str, t.Any]:
    return inspect.get("HostConfig") or {}


def _labels(inspect: Inspect) -> t.Mapping[str, str]:
    return (inspect.get("Config") or {}).get("Labels") or {}


def state_refusals(inspect: Inspect) -> list[Finding]:
    """What the container is doing right now that forbids a move; it may be over in a moment."""
    state = inspect.get("State") or {}
    found = []
    if state.get("Restarting"):
        found.append(
            Finding("restarting", "The container is restarting.", "Wait until it runs, or mend what makes it fail.")
        )
    elif state.get("Dead") or state.get("Status") in ("dead", "removing"):
        found.append(
            Finding(
                "being_removed",
                "The container is %s: the engine is removing it or failed to." % (state.get("Status") or "dead"),
                "Remove it (docker rm -f) and move another one.",
            )
        )
    elif state.get("Paused"):
        found.append(
            Finding(
                "paused",
                "The container is paused already, and not by this session.",
                "Unpause it (docker unpause), or settle the session that paused it.",
            )
        )
    elif not state.get("Running"):
        found.append(
            Finding(
                "not_running",
                "The container does not run (it is %s): there is no memory to move."
                % (state.get("Status") or "stopped"),
                "Start it, or move it as an ordinary stopped container.",
            )
        )
    execs = inspect.get("ExecIDs") or []
    if execs:
        found.append(
            Finding(
                "exec_sessions",
                "%d docker exec session(s) run in the container; their processes are not in a checkpoint." % len(execs),
                "End them. (A health check that is just being run counts too: ask again after some seconds.)",
            )
        )
    return found


def spec_refusals(inspect: Inspect) -> list[Finding]:
    """What in the container's configuration forbids a move."""
    found: list[Finding] = []
    for check in (_namespaces, _managers, _devices_and_kind, _mount_refusals):
        found.extend(check(inspect))
    return found


def refusals(inspect: Inspect) -> list[Finding]:
    """Everything that forbids a move of this container, judging by its inspect data alone."""
    return state_refusals(inspect) + spec_refusals(inspect)


def _namespaces(inspect: Inspect) -> t.Iterator[Finding]:
    host = _host(inspect)
    pid = host.get("PidMode") or ""
    if pid:
        yield Finding(
            "pid_mode",
            "The container uses the process ids of %s (--pid %s); a restore needs the same ids, which are taken there."
            % ("the host" if pid == "host" else "another container", pid),
            "Re-create it with a PID namespace of its own (without --pid).",
        )
    ipc = host.get("IpcMode") or ""
    if ipc == "host" or ipc.startswith("container:"):
        yield Finding(
            "ipc_mode",
            "The container shares System V IPC and /dev/shm with %s (--ipc %s), which do not move."
            % ("the host" if ipc == "host" else "another container", ipc),
            "Re-create it with --ipc private.",
        )
    elif ipc == "shareable":
        yield Finding(
            "ipc_shareable",
            "The container's shared memory (/dev/shm) is shareable, that is a mount from the host: its content is not "
            "in a checkpoint.",
            "Re-create it with --ipc private (Docker's default since 19.03; older clients and compose files ask for"
            " shareable).",
        )
    network = host.get("NetworkMode") or ""
    if network.startswith("container:"):
        yield Finding(
            "network_mode_container",
            "The container lives in the network namespace of another container (--network container:), which stays "
            "behind.",
            "Give it a network of its own, or move the application as a whole by other means.",
        )
    elif (
        primary_network(inspect) not in ("host", "none")
        and (inspect.get("State") or {}).get("Running")
        and not (inspect.get("Config") or {}).get("NetworkDisabled")
        and not (inspect.get("NetworkSettings") or {}).get("Networks")
    ):
        yield Finding(
            "no_network",
            "The container was disconnected from every network; created anew it would be on %s."
            % primary_network(inspect),
            "Connect it to a network (docker network connect), or re-create it with --network none.",
        )
    if (host.get("Cgroup") or "").startswith("container:"):
        yield Finding("cgroup_container", "The container lives in the cgroup of another container.", _RECREATE)
    userns = host.get("UsernsMode") or ""
    paths = [inspect.get(name) or "" for name in ("HostnamePath", "HostsPath", "ResolvConfPath", "LogPath")]
    if userns not in ("", "host") or any(_REMAPPED.search(path) for path in paths):
        yield Finding(
            "userns_remap",
            "The engine remaps user ids (userns-remap); a checkpoint of a remapped container cannot be restored "
            "through it.",
            "Run the container on an engine without userns-remap.",
        )


def _managers(inspect: Inspect) -> t.Iterator[Finding]:
    host = _host(inspect)
    if host.get("AutoRemove"):
        yield Finding(
            "auto_remove",
            "The container was started with --rm: the engine would delete it, its files and its anonymous volumes "
            "when it stops.",
            "Re-create it without --rm.",
        )
    labels = _labels(inspect)
    if any(label.startswith("com.docker.swarm.") for label in labels):
        yield Finding(
            "swarm_task",
            "The container is a task of a Swarm service: Swarm would start another one in its place.",
            "Let Swarm move it (docker service update, docker node update --availability drain).",
        )
    if any(label.startswith("io.kubernetes.") for label in labels):
        yield Finding(
            "kubernetes_pod",
            "The container belongs to a Kubernetes pod: the kubelet would start another one in its place.",
            "Let Kubernetes move it (kubectl drain).",
        )
    if host.get("Links"):
        yield Finding(
            "links",
            "The container has legacy links (--link on the default bridge) to containers that do not exist on the "
            "destination.",
            "Put the containers on a user-defined network, where names resolve without links.",
        )


def _devices_and_kind(inspect: Inspect) -> t.Iterator[Finding]:
    host = _host(inspect)
    platform = inspect.get("Platform") or "linux"
    if platform != "linux" or (host.get("Isolation") or "default") != "default":
        yield Finding("not_linux", "This is not a Linux container.", "Only Linux containers can be moved.")
    if host.get("DeviceRequests") or host.get("Runtime") == "nvidia":
        yield Finding(
            "device_requests",
            "The container has a GPU or another requested device (--gpus), whose state is not in a checkpoint.",
            _RECREATE,
        )
    if host.get("Capabilities"):
        yield Finding(
            "exact_capabilities",
            "The container was created with an exact set of capabilities, which only API 1.40 knew.",
            "Re-create it with --cap-drop and --cap-add.",
        )


def _mount_refusals(inspect: Inspect) -> t.Iterator[Finding]:
    for mount in mounts(inspect):
        if mount.kind not in ("volume", "bind", "tmpfs"):
            yield Finding(
                "mount_type",
                "The mount at %s is of the type %s, which cannot be made again on another host."
                % (mount.destination, mount.kind),
                _RECREATE,
            )
        elif mount.kind == "tmpfs" and not mount.declared_by:
            yield Finding(
                "volumes_from_tmpfs",
                "The tmpfs at %s came with --volumes-from; its options are not known." % mount.destination,
                "Re-create the container with a --tmpfs of its own.",
            )


# ------------------------------------------------------------------------------------------------------------- warnings


def warnings(inspect: Inspect) -> list[Finding]:
    """What does not forbid the move but should be known before it."""
    found: list[Finding] = []
    for check in (_manager_warnings, _stream_warnings, _hardware_warnings, _network_warnings, _mount_warnings):
        found.extend(check(inspect))
    return found


def _manager_warnings(inspect: Inspect) -> t.Iterator[Finding]:
    if "com.docker.compose.project" in _labels(inspect):
        yield Finding(
            "compose",
            "The container was made by Docker Compose, which does not know of the move and would make another one "
            "on the source.",
            "Take the service out of the project on the source, and run compose on the destination from then on.",
        )
    annotations = _host(inspect).get("Annotations") or {}
    if "org.criu.config" in annotations:
        yield Finding(
            "criu_annotation",
            "The container has its own CRIU configuration file (annotation org.criu.config), which "
            "/etc/criu/runc.conf cannot override.",
            "Make sure that the same file exists on both hosts.",
        )


def _stream_warnings(inspect: Inspect) -> t.Iterator[Finding]:
    config = inspect.get("Config") or {}
    if config.get("AttachStdin") or config.get("OpenStdin"):
        yield Finding(
            "stdin",
            "The container keeps its standard input open; whoever is attached to it is cut off by the move.",
            "Attach again on the destination.",
        )
    test = (config.get("Healthcheck") or {}).get("Test") or []
    if test and test != ["NONE"]:
        yield Finding(
            "health_check",
            "The container has a health check: a probe that runs during the freeze is lost, and the state begins at"
            " 'starting'.",
            "Expect one or two probes to fail or to be missing.",
        )
    driver = (_host(inspect).get("LogConfig") or {}).get("Type") or ""
    if driver not in _READABLE_LOGS:
        yield Finding(
            "log_driver",
            "The log driver %r keeps no log on the host that could be moved along." % driver,
            "Read the older lines where that driver put them.",
        )


def _hardware_warnings(inspect: Inspect) -> t.Iterator[Finding]:
    host = _host(inspect)
    if host.get("Privileged"):
        yield Finding(
            "privileged",
            "The container is privileged and sees every device of its host.",
            "Make sure that it uses none that the destination lacks.",
        )
    if host.get("Devices"):
        yield Finding(
            "devices",
            "The container has devices of the host: %s." % ", ".join(_device_names(host["Devices"])),
            "The same devices must exist on the destination, and none may be open at the freeze.",
        )
    runtime = host.get("Runtime") or ""
    if runtime not in _RUNTIMES and runtime != "nvidia":
        yield Finding(
            "runtime",
            "The container runs under the runtime %r; this was tried with runc." % runtime,
            "The same runtime must be registered on the destination and able to restore.",
        )
    if host.get("UTSMode") == "host":
        yield Finding(
            "uts_host",
            "The container has the hostname of its host (--uts host), which changes with the move.",
            "Make sure that the application does not depend on it.",
        )


def _device_names(devices: t.Iterable[t.Any]) -> list[str]:
    return [str(device.get("PathOnHost") if isinstance(device, dict) else device) for device in devices]


def _network_warnings(inspect: Inspect) -> t.Iterator[Finding]:
    if primary_network(inspect) == "host":
        yield Finding(
            "network_host",
            "The container uses the network of its host: its ports must be free there, and its addresses change.",
            "Check what listens on the destination.",
        )
    addresses = sorted({port.host_ip for port in published_ports(inspect) if port.host_ip not in ANY_ADDRESS})
    if addresses:
        yield Finding(
            "host_address",
            "Ports are published on these addresses of the source: %s." % ", ".join(addresses),
            "The destination must have the same addresses, or the container cannot start there.",
        )
    for network in networks(inspect):
        if network.links:
            yield Finding(
                "endpoint_links",
                "The container has links on the network %s: they resolve only to containers that are on it too."
                % network.name,
                "Make sure that those containers can be reached by that network on the destination.",
            )
        if network.mac_origin == UNKNOWN and (network.ipv4_requested or network.ipv6_requested):
            # Generated ones are of no use to anybody. With a static address somebody may well have asked for the MAC
            # too.
            yield Finding(
                "mac_unknown",
                "inspect does not tell whether the MAC address on the network %s was requested; it is not kept."
                % network.name,
                "If it must be kept, connect the container anew on the destination.",
            )


def _mount_warnings(inspect: Inspect) -> t.Iterator[Finding]:
    for mount in mounts(inspect):
        if mount.kind == "bind" and mount.source.rsplit("/", 1)[-1] == "docker.sock":
            yield Finding(
                "docker_socket",
                "The engine's socket is mounted at %s; an open connection to it cannot be moved." % mount.destination,
                "Close the connection before the move; afterwards the container talks to the destination's engine.",
            )
        if mount.kind == "bind" and mount.propagation in _SHARED:
            yield Finding(
                "propagation",
                "The mount at %s is %s with the host; CRIU refuses many such mounts."
                % (mount.destination, mount.propagation),
                "Use rprivate unless the propagation is needed.",
            )
        if mount.anonymous and mount.declared_by == "":
            yield Finding(
                "anonymous_volume",
                "The anonymous volume at %s is re-created under its name, so docker rm -v no longer deletes it."
                % mount.destination,
                "Delete it by name when the container is removed for good.",
            )
