# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every row of the table: what is sent for a real value, what is not, and what happens when the row is taken away."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec import create as spec_create
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec import fields as spec_fields
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.create import creation_parameters
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.rules.container import spec_refusals
from tests.unit.docker.spec.samples import ID, IMAGE, container

ABSENT = "(not sent)"
SAME = "(as it is)"
REFUSED = "(refused)"
NEWEST = "1.51"


@dataclass
class Case:
    """One field with a value as inspect shows it, and what must be sent for it."""

    path: str
    value: Any
    sent: Any = SAME
    api: str = NEWEST
    #: other fields that this one depends on: Config and HostConfig
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        section, _dot, name = self.path.rpartition(".")
        return section or "top", name

    def container(self) -> dict[str, Any]:
        section, name = self.place
        inspect = container(self.beside.get("Config"), self.beside.get("HostConfig"))
        if section == "top":
            inspect[name] = copy.deepcopy(self.value)
        elif section == "Endpoint":
            inspect["HostConfig"]["NetworkMode"] = "app"
            inspect["NetworkSettings"]["Networks"] = {"app": {"NetworkID": "b" * 64, name: copy.deepcopy(self.value)}}
        else:
            inspect[section][name] = copy.deepcopy(self.value)
        return inspect

    def sent_by(self, spec: Any) -> Any:
        """What the creation body has in the place of this field."""
        section, name = self.place
        body = spec["body"]
        if section == "HostConfig":
            body = body["HostConfig"]
        elif section == "Endpoint":
            body = body["NetworkingConfig"]["EndpointsConfig"]["app"]
        return body.get(name, ABSENT)


def rate(path: str, number: int) -> list[dict[str, Any]]:
    return [{"Path": path, "Rate": number}]


SECCOMP = 'seccomp={"defaultAction":"SCMP_ACT_ERRNO", "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}'
HEALTH = {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 7_000_000_000, "Retries": 3}
MAC = "02:42:de:ad:be:ef"
DEVICE = {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}
GPU = {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
NAMED_MOUNT = {"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"NoCopy": True}}
OWN_PATH = f"/var/lib/docker/containers/{ID}/hostname"

CASES = (
    # Config
    Case("Config.Hostname", "web01"),
    Case("Config.Domainname", "example.org"),
    Case("Config.User", "1000:1000"),
    Case("Config.AttachStdin", True),
    Case("Config.AttachStdout", True),
    Case("Config.AttachStderr", True),
    Case("Config.ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
    Case("Config.Tty", True),
    Case("Config.OpenStdin", True),
    Case("Config.StdinOnce", True),
    Case("Config.Env", ["A=1", "EMPTY=", "UNSET", "B=x=y"]),
    Case("Config.Cmd", ["apache2-foreground", "-D", "X"]),
    Case("Config.Healthcheck", HEALTH),
    Case("Config.ArgsEscaped", True),
    Case("Config.Image", "mwp:1", "mwp:1"),
    Case("Config.Volumes", {"/var/www/html": {}}),
    Case("Config.WorkingDir", "/srv"),
    Case("Config.Entrypoint", ["docker-entrypoint.sh", "-x"]),
    Case("Config.NetworkDisabled", True),
    Case("Config.MacAddress", MAC, ABSENT),
    Case("Config.OnBuild", ["RUN true"]),
    Case("Config.Labels", {"a": "b", "empty": ""}),
    Case("Config.StopSignal", "SIGWINCH"),
    Case("Config.StopTimeout", 0),
    Case("Config.Shell", ["/bin/bash", "-c"]),
    # HostConfig
    Case("HostConfig.Binds", ["data:/data:ro", "/srv:/srv:rw,rslave"]),
    Case("HostConfig.ContainerIDFile", "/run/one.cid", ABSENT),
    Case("HostConfig.LogConfig", {"Type": "journald", "Config": {"tag": "x"}}),
    Case("HostConfig.NetworkMode", "default", "bridge"),
    Case("HostConfig.PortBindings", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "81"}]}),
    Case(
        "HostConfig.RestartPolicy",
        {"Name": "on-failure", "MaximumRetryCount": 5},
        {"Name": "no", "MaximumRetryCount": 0},
    ),
    Case("HostConfig.AutoRemove", True, REFUSED),
    Case("HostConfig.VolumeDriver", "local"),
    Case("HostConfig.VolumesFrom", ["data:ro"], None),
    Case("HostConfig.ConsoleSize", [40, 120]),
    Case("HostConfig.Annotations", {"org.example.a": "b"}),
    Case("HostConfig.CapAdd", ["CAP_NET_ADMIN"]),
    Case("HostConfig.CapDrop", ["ALL"]),
    Case("HostConfig.Capabilities", ["CAP_KILL"], REFUSED),
    Case("HostConfig.CgroupnsMode", "private"),
    Case("HostConfig.Dns", ["192.0.2.53"]),
    Case("HostConfig.DnsOptions", ["ndots:2"]),
    Case("HostConfig.DnsSearch", ["example.org"]),
    Case("HostConfig.ExtraHosts", ["db:192.0.2.9"]),
    Case("HostConfig.GroupAdd", ["44"]),
    Case("HostConfig.IpcMode", "shareable", REFUSED),
    Case("HostConfig.Cgroup", "container:other", REFUSED),
    Case("HostConfig.Links", ["/db:/one/db"], REFUSED),
    Case("HostConfig.OomScoreAdj", 500),
    Case("HostConfig.PidMode", "host", REFUSED),
    Case("HostConfig.Privileged", True),
    Case("HostConfig.PublishAllPorts", True),
    Case("HostConfig.ReadonlyRootfs", True),
    Case("HostConfig.SecurityOpt", ["seccomp:unconfined", SECCOMP, "apparmor=x", "label=disable", "no-new-privileges"]),
    Case("HostConfig.StorageOpt", {"size": "10G"}),
    Case("HostConfig.Tmpfs", {"/run": "rw,noexec,size=64k"}),
    Case("HostConfig.UTSMode", "host"),
    Case("HostConfig.UsernsMode", "host"),
    Case("HostConfig.ShmSize", 33554432),
    Case("HostConfig.Sysctls", {"net.core.somaxconn": "512"}),
    Case("HostConfig.Runtime", "runc"),
    Case("HostConfig.Isolation", "hyperv", REFUSED),
    Case("HostConfig.CpuShares", 512),
    Case("HostConfig.Memory", 536870912),
    Case("HostConfig.NanoCpus", 500000000),
    Case("HostConfig.CgroupParent", "/services"),
    Case("HostConfig.BlkioWeight", 300),
    Case("HostConfig.BlkioWeightDevice", [{"Path": "/dev/vda", "Weight": 200}]),
    Case("HostConfig.BlkioDeviceReadBps", rate("/dev/vda", 1048576)),
    Case("HostConfig.BlkioDeviceWriteBps", rate("/dev/vda", 2097152)),
    Case("HostConfig.BlkioDeviceReadIOps", rate("/dev/vda", 100)),
    Case("HostConfig.BlkioDeviceWriteIOps", rate("/dev/vda", 200)),
    Case("HostConfig.CpuPeriod", 50000),
    Case("HostConfig.CpuQuota", 25000),
    Case("HostConfig.CpuRealtimePeriod", 1000000),
    Case("HostConfig.CpuRealtimeRuntime", 950000),
    Case("HostConfig.CpusetCpus", "0-1"),
    Case("HostConfig.CpusetMems", "0"),
    Case("HostConfig.Devices", [DEVICE]),
    Case("HostConfig.DeviceCgroupRules", ["c 10:229 rwm"]),
    Case("HostConfig.DeviceRequests", [GPU], REFUSED),
    Case("HostConfig.KernelMemory", 41943040, api="1.41"),
    Case("HostConfig.KernelMemoryTCP", 41943040),
    Case("HostConfig.MemoryReservation", 33554432),
    Case("HostConfig.MemorySwap", -1),
    Case("HostConfig.MemorySwappiness", 0),
    Case("HostConfig.OomKillDisable", True),
    Case("HostConfig.PidsLimit", 50),
    Case("HostConfig.Ulimits", [{"Name": "nofile", "Hard": 2048, "Soft": 1024}]),
    Case("HostConfig.CpuCount", 2),
    Case("HostConfig.CpuPercent", 50),
    Case("HostConfig.IOMaximumIOps", 100),
    Case("HostConfig.IOMaximumBandwidth", 1000),
    Case("HostConfig.Mounts", [NAMED_MOUNT]),
    Case("HostConfig.MaskedPaths", []),
    Case("HostConfig.ReadonlyPaths", []),
    Case("HostConfig.Init", False),
    # one endpoint
    Case("Endpoint.IPAMConfig", {"IPv4Address": "172.30.0.50", "LinkLocalIPs": ["169.254.1.2"]}),
    Case("Endpoint.Links", ["db:database"]),
    Case("Endpoint.Aliases", ["web", ID[:12]], ["web"]),
    Case("Endpoint.DriverOpts", {"com.docker.network.endpoint.ifname": "app0"}),
    Case("Endpoint.GwPriority", 100),
    Case("Endpoint.MacAddress", MAC, beside={"Config": {"MacAddress": MAC}}),
    Case("Endpoint.NetworkID", "c" * 64, ABSENT),
    Case("Endpoint.EndpointID", "d" * 64, ABSENT),
    Case("Endpoint.Gateway", "172.30.0.1", ABSENT),
    Case("Endpoint.IPAddress", "172.30.0.2", ABSENT),
    Case("Endpoint.IPPrefixLen", 24, ABSENT),
    Case("Endpoint.IPv6Gateway", "2001:db8::1", ABSENT),
    Case("Endpoint.GlobalIPv6Address", "2001:db8::2", ABSENT),
    Case("Endpoint.GlobalIPv6PrefixLen", 64, ABSENT),
    Case("Endpoint.DNSNames", ["one", ID[:12]], ABSENT),
    # NetworkSettings: told by the endpoints
    *(
        Case(f"NetworkSettings.{name}", value, ABSENT)
        for name, value in {
            "Ports": {"80/tcp": None},
            "Bridge": "br0",
            "SandboxID": "e" * 64,
            "SandboxKey": "/var/run/docker/netns/eeeeeeeeeeee",
            "HairpinMode": True,
            "LinkLocalIPv6Address": "fe80::1",
            "LinkLocalIPv6PrefixLen": 64,
            "SecondaryIPAddresses": [{"Addr": "172.17.0.9", "PrefixLen": 16}],
            "SecondaryIPv6Addresses": [{"Addr": "2001:db8::9", "PrefixLen": 64}],
            "EndpointID": "f" * 64,
            "Gateway": "172.17.0.1",
            "GlobalIPv6Address": "2001:db8::2",
            "GlobalIPv6PrefixLen": 64,
            "IPAddress": "172.17.0.2",
            "IPPrefixLen": 16,
            "IPv6Gateway": "2001:db8::1",
            "MacAddress": "02:42:ac:11:00:02",
        }.items()
    ),
    Case("NetworkSettings.Networks", {"bridge": {"NetworkID": "a" * 64}}, ABSENT),
    # top level
    *(
        Case(name, value, ABSENT)
        for name, value in {
            "Name": "/one",
            "Mounts": [],
            "Id": ID,
            "Created": "2026-03-02T09:15:27.123456789Z",
            "Path": "/entry",
            "Args": ["run"],
            "State": {"Status": "running", "Running": True, "Pid": 7},
            "ResolvConfPath": OWN_PATH,
            "HostnamePath": OWN_PATH,
            "HostsPath": OWN_PATH,
            "LogPath": OWN_PATH,
            "Node": {"Name": "swarm-1"},
            "RestartCount": 3,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "system_u:object_r:container_file_t:s0:c1,c2",
            "ProcessLabel": "system_u:system_r:container_t:s0:c1,c2",
            "AppArmorProfile": "docker-default",
            "ExecIDs": ["0" * 64],
            "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/var/lib/docker/overlay2/x/diff"}},
            "Storage": {"RootFS": {"Snapshot": {"Name": "overlayfs"}}},
            "SizeRw": 12288,
            "SizeRootFs": 98765432,
            "ImageManifestDescriptor": {"digest": IMAGE, "size": 1024},
        }.items()
    ),
)

# Fields of the top level whose name is also that of a part of the creation body, or that the body is made of.
STRUCTURE = {"Config", "HostConfig", "NetworkSettings", "Image"}


def create(inspect: dict[str, Any], api: str = NEWEST, **more: Any) -> Any:
    options = {"image_id": IMAGE, "reference_image_id": IMAGE, **more}
    return creation_parameters(inspect, api_version=api, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path)
def test_field(case: Case) -> None:
    inspect = case.container()
    before = copy.deepcopy(inspect)
    if case.sent is REFUSED:
        assert spec_refusals(inspect)
        return
    spec = create(inspect, case.api)
    assert case.sent_by(spec) == (case.value if case.sent is SAME else case.sent)
    assert spec["unknown_fields"] == []
    assert spec["unsupported_fields"] == []
    assert inspect == before, "the inspect data was changed"


def test_every_row_has_a_case() -> None:
    assert {case.path for case in CASES} | STRUCTURE == set(spec_fields.fields_by_path())


def test_no_row_twice() -> None:
    assert len(spec_fields.FIELDS) == len(spec_fields.fields_by_path())


@pytest.mark.parametrize("case", [case for case in CASES if case.sent is not REFUSED], ids=lambda case: case.path)
def test_without_its_row_a_field_is_reported(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_fields, "FIELDS", tuple(row for row in spec_fields.FIELDS if row.path != case.path))
    spec = create(case.container(), case.api)
    section, name = case.place
    expected = f"NetworkSettings.Networks.app.{name}" if section == "Endpoint" else case.path
    assert expected in spec["unknown_fields"]
    if section in ("Config", "HostConfig"):
        assert case.sent_by(spec) == case.value, "an unknown field is copied"


def test_a_field_of_the_future() -> None:
    inspect = container({"Mood": "good"}, {"Gravity": {"x": 1}}, Weather="fine")
    inspect["NetworkSettings"]["Tide"] = 1
    inspect["NetworkSettings"]["Networks"]["bridge"]["Colour"] = "red"
    spec = create(inspect)
    assert spec["unknown_fields"] == [
        "Config.Mood",
        "HostConfig.Gravity",
        "NetworkSettings.Networks.bridge.Colour",
        "NetworkSettings.Tide",
        "Weather",
    ]
    assert spec["body"]["Mood"] == "good"
    assert spec["body"]["HostConfig"]["Gravity"] == {"x": 1}
    assert spec["body"]["NetworkingConfig"]["EndpointsConfig"]["bridge"]["Colour"] == "red"


def test_transforms_and_rows_agree() -> None:
    rows = {
        row.path
        for row in spec_fields.FIELDS
        if row.action == spec_fields.TRANSFORM and row.section in ("Config", "HostConfig")
    }
    assert rows == set(spec_create.TRANSFORMS)


def test_every_row_says_why() -> None:
    assert all(row.why for row in spec_fields.FIELDS)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("HostConfig.Annotations", "1.42"),
        ("HostConfig.CgroupnsMode", "1.40"),
        ("HostConfig.KernelMemory", "1.42"),
        ("HostConfig.KernelMemoryTCP", "1.52"),
        ("Endpoint.GwPriority", "1.47"),
    ],
)
def test_what_the_api_cannot_express_is_named(path: str, api: str) -> None:
    case = next(case for case in CASES if case.path == path)
    spec = create(case.container(), api)
    assert case.sent_by(spec) == ABSENT
    (note,) = spec["unsupported_fields"]
    assert note["field"] == path.replace("Endpoint.", "NetworkSettings.Networks.app.")
    assert ("too old" in note["why"]) == ("KernelMemory" not in path)
    assert ("removed in %s" % api in note["why"]) == ("KernelMemory" in path)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("HostConfig.Annotations", "1.43"),
        ("HostConfig.CgroupnsMode", "1.41"),
        ("HostConfig.KernelMemory", "1.41"),
        ("HostConfig.KernelMemoryTCP", "1.51"),
        ("Endpoint.GwPriority", "1.48"),
    ],
)
def test_what_the_api_can_only_just_express_is_sent(path: str, api: str) -> None:
    case = next(case for case in CASES if case.path == path)
    spec = create(case.container(), api)
    assert case.sent_by(spec) == case.value
    assert spec["unsupported_fields"] == []


def test_nobody_misses_what_was_not_used() -> None:
    inspect = container(host={"KernelMemory": 0, "KernelMemoryTCP": 0, "Annotations": None, "CgroupnsMode": ""})
    for api in ("1.40", "1.52"):
        spec = create(inspect, api)
        assert spec["unsupported_fields"] == []
        assert "KernelMemory" not in spec["body"]["HostConfig"] or api == "1.40"


@pytest.mark.parametrize(
    ("mount", "since", "field"),
    [
        ({"Type": "bind", "BindOptions": {"CreateMountpoint": True}}, "1.42", "BindOptions.CreateMountpoint"),
        ({"Type": "bind", "BindOptions": {"ReadOnlyNonRecursive": True}}, "1.44", "BindOptions.ReadOnlyNonRecursive"),
        (
            {"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": True}},
            "1.44",
            "BindOptions.ReadOnlyForceRecursive",
        ),
        ({"Type": "volume", "VolumeOptions": {"Subpath": "a"}}, "1.45", "VolumeOptions.Subpath"),
        ({"Type": "tmpfs", "TmpfsOptions": {"Options": [["noexec"]]}}, "1.46", "TmpfsOptions.Options"),
    ],
)
def test_parts_of_mounts_by_api(mount: dict[str, Any], since: str, field: str) -> None:
    inspect = container(host={"Mounts": [{"Source": "x", "Target": "/x", **mount}]})
    older = since[:2] + str(int(since[2:]) - 1)
    assert create(inspect, since)["unsupported_fields"] == []
    assert [note["field"] for note in create(inspect, older)["unsupported_fields"]] == [f"HostConfig.Mounts.{field}"]


def test_start_interval_by_api() -> None:
    inspect = container({"Healthcheck": {**HEALTH, "StartInterval": 1_000_000_000}})
    assert create(inspect, "1.44")["unsupported_fields"] == []
    assert [note["field"] for note in create(inspect, "1.43")["unsupported_fields"]] == [
        "Config.Healthcheck.StartInterval"
    ]


# ------------------------------------------------------------------------------------- transforms beyond one value


def test_the_default_hostname_is_kept() -> None:
    assert create(container())["body"]["Hostname"] == ID[:12]


def test_no_hostname_beside_the_hosts_uts_namespace() -> None:
    spec = create(container({"Hostname": "alpha"}, {"UTSMode": "host"}))
    assert "Hostname" not in spec["body"]
    assert "Config.Hostname" in [change["field"] for change in spec["changes"]]


@pytest.mark.parametrize("empty", [None, []])
def test_a_cleared_entry_point_stays_cleared(empty: Any) -> None:
    assert create(container({"Entrypoint": empty}))["body"]["Entrypoint"] == [""]


@pytest.mark.parametrize(
    ("resolves_to", "sent"),
    [(IMAGE, "app:1"), (None, IMAGE), ("sha256:" + "6" * 64, IMAGE)],
    ids=["same", "no", "other"],
)
def test_image_reference(resolves_to: str | None, sent: str) -> None:
    assert create(container(), reference_image_id=resolves_to)["body"]["Image"] == sent


def test_container_wide_mac_address_below_1_44() -> None:
    body = create(container({"MacAddress": MAC}), "1.43")["body"]
    assert body["MacAddress"] == MAC
    assert "MacAddress" not in body["NetworkingConfig"]["EndpointsConfig"]["bridge"]


def test_console_size_is_not_worth_a_message() -> None:
    spec = create(container(host={"ConsoleSize": [40, 120]}), "1.41")
    assert spec["body"]["HostConfig"]["ConsoleSize"] == [0, 0]
    assert spec["unsupported_fields"] == spec["changes"] == []


def test_restart_policy_is_returned_apart() -> None:
    spec = create(container(host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}}))
    assert spec["body"]["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert spec["restart_policy"] == {"Name": "on-failure", "MaximumRetryCount": 5}


@pytest.mark.parametrize("policy", [None, {}, {"Name": "", "MaximumRetryCount": 0}])
def test_no_restart_policy(policy: Any) -> None:
    assert create(container(host={"RestartPolicy": policy}))["restart_policy"] == {"Name": "no", "MaximumRetryCount": 0}


def test_name_without_its_slash() -> None:
    assert create(container())["name"] == "one"


def test_inlined_seccomp_profile_byte_for_byte() -> None:
    profile = 'seccomp={\n\t"defaultAction": "SCMP_ACT_ALLOW",  "comment": "\\u00e9 \\\\ é"\n}\n'
    assert create(container(host={"SecurityOpt": [profile]}))["body"]["HostConfig"]["SecurityOpt"] == [profile]


@pytest.mark.parametrize("paths", [None, [], ["/proc/kcore"]], ids=["default", "unconfined", "own"])
def test_masked_paths_keep_null_and_empty_apart(paths: Any) -> None:
    host = create(container(host={"MaskedPaths": paths, "ReadonlyPaths": paths}))["body"]["HostConfig"]
    assert host["MaskedPaths"] == paths
    assert host["ReadonlyPaths"] == paths


def test_nothing_changed_is_not_reported_as_a_change() -> None:
    assert create(container())["changes"] == []
