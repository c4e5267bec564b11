# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What cannot be moved, and what should be said, judging by a container's inspect data: its state and how it was created.

What it mounts is in ``_preflight/rules/mounts.py``, what its processes hold in ``_preflight/rules/processes.py``, its network in
``_preflight/rules/network.py``.
"""

from __future__ import annotations

import re
import typing as t

from ..._docker.spec.networks import ANY_ADDRESS, UNKNOWN, networks, primary_network, published_ports
from ..finding import ERROR, INFO, RULES, WARNING, Case, Facts, Finding, Told, findings, rule
from . import mounts as rules_mounts

_Found = t.Iterator[Told]

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


def _host(case: Case) -> Facts:
    return case.inspect.get("HostConfig") or {}


def _config(case: Case) -> Facts:
    return case.inspect.get("Config") or {}


def _labels(case: Case) -> t.Iterable[str]:
    return _config(case).get("Labels") or {}


# ------------------------------------------------------------------------------------- state: it may be over in a moment


def _status(case: Case) -> str:
    """Which of the states it is in that forbid a move; each excludes the others."""
    state = case.inspect.get("State") or {}
    if state.get("Restarting"):
        return "restarting"
    if state.get("Dead") or state.get("Status") in ("dead", "removing"):
        return "being_removed"
    if state.get("Paused"):
        return "paused"
    return "" if state.get("Running") else "not_running"


@rule(ERROR, "a container that its engine restarts just now", "by reading", "container", volatile=True)
def restarting(case: Case) -> _Found:
    if _status(case) == "restarting":
        yield "The container is restarting.", "Wait until it runs, or mend what makes it fail."


@rule(ERROR, "a container that is dead or being removed", "by reading", "container", volatile=True)
def being_removed(case: Case) -> _Found:
    if _status(case) == "being_removed":
        status = (case.inspect.get("State") or {}).get("Status") or "dead"
        yield (
            f"The container is {status}: the engine is removing it or failed to.",
            "Remove it (docker rm -f) and move another one.",
        )


@rule(ERROR, "a container that somebody else has paused", "run", "container", volatile=True)
def paused(case: Case) -> _Found:
    if _status(case) == "paused":
        yield (
            "The container is paused already, and not by this session.",
            "Unpause it (docker unpause), or settle the session that paused it (playbooks/recover.yml).",
        )


@rule(ERROR, "a container that does not run", "run", "container", volatile=True)
def not_running(case: Case) -> _Found:
    if _status(case) == "not_running":
        status = (case.inspect.get("State") or {}).get("Status") or "stopped"
        yield (
            f"The container does not run (it is {status}): there is no memory to move.",
            "Start it, or move it as an ordinary stopped container.",
        )


# -------------------------------------------------------------------------------------------------- namespaces it shares


@rule(ERROR, "the process ids of the host or of another container (`--pid`)", "run", "container")
def pid_mode(case: Case) -> _Found:
    pid = _host(case).get("PidMode") or ""
    if pid:
        whose = "the host" if pid == "host" else "another container"
        yield (
            f"The container uses the process ids of {whose} (--pid {pid}); a restore needs the same ids, which are taken there.",
            "Re-create it with a PID namespace of its own (without --pid).",
        )


@rule(ERROR, "the IPC of the host or of another container (`--ipc`)", "run", "container")
def ipc_mode(case: Case) -> _Found:
    ipc = _host(case).get("IpcMode") or ""
    if ipc == "host" or ipc.startswith("container:"):
        whose = "the host" if ipc == "host" else "another container"
        yield (
            f"The container shares System V IPC and /dev/shm with {whose} (--ipc {ipc}), which do not move.",
            "Re-create it with --ipc private.",
        )


@rule(
    ERROR,
    "shared memory that is a mount from the host (`--ipc shareable`)",
    "moby, daemon/container_operations_unix.go",
    "container",
)
def ipc_shareable(case: Case) -> _Found:
    if _host(case).get("IpcMode") == "shareable":
        yield (
            (
                "The container's shared memory (/dev/shm) is shareable, that is a mount from the host: its content is not "
                "in a checkpoint."
            ),
            "Re-create it with --ipc private (Docker's default since 19.03; older clients and compose files ask for shareable).",
        )


@rule(ERROR, "the network namespace of another container", "moby PR 47621", "container")
def network_mode_container(case: Case) -> _Found:
    if (_host(case).get("NetworkMode") or "").startswith("container:"):
        yield (
            "The container lives in the network namespace of another container (--network container:), which stays behind.",
            "Give it a network of its own, or move the application as a whole by other means.",
        )


@rule(ERROR, "a container that was disconnected from all its networks", "run", "container")
def no_network(case: Case) -> _Found:
    primary = primary_network(case.inspect)
    if (
        primary not in ("host", "none")
        and not primary.startswith("container:")
        and (case.inspect.get("State") or {}).get("Running")
        and not _config(case).get("NetworkDisabled")
        and not (case.inspect.get("NetworkSettings") or {}).get("Networks")
    ):
        yield (
            f"The container was disconnected from every network; created anew it would be on {primary}.",
            "Connect it to a network (docker network connect), or re-create it with --network none.",
        )


@rule(ERROR, "the cgroup of another container", "by reading", "container")
def cgroup_container(case: Case) -> _Found:
    if (_host(case).get("Cgroup") or "").startswith("container:"):
        yield "The container lives in the cgroup of another container.", _RECREATE


@rule(ERROR, "user ids that the engine remaps", "runc's documentation", "container")
def userns_remap(case: Case) -> _Found:
    userns = _host(case).get("UsernsMode") or ""
    paths = [case.inspect.get(name) or "" for name in ("HostnamePath", "HostsPath", "ResolvConfPath", "LogPath")]
    if userns not in ("", "host") or any(_REMAPPED.search(path) for path in paths):
        yield (
            "The engine remaps user ids (userns-remap); a checkpoint of a remapped container cannot be restored through it.",
            "Run the container on an engine without userns-remap.",
        )


# ------------------------------------------------------------------------------------------------------- who manages it


@rule(ERROR, "a container that is deleted when it stops (`--rm`)", "podman PR 4594", "container")
def auto_remove(case: Case) -> _Found:
    if _host(case).get("AutoRemove"):
        yield (
            "The container was started with --rm: the engine would delete it, its files and its anonymous volumes when it stops.",
            "Re-create it without --rm.",
        )


@rule(ERROR, "a task of a Swarm service", "by reading", "container")
def swarm_task(case: Case) -> _Found:
    if any(label.startswith("com.docker.swarm.") for label in _labels(case)):
        yield (
            "The container is a task of a Swarm service: Swarm would start another one in its place.",
            "Let Swarm move it (docker service update, docker node update --availability drain).",
        )


@rule(ERROR, "a container of a Kubernetes pod", "by reading", "container")
def kubernetes_pod(case: Case) -> _Found:
    if any(label.startswith("io.kubernetes.") for label in _labels(case)):
        yield (
            "The container belongs to a Kubernetes pod: the kubelet would start another one in its place.",
            "Let Kubernetes move it (kubectl drain).",
        )


# Compose looks for the labels of project and service, and starts what it finds stopped (docker/compose #1356, #4789).
@rule(WARNING, "a container that Docker Compose has made", "docker/compose #4789", "container")
def compose(case: Case) -> _Found:
    if "com.docker.compose.project" in _labels(case):
        yield (
            (
                "The container was made by Docker Compose, which knows its containers by their labels, whatever their names are. "
                "On the source that is the old copy after the move: `docker compose up`, `start` or `restart` there would start "
                "it, or make another one in its place, beside the container that runs on the destination; `down` would remove it."
            ),
            (
                "Take the service out of the compose file on the source before anybody runs compose there again, remove the old "
                "copy (playbooks/cleanup.yml) when it is not needed any more, and run compose on the destination from then on."
            ),
        )


@rule(ERROR, "legacy links (`--link`)", "run", "container")
def links(case: Case) -> _Found:
    if _host(case).get("Links"):
        yield (
            "The container has legacy links (--link on the default bridge) to containers that do not exist on the destination.",
            "Put the containers on a user-defined network, where names resolve without links.",
        )


@rule(INFO, "a restart policy, which is put aside for the move", "moby daemon/monitor.go", "container")
def restart_policy(case: Case) -> _Found:
    policy = (_host(case).get("RestartPolicy") or {}).get("Name") or "no"
    if policy != "no":
        yield (
            f"Its restart policy is {policy}; while it is moved it is set to no, or the engine would start the old copy again.",
            "Nothing: the copy gets the policy, and so does the container here when the move is given up.",
        )


@rule(WARNING, "a systemd unit that starts this very container", "by reading", "container")
def started_by_unit(case: Case) -> _Found:
    for one in (case.container or {}).get("started_by") or []:
        unit = one["unit"]
        message = (
            f"The systemd unit {unit} of the source starts this container ({one['command']}). When the container has moved and "
            "its old copy ends, the unit may start that again, or another container of its name."
        )
        remedy = (
            f"Before the move keep the unit from starting it (systemctl disable {unit}, and Restart=no in a drop-in; stopping "
            "the unit may stop the container), and set it up on the destination afterwards."
        )
        yield message, remedy


# ------------------------------------------------------------------------------------------------------- kind and devices


@rule(ERROR, "containers that are not Linux", "by reading", "container")
def not_linux(case: Case) -> _Found:
    if (case.inspect.get("Platform") or "linux") != "linux" or (_host(case).get("Isolation") or "default") != "default":
        yield "This is not a Linux container.", "Only Linux containers can be moved."


@rule(ERROR, "GPUs and other requested devices (`--gpus`)", "criu.org/GPU", "container")
def device_requests(case: Case) -> _Found:
    if _host(case).get("DeviceRequests") or _host(case).get("Runtime") == "nvidia":
        yield (
            "The container has a GPU or another requested device (--gpus), whose state is not in a checkpoint.",
            _RECREATE,
        )


@rule(ERROR, "an exact set of capabilities, which only API 1.40 knew", "by reading", "container")
def exact_capabilities(case: Case) -> _Found:
    if _host(case).get("Capabilities"):
        yield (
            "The container was created with an exact set of capabilities, which only API 1.40 knew.",
            "Re-create it with --cap-drop and --cap-add.",
        )


@rule(WARNING, "privileged containers", "by reading", "container")
def privileged(case: Case) -> _Found:
    if _host(case).get("Privileged"):
        yield (
            "The container is privileged and sees every device of its host.",
            "Make sure that it uses none that the destination lacks.",
        )


@rule(WARNING, "devices of the host (`--device`)", "by reading", "container")
def devices(case: Case) -> _Found:
    given = [str(d.get("PathOnHost") if isinstance(d, dict) else d) for d in _host(case).get("Devices") or []]
    if given:
        yield (
            f"The container has devices of the host: {', '.join(given)}.",
            "The same devices must exist on the destination under the same numbers, and none may be open at the freeze.",
        )


@rule(WARNING, "a runtime that is not runc", "docs/support.md", "container")
def runtime(case: Case) -> _Found:
    name = _host(case).get("Runtime") or ""
    if name not in _RUNTIMES and name != "nvidia":
        yield (
            f"The container runs under the runtime '{name}'; this was tried with runc.",
            "The same runtime must be registered on the destination and able to restore.",
        )


@rule(WARNING, "the hostname of the host (`--uts host`)", "by reading", "container")
def uts_host(case: Case) -> _Found:
    if _host(case).get("UTSMode") == "host":
        yield (
            "The container has the hostname of its host (--uts host), which changes with the move.",
            "Make sure that the application does not depend on it.",
        )


@rule(WARNING, "a CRIU configuration of the container's own", "run", "container")
def criu_annotation(case: Case) -> _Found:
    if "org.criu.config" in (_host(case).get("Annotations") or {}):
        yield (
            (
                "The container has its own CRIU configuration file (annotation org.criu.config), which /etc/criu/runc.conf "
                "cannot override."
            ),
            "Make sure that the same file exists on both hosts.",
        )


# ------------------------------------------------------------------------------------------------ streams, health, and log


@rule(WARNING, "standard input that is kept open (`-i`)", "run", "container")
def stdin(case: Case) -> _Found:
    if _config(case).get("AttachStdin") or _config(case).get("OpenStdin"):
        yield (
            "The container keeps its standard input open; whoever is attached to it is cut off by the move.",
            "Attach again on the destination.",
        )


@rule(INFO, "a health check, which begins anew", "run", "container")
def health_check(case: Case) -> _Found:
    test = (_config(case).get("Healthcheck") or {}).get("Test") or []
    if test and test[0] != "NONE":
        yield (
            "The container has a health check: a probe that runs during the freeze is lost, and the state begins at 'starting'.",
            "Expect one or two probes to fail or to be missing.",
        )


@rule(WARNING, "a log driver whose lines do not move", "by reading", "container")
def log_driver(case: Case) -> _Found:
    driver = (_host(case).get("LogConfig") or {}).get("Type") or ""
    if driver not in _READABLE_LOGS:
        yield (
            f"The log driver '{driver}' keeps no log on the host that could be moved along.",
            "Read the older lines where that driver put them.",
        )


# -------------------------------------------------------------------------------------------------------------- network


@rule(WARNING, "the network of the host (`--network host`)", "run", "container")
def network_host(case: Case) -> _Found:
    if primary_network(case.inspect) == "host":
        yield (
            "The container uses the network of its host: its ports must be free there, and its addresses change.",
            "Check what listens on the destination.",
        )


@rule(WARNING, "ports that are published on one address of the host", "by reading", "container")
def host_address(case: Case) -> _Found:
    addresses = sorted({port.host_ip for port in published_ports(case.inspect) if port.host_ip not in ANY_ADDRESS})
    if addresses:
        yield (
            f"Ports are published on these addresses of the source: {', '.join(addresses)}.",
            "The destination must have the same addresses, or the container cannot start there.",
        )


@rule(WARNING, "links on a user-defined network", "by reading", "container")
def endpoint_links(case: Case) -> _Found:
    for network in networks(case.inspect):
        if network.links:
            yield (
                f"The container has links on the network {network.name}: they resolve only to containers that are on it too.",
                "Make sure that those containers can be reached by that network on the destination.",
            )


@rule(WARNING, "a MAC address of which nobody knows whether it was asked for", "run (28.5.2)", "container")
def mac_unknown(case: Case) -> _Found:
    for network in networks(case.inspect):
        # Generated ones are of no use to anybody. With a static address somebody may well have asked for the MAC too.
        if network.mac_origin == UNKNOWN and (network.ipv4_requested or network.ipv6_requested):
            yield (
                f"inspect does not tell whether the MAC address on the network {network.name} was requested; it is not kept.",
                "If it must be kept, connect the container anew on the destination.",
            )


# -------------------------------------------------------------------------------------------- for inspect data by itself

_HERE = tuple(each for each in RULES.values() if each.judge.__module__ in (__name__, rules_mounts.__name__))


def state_refusals(inspect: Facts) -> list[Finding]:
    """What the container is doing right now that forbids a move; it may be over in a moment."""
    return _judge(inspect, [each for each in _HERE if each.severity == ERROR and each.volatile])


def spec_refusals(inspect: Facts, ignore: t.Container[str] = ()) -> list[Finding]:
    """What in the container's configuration forbids a move."""
    return _judge(inspect, [each for each in _HERE if each.severity == ERROR and not each.volatile], ignore)


def refusals(inspect: Facts) -> list[Finding]:
    """Everything that forbids a move of this container, judging by its inspect data alone."""
    return state_refusals(inspect) + spec_refusals(inspect)


def warnings(inspect: Facts) -> list[Finding]:
    """What does not forbid the move but should be known before it."""
    return _judge(inspect, [each for each in _HERE if each.severity != ERROR])


def _judge(inspect: Facts, rules: t.Sequence[t.Any], ignore: t.Container[str] = ()) -> list[Finding]:
    return findings(Case(container={"inspect": inspect}), ignore, rules)
