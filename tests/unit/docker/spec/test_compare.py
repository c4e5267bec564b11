# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The comparison of a container before and after its move."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.docker.spec.samples import BY_HAND, CAPTURED, ID, SECRET, container, load, volume
from tests.unit.docker.spec.test_fields import CASES, REFUSED, Case
from tests.workloads.inspect_comparison import Difference, compare, unexpected

OTHER_ID = "ba9876543210" + "d" * 52

#: What has to differ, told here once more and by hand: a row that says so by mistake must not pass.
MAY_DIFFER = {
    "HostConfig.ContainerIDFile",
    "Endpoint.MacAddress",
    "Endpoint.NetworkID",
    "Endpoint.EndpointID",
    "Endpoint.Gateway",
    "Endpoint.IPAddress",
    "Endpoint.IPPrefixLen",
    "Endpoint.IPv6Gateway",
    "Endpoint.GlobalIPv6Address",
    "Endpoint.GlobalIPv6PrefixLen",
    "Endpoint.DNSNames",
    "NetworkSettings.Bridge",
    "NetworkSettings.SandboxID",
    "NetworkSettings.SandboxKey",
    "NetworkSettings.HairpinMode",
    "NetworkSettings.LinkLocalIPv6Address",
    "NetworkSettings.LinkLocalIPv6PrefixLen",
    "NetworkSettings.SecondaryIPAddresses",
    "NetworkSettings.SecondaryIPv6Addresses",
    "NetworkSettings.EndpointID",
    "NetworkSettings.Gateway",
    "NetworkSettings.GlobalIPv6Address",
    "NetworkSettings.GlobalIPv6PrefixLen",
    "NetworkSettings.IPAddress",
    "NetworkSettings.IPPrefixLen",
    "NetworkSettings.IPv6Gateway",
    "NetworkSettings.MacAddress",
    "Id",
    "Created",
    "State",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "LogPath",
    "Node",
    "RestartCount",
    "MountLabel",
    "ProcessLabel",
    "ExecIDs",
    "GraphDriver",
    "Storage",
    "SizeRw",
    "SizeRootFs",
    "ImageManifestDescriptor",
}
#: Their absence on the destination is what the creation asked for.
ASKED_FOR = {"Config.MacAddress", "HostConfig.VolumesFrom"}
#: Differences that come with that of a field.
ALSO_SEEN = {"HostConfig.Tmpfs": {"Mounts"}}
#: Compared through other fields, in tests of their own.
APART = {"NetworkSettings.Ports", "NetworkSettings.Networks", "Mounts"}


def pair(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A container and its good copy."""
    source = container(**more)
    copied = copy.deepcopy(source)
    copied["Id"] = OTHER_ID
    return source, copied


def unforeseen(source: dict[str, Any], destination: dict[str, Any], api_version: str = "1.51") -> list[str]:
    return [difference.path for difference in unexpected(compare(source, destination, api_version=api_version))]


@pytest.mark.parametrize("name", [BY_HAND, *CAPTURED])
def test_nothing_differs_from_itself(name: str) -> None:
    inspect = load(name)["inspect"]
    assert compare(inspect, copy.deepcopy(inspect)) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.path not in APART], ids=lambda case: case.path)
def test_a_lost_field_is_seen(case: Case) -> None:
    if case.sent is REFUSED and case.path in ("HostConfig.PidMode", "HostConfig.Links"):
        case.value = case.value or "x"
    source = case.container()
    destination = copy.deepcopy(source)
    section, name = case.place
    if section == "Endpoint":
        place = destination["NetworkSettings"]["Networks"]["app"]
    else:
        place = destination if section == "top" else destination[section]
    place[name] = {} if case.path == "State" else None
    found = compare(source, destination)
    prefix = case.path.replace("Endpoint.", "NetworkSettings.Networks.app.")
    assert [difference for difference in found if difference.path.startswith(prefix)], "the loss was not seen"
    wrong = {difference.path.split("[")[0] for difference in unexpected(found)}
    if case.path in MAY_DIFFER | ASKED_FOR and case.path != "Endpoint.MacAddress":
        assert wrong == set()
    else:
        assert wrong - ALSO_SEEN.get(case.path, set()) == {prefix}


@pytest.mark.parametrize("case", [case for case in CASES if case.path not in APART], ids=lambda case: case.path)
def test_a_field_that_appears_is_seen(case: Case) -> None:
    destination = case.container()
    source = copy.deepcopy(destination)
    section, name = case.place
    if section == "Endpoint":
        place = source["NetworkSettings"]["Networks"]["app"]
    else:
        place = source if section == "top" else source[section]
    del place[name]
    source["Config"].pop("MacAddress", None)
    destination["Config"].pop("MacAddress", None) if case.path == "Endpoint.MacAddress" else None
    found = compare(source, destination)
    prefix = case.path.replace("Endpoint.", "NetworkSettings.Networks.app.")
    assert [difference for difference in found if difference.path.startswith(prefix)], "it was not seen"
    wrong = {difference.path.split("[")[0] for difference in unexpected(found)}
    assert wrong - ALSO_SEEN.get(case.path, set()) == (set() if case.path in MAY_DIFFER else {prefix})


@pytest.mark.parametrize(
    "path",
    [
        "Config.StopTimeout",
        "HostConfig.Init",
        "HostConfig.MemorySwappiness",
        "HostConfig.MaskedPaths",
        "HostConfig.ReadonlyPaths",
    ],
)
def test_null_is_not_the_zero_value_everywhere(path: str) -> None:
    section, name = path.split(".")
    source, destination = pair()
    zero: Any = {"StopTimeout": 0, "Init": False, "MemorySwappiness": 0}.get(name, [])
    source[section][name], destination[section][name] = None, zero
    assert unforeseen(source, destination) == [path]


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("HostConfig.OomKillDisable", None, False),
        ("HostConfig.BlkioDeviceReadBps", None, []),
        ("HostConfig.Links", None, []),
        ("HostConfig.CapAdd", ["CAP_A", "CAP_B"], ["CAP_B", "CAP_A"]),
        ("HostConfig.LogConfig", {"Type": "json-file", "Config": None}, {"Type": "json-file", "Config": {}}),
        (
            "HostConfig.Ulimits",
            [{"Name": "a", "Soft": 1, "Hard": 1}, {"Name": "b", "Soft": 0, "Hard": 0}],
            [{"Name": "b"}, {"Name": "a", "Hard": 1, "Soft": 1}],
        ),
        ("Config.Env", ["A=1", "B=2"], ["B=2", "A=1"]),
        ("Config.Labels", None, {}),
        (
            "HostConfig.Mounts",
            [{"Type": "volume", "Source": "a", "Target": "/a", "VolumeOptions": {"DriverConfig": {}}}],
            [{"Type": "volume", "Source": "a", "Target": "/a"}],
        ),
    ],
)
def test_the_same_in_other_words(path: str, one: Any, other: Any) -> None:
    section, name = path.split(".")
    source, destination = pair()
    source[section][name], destination[section][name] = one, other
    assert unforeseen(source, destination) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Config.ExposedPorts", {"80/tcp": {}}),
        ("Config.Volumes", {"/data": {}}),
        ("Config.Labels", {"marked": ""}),
        ("HostConfig.Annotations", {"marked": ""}),
        ("HostConfig.Tmpfs", {"/run": ""}),
        ("HostConfig.PortBindings", {"80/tcp": []}),
        ("HostConfig.Sysctls", {"net.ipv4.ip_forward": ""}),
    ],
)
def test_a_key_without_a_value_is_still_there(path: str, value: Any) -> None:
    section, name = path.split(".")
    (key,) = value
    source, destination = pair()
    more: dict[str, Any] = {"x": "y"} if value[key] == "" else {"x": {}}
    source[section][name], destination[section][name] = {**value, **more}, more
    assert f"{path}[{key}]" in unforeseen(source, destination)
    destination[section][name] = None
    assert f"{path}[{key}]" in unforeseen(source, destination)


def test_a_log_option_without_a_value_is_still_there() -> None:
    source, destination = pair(host={"LogConfig": {"Type": "json-file", "Config": {"tag": ""}}})
    destination["HostConfig"]["LogConfig"] = {"Type": "json-file", "Config": {}}
    assert unforeseen(source, destination) == ["HostConfig.LogConfig"]


@pytest.mark.parametrize("path", ["Args", "Config.Cmd", "Config.Entrypoint", "HostConfig.Dns"])
def test_order_counts_where_it_means_something(path: str) -> None:
    section, _dot, name = path.rpartition(".")
    source, destination = pair()
    one, other = (inspect[section] if section else inspect for inspect in (source, destination))
    one[name], other[name] = ["a", "b"], ["b", "a"]
    assert unforeseen(source, destination) == [path]


def test_ids_and_state_have_to_differ() -> None:
    source, destination = pair()
    destination["State"]["Pid"] = 4711
    found = compare(source, destination)
    assert [(difference.path, difference.expected) for difference in found] == [("Id", True), ("State.Pid", True)]
    assert (found[1].source, found[1].destination) == ("42", "4711")


# --------------------------------------------------------------------------------------------------- what was asked for


def test_the_restart_policy_before_and_after_the_proof() -> None:
    source, destination = pair(host={"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}})
    assert unforeseen(source, destination) == []
    destination["HostConfig"]["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    assert unforeseen(source, destination) == []
    destination["HostConfig"]["RestartPolicy"] = {"Name": "on-failure", "MaximumRetryCount": 1}
    assert unforeseen(source, destination) == [
        "HostConfig.RestartPolicy[MaximumRetryCount]",
        "HostConfig.RestartPolicy[Name]",
    ]


def test_the_image_by_its_id() -> None:
    source, destination = pair()
    destination["Config"]["Image"] = destination["Image"]
    assert unforeseen(source, destination) == []
    destination["Config"]["Image"] = "other:1"
    assert unforeseen(source, destination) == ["Config.Image"]


def test_another_image_is_seen() -> None:
    source, destination = pair()
    destination["Image"] = "sha256:" + "7" * 64
    assert unforeseen(source, destination) == ["Image"]


def test_the_images_id_in_stores_of_two_kinds() -> None:
    source, destination = pair()
    source["Driver"], destination["Driver"] = "overlay2", "overlayfs"
    destination["Image"] = "sha256:" + "7" * 64
    assert unforeseen(source, destination) == []
    assert unforeseen(destination, source) == []
    source["Driver"] = "overlayfs"
    assert unforeseen(source, destination) == ["Image"]
    source["Driver"] = "btrfs"
    assert unforeseen(source, destination) == ["Image", "Driver"]


def test_pinned_ports_must_be_the_ones_in_use() -> None:
    ports = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}]}
    source, destination = pair(host={"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}}, ports=ports)
    destination["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostIp": "", "HostPort": "32768"}]}
    assert unforeseen(source, destination) == []
    destination["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostIp": "", "HostPort": "32999"}]}
    assert unforeseen(source, destination) == ["HostConfig.PortBindings[80/tcp]"]


def test_bound_ports() -> None:
    ports = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "81"}, {"HostIp": "::", "HostPort": "81"}]}
    source, destination = pair(ports=ports)
    destination["NetworkSettings"]["Ports"] = {"80/tcp": ports["80/tcp"][:1]}
    (difference,) = [entry for entry in compare(source, destination) if "Ports" in entry.path]
    assert difference == Difference(
        "NetworkSettings.Ports.80/tcp",
        '["0.0.0.0:81", ":::81"]',
        '["0.0.0.0:81"]',
        True,  # IPv6 may be missing on one host
        "bound on other addresses of the host",
    )
    destination["NetworkSettings"]["Ports"] = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "82"}]}
    assert unforeseen(source, destination) == ["NetworkSettings.Ports.80/tcp"]
    destination["NetworkSettings"]["Ports"] = {}
    assert unforeseen(source, destination) == ["NetworkSettings.Ports.80/tcp"]
    destination["State"]["Running"] = False
    assert unforeseen(source, destination) == []


# --------------------------------------------------------------------------------------------------------- networks


def endpoint(**more: Any) -> dict[str, Any]:
    return {"NetworkID": "a" * 64, "IPAddress": "172.30.0.2", "MacAddress": "02:42:ac:1e:00:02", **more}


def on(**endpoints: dict[str, Any]) -> dict[str, Any]:
    return container(host={"NetworkMode": "front"}, networks=endpoints)


def test_another_network_is_seen() -> None:
    source, destination = on(front=endpoint(), back=endpoint()), on(front=endpoint(), more=endpoint())
    assert unforeseen(source, destination) == ["NetworkSettings.Networks.back", "NetworkSettings.Networks.more"]


def test_automatic_aliases_are_not_compared() -> None:
    source = on(front=endpoint(Aliases=["web", ID[:12]]))
    destination = on(front=endpoint(Aliases=["web", OTHER_ID[:12], ID[:12]]))
    destination["Id"] = OTHER_ID
    assert unforeseen(source, destination) == []
    destination["NetworkSettings"]["Networks"]["front"]["Aliases"] = [OTHER_ID[:12], ID[:12]]
    assert unforeseen(source, destination) == ["NetworkSettings.Networks.front.Aliases"]


def test_a_requested_mac_address_must_be_there() -> None:
    source = on(front=endpoint(MacAddress="02:42:de:ad:be:ef"))
    destination = on(front=endpoint())
    assert unforeseen(source, destination) == []
    source["Config"]["MacAddress"] = "02:42:de:ad:be:ef"
    assert unforeseen(source, destination) == ["NetworkSettings.Networks.front.MacAddress"]


def test_interface_sysctls_that_moved() -> None:
    sysctls = {"net.ipv4.conf.eth0.log_martians": "1"}
    source = on(front=endpoint())
    source["HostConfig"]["Sysctls"] = sysctls
    destination = on(
        front=endpoint(DriverOpts={"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"})
    )
    assert unforeseen(source, destination, "1.51") == []
    assert unforeseen(source, destination, "1.45") == [
        "HostConfig.Sysctls[net.ipv4.conf.eth0.log_martians]",
        "NetworkSettings.Networks.front.DriverOpts[com.docker.network.endpoint.sysctls]",
    ]


# ----------------------------------------------------------------------------------------------------------- mounts


def mounted(**more: Any) -> dict[str, Any]:
    entry = volume("data", "/data", Mode="z", **more)
    return container(host={"Binds": ["data:/data"]}, mounts=[entry])


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"Name": "other"}, "Mounts[/data].name"),
        ({"Driver": "nfs"}, "Mounts[/data].driver"),
        ({"RW": False}, "Mounts[/data].read_write"),
        ({"Mode": "Z"}, "Mounts[/data].mode"),
        ({"Propagation": "rshared"}, "Mounts[/data].propagation"),
        ({"Type": "bind"}, "Mounts[/data].kind"),
    ],
)
def test_another_mount_is_seen(change: dict[str, Any], seen: str) -> None:
    destination = mounted()
    destination["Mounts"][0].update(change)
    assert seen in unforeseen(mounted(), destination)


def test_the_place_of_a_volume_may_differ_that_of_a_bind_may_not() -> None:
    destination = mounted()
    destination["Mounts"][0]["Source"] = "/srv/docker/volumes/data/_data"
    assert unforeseen(mounted(), destination) == []
    source = mounted()
    for inspect in (source, destination):
        inspect["Mounts"][0].update(Type="bind", Name="", Driver="")
    assert unforeseen(source, destination) == ["Mounts[/data].source"]


def test_a_missing_and_an_additional_mount_are_seen() -> None:
    destination = mounted()
    destination["Mounts"] = [volume("data", "/elsewhere", Mode="z")]
    assert unforeseen(mounted(), destination) == ["Mounts[/data]", "Mounts[/elsewhere]"]


def test_an_anonymous_volume_under_its_name() -> None:
    name = "a" * 64
    source = container({"Volumes": {"/anon": {}}}, mounts=[volume(name, "/anon")])
    destination = container(
        {"Volumes": {"/anon": {}}},
        {"Mounts": [{"Type": "volume", "Source": name, "Target": "/anon", "VolumeOptions": {"NoCopy": True}}]},
        mounts=[volume(name, "/anon", Mode="z")],
    )
    found = compare(source, destination)
    assert [difference.path for difference in found] == ["HostConfig.Mounts[/anon]", "Mounts[/anon].mode"]
    assert unexpected(found) == []
    destination["Mounts"][0]["Name"] = "b" * 64
    assert unforeseen(source, destination) == ["Mounts[/anon].name"]


# ---------------------------------------------------------------------------------------------------------- secrets


def test_no_secret_in_a_difference() -> None:
    config = {
        "Env": [f"PASSWORD={SECRET}", "SAME=1", f"GONE={SECRET}"],
        "Cmd": [SECRET],
        "Entrypoint": ["/entry", SECRET],
        "Labels": {"auth": SECRET},
        "Healthcheck": {"Test": ["CMD-SHELL", SECRET]},
    }
    host = {
        "LogConfig": {"Type": "splunk", "Config": {"splunk-token": SECRET}},
        "Annotations": {"a": SECRET},
        "SecurityOpt": [f'seccomp={{"comment":"{SECRET}"}}'],
        "Mounts": [
            {
                "Type": "volume",
                "Source": "s",
                "Target": "/s",
                "VolumeOptions": {"DriverConfig": {"Options": {"o": SECRET}}},
            }
        ],
        "Gravity": SECRET,
    }
    source = container(config, host, Args=[SECRET], Path="/entry", Weather=SECRET)
    source["State"].update(Error=SECRET, Health={"Log": [{"Output": SECRET}]})
    source["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"] = {"x": SECRET}
    destination = container(Weather=SECRET + "2")
    for one, other in ((source, destination), (destination, source), (source, _changed(source))):
        found = compare(one, other)
        assert len(unexpected(found)) >= 9
        assert SECRET not in repr(found)


def _changed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _changed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_changed(item) for item in value]
    return value.replace(SECRET, SECRET + "2") if isinstance(value, str) else value


def test_environment_by_name() -> None:
    source, destination = pair(config={"Env": ["A=1", "B=2", "C=3"]})
    destination["Config"]["Env"] = ["A=1", "B=9", "D=4"]
    assert [entry for entry in compare(source, destination) if entry.path != "Id"] == [
        Difference("Config.Env[B]", "set", "differs", False, "it must be the same on both hosts"),
        Difference("Config.Env[C]", "set", "not set", False, "it must be the same on both hosts"),
        Difference("Config.Env[D]", "not set", "set", False, "it must be the same on both hosts"),
    ]


def test_long_values_are_cut() -> None:
    source, destination = pair(host={"ExtraHosts": ["h%d:192.0.2.1" % number for number in range(100)]})
    destination["HostConfig"]["ExtraHosts"] = None
    (difference,) = unexpected(compare(source, destination))
    assert len(difference.source) < 220
