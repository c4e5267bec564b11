# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Refusals and warnings: each fact gives its one finding, and an ordinary container gives none."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.create import creation_parameters
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Finding
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.rules.container import (
    refusals,
    spec_refusals,
    state_refusals,
    warnings,
)
from tests.unit.docker.spec.samples import BY_HAND, CAPTURED, ID, IMAGE, SECRET, container, load, volume


def state(**more: Any) -> dict[str, Any]:
    inspect = container()
    inspect["State"].update(more)
    return inspect


def label(name: str) -> dict[str, Any]:
    return container({"Labels": {name: SECRET}})


def mount(kind: str, **more: Any) -> dict[str, Any]:
    entry = {"Type": kind, "Source": "/x", "Destination": "/y", "Mode": "", "RW": True, "Propagation": "", **more}
    return container(mounts=[entry])


OF_THE_STATE = {
    "restarting": state(Status="restarting", Restarting=True),
    "being_removed": state(Status="dead", Dead=True, Running=False),
    "paused": state(Status="paused", Paused=True),
    "not_running": state(Status="exited", Running=False),
}
OF_THE_SPEC = {
    "pid_mode": container(host={"PidMode": "container:other"}),
    "ipc_mode": container(host={"IpcMode": "host"}),
    "ipc_shareable": container(host={"IpcMode": "shareable"}),
    "network_mode_container": container(host={"NetworkMode": "container:" + ID}),
    "no_network": container(networks={}),
    "cgroup_container": container(host={"Cgroup": "container:other"}),
    "userns_remap": container(LogPath=f"/var/lib/docker/165536.165536/containers/{ID}/{ID}-json.log"),
    "auto_remove": container(host={"AutoRemove": True}),
    "swarm_task": label("com.docker.swarm.task.id"),
    "kubernetes_pod": label("io.kubernetes.pod.name"),
    "links": container(host={"Links": ["/db:/one/db"]}),
    "not_linux": container(Platform="windows"),
    "device_requests": container(host={"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}),
    "exact_capabilities": container(host={"Capabilities": ["CAP_KILL"]}),
    "mount_type": mount("image"),
    "volumes_from_tmpfs": mount("tmpfs", Source=""),
}
ALSO = [
    ("being_removed", state(Status="removing", Running=False)),
    ("not_running", state(Status="created", Running=False)),
    ("pid_mode", container(host={"PidMode": "host"})),
    ("ipc_mode", container(host={"IpcMode": "container:other"})),
    ("userns_remap", container(host={"UsernsMode": "private"})),
    ("userns_remap", container(HostnamePath=f"/srv/docker/1000.1000/containers/{ID}/hostname")),
    ("not_linux", container(host={"Isolation": "hyperv"})),
    ("device_requests", container(host={"Runtime": "nvidia"})),
    ("mount_type", mount("npipe")),
    ("mount_type", mount("cluster")),
]
REFUSED = [*OF_THE_STATE.items(), *OF_THE_SPEC.items(), *ALSO]


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


@pytest.mark.parametrize(
    ("code", "inspect"), REFUSED, ids=[f"{code}-{number}" for number, (code, dummy) in enumerate(REFUSED)]
)
def test_refused(code: str, inspect: dict[str, Any]) -> None:
    (finding,) = refusals(inspect)
    assert finding.code == code
    assert finding.message.endswith(".")
    assert finding.remedy.endswith((".", ")"))
    assert SECRET not in repr(finding)


def test_what_the_state_refuses_does_not_stop_the_mapping() -> None:
    for inspect in OF_THE_STATE.values():
        assert spec_refusals(inspect) == []
        assert creation_parameters(inspect, image_id=IMAGE, api_version="1.51")["name"] == "one"


def test_what_the_spec_refuses_is_not_of_the_state() -> None:
    for code, inspect in OF_THE_SPEC.items():
        assert state_refusals(inspect) == []
        assert codes(spec_refusals(inspect)) == [code]


@pytest.mark.parametrize(
    ("inspect", "reported"),
    [
        (container(host={"PidMode": "host"}), "process ids of the host (--pid host)"),
        (container(host={"PidMode": "container:x"}), "process ids of another container (--pid container:x)"),
        (container(host={"IpcMode": "host"}), "with the host (--ipc host)"),
        (container(host={"IpcMode": "container:x"}), "with another container (--ipc container:x)"),
        (container(networks={}), "it would be on bridge."),
        (state(Status="exited", Running=False), "(it is exited)"),
        (state(Status="", Running=False), "(it is stopped)"),
        (state(Status="removing", Running=False), "The container is removing:"),
        (mount("image"), "The mount at /y is of the type image,"),
    ],
)
def test_the_message_names_the_fact(inspect: dict[str, Any], reported: str) -> None:
    (finding,) = refusals(inspect)
    assert reported in finding.message


def test_several_reasons_are_all_reported() -> None:
    inspect = container(host={"AutoRemove": True, "PidMode": "host"}, Platform="windows")
    assert codes(refusals(inspect)) == ["pid_mode", "auto_remove", "not_linux"]


@pytest.mark.parametrize(
    "inspect",
    [
        container(),
        container(ExecIDs=[]),
        container(ExecIDs=None),
        container(host={"IpcMode": "none", "UsernsMode": "host", "Isolation": "default", "Runtime": "runc"}),
        container(host={"NetworkMode": "none"}, networks={"none": {}}),
        container(host={"NetworkMode": "host"}, networks={"host": {}}),
        container({"NetworkDisabled": True}, networks={}),
        container(LogPath=f"/srv/v1.2/containers.d/{ID}/x.log"),
        container(host={"DeviceRequests": [], "Links": [], "Capabilities": []}),
    ],
)
def test_not_refused(inspect: dict[str, Any]) -> None:
    assert refusals(inspect) == []


@pytest.mark.parametrize("name", [BY_HAND, *CAPTURED])
def test_real_containers_are_not_refused(name: str) -> None:
    assert refusals(load(name)["inspect"]) == []


def on_network(**more: Any) -> dict[str, Any]:
    return container(host={"NetworkMode": "app"}, networks={"app": {"NetworkID": "a" * 64, **more}})


WARNED = [
    ("compose", label("com.docker.compose.project")),
    ("criu_annotation", container(host={"Annotations": {"org.criu.config": "/etc/criu/one.conf"}})),
    ("stdin", container({"AttachStdin": True})),
    ("stdin", container({"OpenStdin": True})),
    ("health_check", container({"Healthcheck": {"Test": ["CMD-SHELL", SECRET]}})),
    ("log_driver", container(host={"LogConfig": {"Type": "splunk", "Config": {"splunk-token": SECRET}}})),
    ("privileged", container(host={"Privileged": True})),
    ("devices", container(host={"Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse"}]})),
    ("runtime", container(host={"Runtime": "kata"})),
    ("uts_host", container(host={"UTSMode": "host"})),
    ("network_host", container(host={"NetworkMode": "host"}, networks={"host": {}})),
    ("host_address", container(host={"PortBindings": {"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "80"}]}})),
    ("endpoint_links", on_network(Links=["db:db"])),
    (
        "mac_unknown",
        on_network(IPAMConfig={"IPv4Address": "172.30.0.50"}, IPAddress="172.30.0.50", MacAddress="9a:00:00:00:00:01"),
    ),
    ("docker_socket", mount("bind", Source="/var/run/docker.sock", Propagation="rprivate")),
    *(("propagation", mount("bind", Propagation=way)) for way in ("shared", "rshared", "slave", "rslave")),
    ("anonymous_volume", container(mounts=[volume("a" * 64, "/anon")])),
]


@pytest.mark.parametrize(
    ("code", "inspect"), WARNED, ids=[f"{code}-{number}" for number, (code, dummy) in enumerate(WARNED)]
)
def test_warned(code: str, inspect: dict[str, Any]) -> None:
    assert refusals(inspect) == []
    (finding,) = warnings(inspect)
    assert finding.code == code
    assert SECRET not in repr(finding)


@pytest.mark.parametrize(
    "inspect",
    [
        container(),
        container({"Healthcheck": {"Test": ["NONE"]}}),
        container(host={"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}}),
        container(mounts=[volume("data", "/data")]),
        on_network(MacAddress="9a:00:00:00:00:01", IPAddress="172.30.0.2"),
    ],
)
def test_not_warned(inspect: dict[str, Any]) -> None:
    assert warnings(inspect) == []
