# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule both ways: it tells of what it is there for, in words with the facts in them, and of nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.support import criu_verdict
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import host as facts_of_host
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import (
    RULES,
    SEVERITIES,
    Finding,
    Settings,
)
from tests.unit.docker.spec.samples import ID
from tests.unit.preflight import samples
from tests.unit.preflight.samples import Facts, bind, file_place, network, other_device, place, volume

Change = Callable[[Facts], object]

BOTH = ("source", "destination")
SETTINGS = Settings()


def judge(case: Facts, engine: str = "runtime", settings: Settings = SETTINGS) -> list[Finding]:
    at = case.get("judged_at", 1001.0)
    verdict = preflight_judge.judge(case["source"], case["destination"], engine, settings=settings, judged_at=at)
    return verdict.findings


# -- how a case is changed ----------------------------------------------------------------------------------------


def on(side: str, *path: str, to: Any) -> Change:
    """One fact of a host."""

    def change(case: Facts) -> None:
        facts = case[side]
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = to

    return change


def of(*path: str, to: Any) -> Change:
    """One fact of the container."""
    return on("source", "container", *path, to=to)


def there(*path: str, to: Any) -> Change:
    """One fact of what the destination has for it."""
    return on("destination", "for_container", *path, to=to)


def inspect(**more: Any) -> Change:
    """The container's inspect data, as it was created."""

    def change(case: Facts) -> None:
        case["source"]["container"]["inspect"] = samples.container(**more)["inspect"]

    return change


def state(**more: Any) -> Change:
    return lambda case: case["source"]["container"]["inspect"]["State"].update(more)


def all_of(*changes: Change) -> Change:
    def change(case: Facts) -> None:
        for one in changes:
            one(case)

    return change


def engine(side: str, version: dict[str, Any] | None = None, **info: Any) -> Change:
    """Another engine on a host; whether the shim is there is a question of its own."""

    def change(case: Facts) -> None:
        docker = case[side]["docker"]
        reported = facts_of_host.parse_engine({**samples.VERSION, **(version or {})}, {**samples.INFO, **info})
        docker.update(reported, shim=docker["shim"])

    return change


def no_engine(side: str) -> Change:
    def refuse(_path: str) -> Facts:
        raise FileNotFoundError

    def change(case: Facts) -> None:
        case[side]["docker"] = {**facts_of_host.docker_facts(run, refuse), "installed": False}

    return change


def dead_engine(side: str) -> Change:
    gone = {"installed": True, "error": "The engine does not answer: timed out"}
    return all_of(no_engine(side), lambda case: case[side]["docker"].update(gone))


def unusable(side: str) -> Change:
    verdict = criu_verdict(None, None, None, "", "6.12.1", "x86_64")
    return lambda case: case[side].update(usable=not verdict.reasons, reasons=verdict.reasons)


def fails_when_tried(side: str) -> Change:
    error = "A small container of its own cannot be dumped: sockets: Can't get 1:16 opt: Operation not supported."
    verdict = criu_verdict("4.1.1", None, True, "Looks good.", "6.18.5", "x86_64", False, error)

    def change(case: Facts) -> None:
        case[side].update(usable=not verdict.reasons, reasons=verdict.reasons)
        case[side]["self_test"].update(ok=False, error=error)

    return change


def rsync(side: str, version: str | None, *, follows_links: bool = True) -> Change:
    return on(side, "rsync", to={"version": version, "error": "", "follows_links": follows_links})


def disk(side: str, path: str, free: int) -> Change:
    def change(case: Facts) -> None:
        for one in case[side]["disk"]:
            if one["path"] == path:
                one["free_bytes"] = free

    return change


WATCHES = "fs.inotify.max_user_watches"


def limits(source: dict[str, int], destination: dict[str, int]) -> Change:
    """The settings of two whole hosts."""
    return all_of(on("source", "limits", to=source), on("destination", "limits", to=destination))


def pool(side: str, size: str, **counters: int) -> Change:
    """Huge pages of a host."""
    return lambda case: case[side]["huge_pages"][size].update(counters)


def same_disk(side: str, paths: tuple[str, ...], free: int) -> Change:
    """Places that share one file system."""

    def change(case: Facts) -> None:
        for one in case[side]["disk"]:
            if one["path"] in paths:
                one.update(device=99, free_bytes=free)

    return change


# When a host was asked, what its clock said then, how long before its answer, and when the answer came.
Reading = tuple[float, float, float, float]


def read_at(source: Reading, destination: Reading) -> Change:
    """The clocks as they were read; the control node's second 0 is its second 1000, and it judges at 1001 without it."""

    def change(case: Facts) -> None:
        for side, (asked, wall, age, _answered) in (("source", source), ("destination", destination)):
            case[side]["clock"] = {"wall": wall, "asked_at": 1000 + asked, "age_seconds": age}
        assert source[3] <= destination[0]
        case["judged_at"] = 1000 + destination[3]

    return change


CONTAINERD: dict[str, Any] = {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}


def with_bind(found: Facts, **more: Any) -> Change:
    """A bind mount of the container, and what the destination has at its path."""
    return all_of(of("volumes", to=[bind(**more)]), there("binds", to={bind(**more)["path"]: found}))


def with_volume(found: Facts | None, **more: Any) -> Change:
    base = {"driver": "local", "options": "", "has_content": False, "used_by": []}
    reported = None if found is None else {**base, **found}
    return all_of(of("volumes", to=[volume(**more)]), there("volumes", to={"data": reported}))


def with_network(found: Facts | None, *, address: str = "", **more: Any) -> Change:
    endpoint = {
        "NetworkID": "a" * 64,
        "IPAddress": "172.30.0.50",
        "IPAMConfig": {"IPv4Address": address} if address else {},
    }
    reported = None if found is None else {**network("app"), "addresses_in_use": [], **found}
    return all_of(
        inspect(host={"NetworkMode": "app"}, networks={"app": endpoint}),
        of("networks", to=[network("app", **more)]),
        there("networks", to={"app": reported}),
    )


def on_network(**endpoint: Any) -> Change:
    return all_of(
        inspect(host={"NetworkMode": "app"}, networks={"app": {"NetworkID": "a" * 64, **endpoint}}),
        of("networks", to=[network("app")]),
        there("networks", to={"app": {**network("app"), "addresses_in_use": []}}),
    )


def held(**kinds: list[str]) -> Change:
    return of("processes", "held", to=kinds)


SLEEPING = [
    {"program": "perl", "seconds": 1e5, "rest_known": True},
    {"program": "php", "seconds": float(2**63), "rest_known": False},
]
DATABASES = [
    {"path": "/data/app.db", "program": "python3", "shared": ""},
    {"path": "/nfs/app.db", "program": "python3", "shared": "/nfs"},
]
PEERS = [
    {"program": "fpm", "name": "/run/fpm.sock", "uid": 33, "gid": 33},
    {"program": "psql", "name": "@db", "uid": 0, "gid": 70},
]
LISTENING = ["tcp", "0.0.0.0", "80", "0.0.0.0", "0", "10", "7", "0"]
INCOMING = ["tcp", "172.17.0.2", "80", "198.51.100.7", "40000", "1", "8", "0"]
OUTGOING = ["tcp", "172.17.0.2", "50000", "198.51.100.9", "5432", "1", "9", "0"]
BOUND = ["tcp", "172.17.0.2", "9000", "0.0.0.0", "0", "10", "5", "0"]
WITHIN = ["tcp", "127.0.0.1", "80", "127.0.0.1", "6000", "1", "11", "0"]
LISTENING_6 = ["tcp", "::", "80", "::", "0", "10", "7", "0"]


def sockets(*inet: list[str], lasting: tuple[list[str], ...] = (), **more: Any) -> Change:
    return all_of(
        of("sockets", "inet", to=[LISTENING, *inet]),
        of("lasting", to=list(lasting)),
        *(of("sockets", name, to=value) for name, value in more.items()),
    )


def kept(change: Change, driver: str = "macvlan") -> Change:
    """The same where the container keeps its address on a network of that driver."""
    settings = {"driver": driver, "subnets": ["172.17.0.0/16"]}
    endpoint = {"IPAddress": "172.17.0.2", "NetworkID": "a" * 64, "IPAMConfig": {"IPv4Address": "172.17.0.2"}}
    endpoint["MacAddress"] = "02:42:ac:11:00:02"
    return all_of(
        inspect(host={"NetworkMode": "app"}, networks={"app": endpoint}),
        of("networks", to=[network("app", **settings)]),
        there("networks", to={"app": {**network("app", **settings), "addresses_in_use": []}}),
        change,
    )


def mounted(kind: str, **more: Any) -> Change:
    entry = {
        "Type": kind,
        "Source": "/x",
        "Destination": "/y",
        "Mode": "",
        "RW": True,
        "Propagation": "rprivate",
        **more,
    }
    return inspect(mounts=[entry])


def label(name: str) -> Change:
    return inspect(config={"Labels": {name: "s3cret"}})


def created(**host: Any) -> Change:
    return inspect(host=host)


def configured(**config: Any) -> Change:
    return inspect(config=config)


# -- the table ----------------------------------------------------------------------------------------------------


class Row:
    """A change and what one rule has to say of it; no text: it must be silent."""

    def __init__(
        self,
        rule: str,
        change: Change,
        *texts: str,
        engine: str = "runtime",
        also: tuple[str, ...] = (),
        remedy: str = "",
    ) -> None:
        self.rule = rule
        self.change = change
        self.texts = texts
        self.engine = engine
        # A part of what there is to do, where that has figures.
        self.remedy = remedy
        # Rules that such a case cannot but set off as well.
        self.also = also


def each_side(rule: str, change: Callable[[str], Change], *texts: str, **more: Any) -> list[Row]:
    return [Row(rule, change(side), side, *texts, **more) for side in BOTH]


TABLE: list[Row] = [
    # -- hosts: what has to be there
    *each_side("docker_present", no_engine, "is not installed"),
    *each_side("docker_present", dead_engine, "does not answer: The engine does not answer: timed out"),
    *each_side("docker_py_present", lambda side: on(side, "python", "docker_py", to=None), "has no docker-py"),
    *each_side("criu_usable", unusable, "CRIU cannot be used"),
    *each_side("criu_works", fails_when_tried, "CRIU does not work", "sockets: Can't get 1:16 opt"),
    *each_side(
        "criu_options_work",
        lambda side: on(side, "self_test", "host_file_error", to="CRIU 4.1.1 crashed on kernel 6.12.1."),
        "CRIU 4.1.1 crashed",
        engine="api",
    ),
    *each_side(
        "criu_not_tried",
        lambda side: all_of(
            on(side, "self_test", "ok", to=None), on(side, "self_test", "error", to="runc is missing.")
        ),
        "is not known: runc is missing.",
    ),
    Row("criu_remarks", on("destination", "remarks", to=["Old, but fine."]), "Destination: Old, but fine."),
    Row("criu_remarks", on("destination", "remarks", to=[])),
    *each_side("tools_present", lambda side: on(side, "tools", "rsync", to=None), "lacks rsync"),
    *each_side("tools_present", lambda side: on(side, "tools", "ssh", to=None), "lacks ssh"),
    *each_side("tools_present", lambda side: on(side, "tools", "nft", to=None), "lacks nft"),
    Row("tools_present", on("source", "tools", "zstd", to=None)),
    *each_side(
        "rsync_confined",
        lambda side: on(side, "rsync", "error", to="rsync cannot be started: Operation not permitted."),
        "Operation not permitted",
    ),
    *each_side("rsync_follows_links", lambda side: rsync(side, "3.2.7"), "3.2.7", "6.12.1"),
    *each_side("rsync_follows_links", lambda side: rsync(side, "3.4.4"), "3.4.4"),
    Row("rsync_follows_links", rsync("source", "3.5.0")),
    Row("rsync_follows_links", rsync("source", "3.10")),
    Row("rsync_follows_links", rsync("source", "3.2.7", follows_links=False)),
    Row("rsync_follows_links", rsync("source", None)),
    *each_side("archive_tools", lambda side: on(side, "tools", "tar", to=None), "lacks tar", "/dev/shm"),
    *each_side(
        "network_lock",
        lambda side: on(side, "tools", "iptables-restore", to=None),
        "lacks iptables-restore",
        engine="api",
    ),
    Row("network_lock", on("source", "criu", "options", to={"network-lock": "skip"}), engine="api"),
    # With the engine runtime the fence is the lock, where the source's CRIU can be told so.
    Row("network_lock", on("source", "tools", "iptables-restore", to=None)),
    Row(
        "network_lock",
        all_of(
            on("destination", "criu", "version", to="3.17.1"), on("destination", "tools", "iptables-restore", to=None)
        ),
        also=("criu_not_older",),
    ),
    Row(
        "network_lock",
        all_of(
            on("source", "self_test", "refused_options", to=["network-lock=skip"]),
            on("destination", "tools", "iptables-restore", to=None),
        ),
        "destination lacks iptables-restore",
    ),
    Row(
        "network_lock",
        all_of(on("source", "criu", "version", to="3.17.1"), on("source", "tools", "iptables-restore", to=None)),
        "lacks iptables-restore",
    ),
    Row(
        "network_lock",
        all_of(on("source", "criu", "options", to={"network-lock": "nftables"}), on("source", "tools", "nft", to=None)),
        "lacks nft",
        "network-lock=nftables",
        engine="api",
        also=("tools_present",),
    ),
    Row(
        "network_lock",
        all_of(
            on("source", "criu", "options", to={"network-lock": "nftables"}),
            on("source", "tools", "iptables-restore", to=None),
        ),
    ),
    Row(
        "channel_reachable",
        on("source", "peer", to=samples.peer(error="Connection refused.")),
        "beta port 22: Connection refused.",
    ),
    Row(
        "channel_reachable",
        on("source", "peer", to=samples.peer(error="it turns this host's connections away.", turned_away=True)),
        "turns this host's connections away.",
        remedy="PerSourcePenalties",
    ),
    Row("channel_reachable", lambda case: case["source"].pop("peer")),
    Row(
        "channel_leads_elsewhere",
        on("source", "peer", to=samples.peer(address="localhost", is_own=True, host_keys=["ssh-ed25519 SOURCE"])),
        "At localhost port 22 the source does not find the destination, but the source itself",
    ),
    # Of a host that shows no keys, and of hosts that were copied with their keys, nothing is proved.
    *(
        Row(
            "channel_leads_elsewhere",
            all_of(
                on("source", "peer", to=samples.peer(is_own=True, host_keys=shown)),
                on("source", "ssh_host_keys", to=["ssh-ed25519 DESTINATION"]),
            ),
            "the source itself",
        )
        for shown in ([], ["ssh-ed25519 DESTINATION"])
    ),
    # By its own outer address, through a firewall that turns it round.
    Row(
        "channel_leads_elsewhere",
        on("source", "peer", to=samples.peer(host_keys=["ssh-rsa SOURCE"])),
        "the source itself",
    ),
    Row("channel_leads_elsewhere", on("source", "peer", to=samples.peer(host_keys=["ssh-ed25519 X"])), "another host"),
    # A tunnel.
    Row("channel_leads_elsewhere", on("source", "peer", to=samples.peer(address="localhost", is_own=True))),
    Row("channel_leads_elsewhere", on("source", "peer", to=samples.peer(host_keys=[]))),
    Row(
        "channel_leads_elsewhere",
        on("source", "peer", to=samples.peer(error="Connection refused.", is_own=True)),
        also=("channel_reachable",),
    ),
    Row(
        "channel_login",
        on("destination", "channel_login", "prints", to="Welcome!"),
        "root on the destination prints",
        "'Welcome!'",
    ),
    Row(
        "channel_login",
        on("destination", "channel_login", "fails", to="its shell runs no commands"),
        "its shell runs no",
    ),
    Row("channel_login", on("destination", "channel_login", "refused", to="sshd takes no keys"), "sshd takes no keys"),
    Row("channel_login", lambda case: case["destination"].pop("channel_login")),
    Row(
        "container_found",
        on("source", "container", to={"found": False, "name": "x", "error": "There is no container 'x' on this host."}),
        "There is no container 'x'",
    ),
    Row("container_found", lambda case: case["source"].pop("container")),
    # -- hosts: engines
    *each_side("experimental_on", lambda side: engine(side, ExperimentalBuild=False), "experimental", engine="api"),
    Row("experimental_on", engine("source", ExperimentalBuild=False)),
    Row("engine_restores", engine("destination", {"Version": "25.0.0"}), "25.0.0", engine="api"),
    Row("engine_restores", engine("destination", {"Version": "28.5.2"}), "28.5.2", engine="api"),
    Row("engine_restores", engine("destination", {"Version": "28.5.2"})),
    Row("engine_restores", engine("source", {"Version": "28.5.2"}), engine="api"),
    # Run on the lab: on the host's network 28 restores.
    Row(
        "engine_restores",
        all_of(
            engine("destination", {"Version": "28.5.2"}), inspect(host={"NetworkMode": "host"}, networks={"host": {}})
        ),
        engine="api",
        also=("network_host",),
    ),
    Row(
        "shim_registered",
        on("destination", "docker", "shim", to={"registered": False}),
        "livemigrate is not registered",
    ),
    Row(
        "shim_registered",
        on("destination", "docker", "shim", to={"registered": True, "version": "0"}),
        "is of another version of this collection",
    ),
    Row("shim_registered", on("source", "docker", "shim", to={"registered": False})),
    Row("shim_registered", on("destination", "docker", "shim", to={"registered": False}), engine="api"),
    *each_side("engine_rootless", lambda side: engine(side, SecurityOptions=["name=rootless"]), "runs without root"),
    *each_side("engine_rootless", lambda side: engine(side, SecurityOptions=["name=userns"]), "remaps user ids"),
    *each_side("storage_known", lambda side: engine(side, Driver="btrfs"), "storage driver btrfs"),
    *each_side("storage_known", lambda side: engine(side, Driver="overlayfs"), "storage driver overlayfs"),
    *each_side("storage_known", lambda side: engine(side, **{**CONTAINERD, "Driver": "zfs"}), "snapshotter zfs"),
    *each_side(
        "storage_known",
        lambda side: all_of(engine(side, **CONTAINERD), on(side, "tools", "ctr", to=None)),
        "lacks ctr",
    ),
    Row("storage_known", engine("source", **CONTAINERD)),
    Row("storage_known", on("source", "tools", "ctr", to=None)),
    Row("runc_time_namespace", on("destination", "docker", "runc_version", to="1.1.15+ds1"), "runc 1.1.15+ds1"),
    Row("runc_time_namespace", on("destination", "docker", "runc_version", to="1.2.7")),
    Row("cgroup_driver_differs", engine("source", CgroupDriver="cgroupfs"), "cgroup driver cgroupfs"),
    Row(
        "cgroup_driver_differs",
        all_of(engine("source", CgroupDriver="cgroupfs"), engine("destination", CgroupDriver="cgroupfs")),
    ),
    # -- hosts: kernels, processors, CRIU
    *each_side("same_architecture", lambda side: on(side, "kernel", "machine", to="aarch64"), "aarch64"),
    *each_side("same_page_size", lambda side: on(side, "kernel", "page_size", to=65536), "65536"),
    *each_side("cgroup_v2", lambda side: engine(side, CgroupVersion="1"), "cgroup version 1"),
    *each_side("cgroup_v2", lambda side: engine(side, CgroupVersion=None), "cgroup version 1"),
    Row("criu_not_older", on("destination", "criu", "version", to="3.19"), "CRIU 3.19 is older than the source's 4.2"),
    Row("criu_not_older", on("destination", "criu", "version", to="4.1.1"), "CRIU 4.1.1 is older"),
    Row("criu_not_older", on("source", "criu", "version", to="4.3"), "CRIU 4.2 is older than the source's 4.3"),
    Row("criu_not_older", on("source", "criu", "version", to="4.2.1")),
    Row("criu_not_older", on("source", "criu", "version", to="4.1.1")),
    Row("criu_features", on("destination", "criu", "features", "uffd-noncoop", to=False), "uffd-noncoop"),
    Row("criu_features", on("source", "criu", "features", "uffd-noncoop", to=False)),
    Row("criu_features", on("destination", "criu", "features", "uffd-noncoop", to=None)),
    Row("overlayfs_maps", on("source", "criu", "features", "overlayfs_maps", to=False), "wrong devices"),
    Row("overlayfs_maps", on("source", "criu", "features", "overlayfs_maps", to=None)),
    *each_side(
        "kernel_config", lambda side: on(side, "kernel", "config", to={"CONFIG_UNIX_DIAG": False}), "CONFIG_UNIX_DIAG"
    ),
    Row("kernel_config", on("source", "kernel", "config", to={"CONFIG_MEM_SOFT_DIRTY": False})),
    Row("kernel_config", on("source", "kernel", "config", to={})),
    Row("kernel_older", on("destination", "kernel", "release", to="6.1.0"), "6.1.0 is older"),
    Row("kernel_older", on("source", "kernel", "release", to="6.1.0")),
    Row("kernel_older", on("destination", "kernel", "release", to="6.12.0")),
    Row("cpu_features", on("destination", "cpu", to={"model": "Two", "instructions": ["sse4_2"]}), "Two", "avx, avx2"),
    Row("cpu_features", on("source", "cpu", to={"model": "Two", "instructions": ["sse4_2"]})),
    Row("cpu_features", on("destination", "cpu", to={"model": "unknown", "instructions": []})),
    Row("time_namespace", on("destination", "kernel", "time_namespace", to=False), "monotonic clock"),
    Row("time_namespace", on("source", "kernel", "time_namespace", to=False)),
    Row(
        "host_limits_lower",
        limits(
            {"vm.max_map_count": 262144, "fs.aio-max-nr": 1048576}, {"vm.max_map_count": 65530, "fs.aio-max-nr": 65536}
        ),
        "vm.max_map_count = 65530 (on the source 262144), fs.aio-max-nr = 65536 (on the source 1048576)",
        remedy="sysctl -w vm.max_map_count=262144 fs.aio-max-nr=1048576",
    ),
    *[
        Row(
            "host_limits_lower",
            limits({"vm.overcommit_memory": here}, {"vm.overcommit_memory": there_}),
            f"= {there_} ",
        )
        for here, there_ in ((1, 0), (0, 2), (0, 1))
    ],
    Row("host_limits_lower", limits({"vm.max_map_count": 65530}, {"vm.max_map_count": 262144})),
    # By the kernel's default it goes by the memory.
    Row("host_limits_lower", limits({WATCHES: 65536}, {WATCHES: 32767}), "max_user_watches = 32767"),
    Row("host_limits_lower", limits({WATCHES: 65536}, {WATCHES: 32768})),
    # One of them lacks it, or is of another version of the collection.
    Row("host_limits_lower", limits({"fs.nr_open": 1}, {})),
    Row("host_limits_lower", limits({}, {"fs.nr_open": 1})),
    Row("host_limits_lower", lambda case: case["source"].pop("limits")),
    Row("clock_skew", read_at(source=(0, 1060.2, 0.3, 1), destination=(1, 1001.4, 0.2, 2)), "59 to 61 s behind"),
    Row("clock_skew", read_at(source=(0, 1000.2, 0.3, 1), destination=(1, 1004.9, 0.2, 2)), "3 to 4 s ahead of"),
    # A slow answer: the clock may have been read at its beginning or at its end.
    Row("clock_skew", read_at(source=(0, 1000.2, 0.3, 1), destination=(1, 1008.0, 0.1, 9))),
    Row("clock_skew", read_at(source=(0, 1007.5, 0.1, 8), destination=(8, 1008.2, 0.1, 9))),
    # The same answer as slow after the clock was read: it was read at the beginning then.
    Row("clock_skew", read_at(source=(0, 1000.2, 0.3, 1), destination=(1, 1008.0, 7, 9)), "6 to 8 s ahead of"),
    Row("clock_skew", on("destination", "clock", "asked_at", to=None)),
    Row("clock_skew", on("source", "clock", "asked_at", to=None)),
    Row(
        "lsm_missing",
        all_of(
            inspect(AppArmorProfile="docker-default"), on("destination", "kernel", "lsm", to=["capability", "selinux"])
        ),
        "docker-default",
        "capability, selinux",
    ),
    Row("lsm_missing", inspect(AppArmorProfile="docker-default")),
    Row(
        "lsm_missing",
        all_of(inspect(AppArmorProfile="unconfined"), on("destination", "kernel", "lsm", to=["selinux"])),
    ),
    # -- the container: state
    Row("restarting", state(Status="restarting", Restarting=True), "restarting"),
    Row("being_removed", state(Status="dead", Dead=True, Running=False), "is dead"),
    Row("being_removed", state(Status="removing", Running=False), "is removing"),
    Row("paused", state(Status="paused", Paused=True), "paused already"),
    Row("not_running", state(Status="exited", Running=False), "it is exited"),
    Row("not_running", state(Status="created", Running=False), "it is created"),
    # -- the container: namespaces
    Row("pid_mode", created(PidMode="host"), "--pid host"),
    Row("pid_mode", created(PidMode="container:other"), "another container"),
    Row("ipc_mode", created(IpcMode="host"), "the host"),
    Row("ipc_mode", created(IpcMode="container:other"), "another container"),
    Row("ipc_mode", created(IpcMode="none")),
    Row("ipc_shareable", created(IpcMode="shareable"), "/dev/shm"),
    Row("network_mode_container", created(NetworkMode="container:" + ID), "another container"),
    Row("no_network", inspect(networks={}), "disconnected from every network"),
    Row("no_network", inspect(host={"NetworkMode": "none"}, networks={"none": {}})),
    Row("no_network", inspect(config={"NetworkDisabled": True}, networks={})),
    Row("cgroup_container", created(Cgroup="container:other"), "cgroup of another container"),
    Row("userns_remap", inspect(LogPath=f"/var/lib/docker/165536.165536/containers/{ID}/{ID}-json.log"), "remaps"),
    Row("userns_remap", created(UsernsMode="private"), "remaps"),
    Row("userns_remap", created(UsernsMode="host")),
    Row("userns_remap", inspect(LogPath=f"/srv/v1.2/containers.d/{ID}/x.log")),
    # -- the container: managers
    Row("auto_remove", created(AutoRemove=True), "--rm"),
    Row("swarm_task", label("com.docker.swarm.task.id"), "Swarm"),
    Row("kubernetes_pod", label("io.kubernetes.pod.name"), "Kubernetes"),
    Row(
        "started_by_unit",
        of("started_by", to=[{"unit": "web.service", "command": "docker start"}]),
        "web.service of the source starts this container (docker start)",
    ),
    Row("started_by_unit", of("started_by", to=[])),
    Row("compose", label("com.docker.compose.project"), "Compose", "by their labels", "the old copy"),
    Row("compose", label("org.example.compose")),
    Row("links", created(Links=["/db:/one/db"]), "--link"),
    Row("links", created(Links=[])),
    Row("restart_policy", created(RestartPolicy={"Name": "unless-stopped"}), "unless-stopped"),
    Row("restart_policy", created(RestartPolicy={"Name": "no"})),
    # -- the container: kind and devices
    Row("not_linux", inspect(Platform="windows"), "not a Linux container"),
    Row("not_linux", created(Isolation="hyperv"), "not a Linux container"),
    Row("device_requests", created(DeviceRequests=[{"Count": -1}]), "--gpus"),
    Row("device_requests", created(Runtime="nvidia"), "--gpus"),
    Row("device_requests", created(DeviceRequests=[])),
    Row("exact_capabilities", created(Capabilities=["CAP_KILL"]), "1.40"),
    Row("privileged", created(Privileged=True), "every device"),
    Row("devices", created(Devices=[{"PathOnHost": "/dev/fuse"}]), "/dev/fuse"),
    Row("runtime", created(Runtime="crun"), "'crun'"),
    Row("runtime", created(Runtime="runc")),
    Row("uts_host", created(UTSMode="host"), "--uts host"),
    Row("criu_annotation", created(Annotations={"org.criu.config": "/etc/criu/one.conf"}), "org.criu.config"),
    Row("criu_annotation", created(Annotations={"other": "x"})),
    # -- the container: streams, health, log
    Row("stdin", configured(AttachStdin=True), "standard input"),
    Row("stdin", configured(OpenStdin=True), "standard input"),
    Row("stdin", configured(Tty=True)),
    Row("health_check", configured(Healthcheck={"Test": ["CMD", "true"]}), "health check"),
    Row("health_check", configured(Healthcheck={"Test": ["NONE"]})),
    Row("log_driver", created(LogConfig={"Type": "syslog"}), "'syslog'"),
    Row("log_driver", created(LogConfig={"Type": "journald"})),
    # -- the container: network, as it was created
    Row("network_host", inspect(host={"NetworkMode": "host"}, networks={"host": {}}), "network of its host"),
    Row("host_address", created(PortBindings={"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "80"}]}), "192.0.2.1"),
    Row("host_address", created(PortBindings={"80/tcp": [{"HostIp": "", "HostPort": "80"}]})),
    Row("endpoint_links", on_network(Links=["db:db"]), "app"),
    Row(
        "mac_unknown",
        on_network(IPAMConfig={"IPv4Address": "172.30.0.50"}, IPAddress="172.30.0.50", MacAddress="9a:00:00:00:00:01"),
        "MAC address on the network app",
    ),
    Row("mac_unknown", on_network(MacAddress="9a:00:00:00:00:01", IPAddress="172.30.0.2")),
    # -- the container: mounts
    Row("mount_type", mounted("image"), "of the type image"),
    Row("mount_type", mounted("npipe"), "of the type npipe"),
    Row("volumes_from_tmpfs", mounted("tmpfs", Source=""), "--volumes-from"),
    Row("docker_socket", mounted("bind", Source="/var/run/docker.sock"), "engine's socket"),
    *(Row("propagation", mounted("bind", Propagation=way), way) for way in ("shared", "rshared", "slave", "rslave")),
    Row("propagation", mounted("bind", Propagation="rprivate")),
    Row("anonymous_volume", mounted("volume", Name="a" * 64), "anonymous volume at /y"),
    Row("anonymous_volume", mounted("volume", Name="data")),
    Row("volume_unsupported", with_volume(None, device="/dev/sdb1"), "/dev/sdb1"),
    Row("volume_in_use", with_volume(None, in_use_by=["other"]), "other"),
    Row("bind_in_use", with_bind(place(), travels=True, in_use_by=["other"]), "/srv/data", "other"),
    Row("bind_mount_unknown", of("unknown_binds", to=["/srv/no"]), "/srv/no"),
    Row(
        "mounts_below_bind",
        of("kernel_mounts", "below_binds", to=[{"place": "/mnt/disk1", "kind": "ext4", "below": "/mnt"}]),
        "/mnt/disk1 (ext4, in /mnt)",
        remedy="bind-recursive=disabled",
    ),
    Row(
        "mounts_below_bind",
        of("kernel_mounts", "below_binds", to=[{"place": "/mnt/d", "kind": "tmpfs", "below": "/mnt"}] * 7),
        "and 3 more",
    ),
    # Facts of another version.
    Row("mounts_below_bind", lambda case: case["source"]["container"]["kernel_mounts"].pop("below_binds")),
    Row(
        "mount_replaced",
        of("kernel_mounts", "replaced", to=[{"place": "/etc/app.conf", "source": "/srv/app.conf", "gone": True}]),
        "/srv/app.conf was removed or replaced",
        "the old one at /etc/app.conf",
    ),
    Row(
        "mount_replaced",
        of("kernel_mounts", "replaced", to=[{"place": "/data", "source": "/srv/data", "gone": False}]),
        "at /data is not what lies at /srv/data",
    ),
    Row("storage_unsupported", of("storage_error", to="The writable layer cannot be moved."), "writable layer"),
    # -- processes
    Row("exec_session_running", of("processes", "foreign", to=["sleep"]), "docker exec", "sleep"),
    Row("session_outside", held(session_outside=["sh"]), "sh"),
    Row("traced", held(traced=["sh"]), "tracer"),
    Row("io_uring", held(io_uring=["node"]), "node"),
    Row("descriptors_unsupported", held(bpf=["agent"], perf=["perf"]), "agent"),
    Row("descriptors_unsupported", held(aio=["mysqld"])),
    Row("descriptors_unsupported", held(pipe_packets=["sudo"]), "packet mode", "sudo"),
    Row("personality", held(personality=["gdb"]), "gdb"),
    Row("speculation_controls", held(speculation=["vault"]), "restore that: vault."),
    Row("speculation_controls", held()),
    Row("semaphore_undo", held(semaphore_undo=["apache2"]), "that had threads): apache2. "),
    Row("semaphore_undo", held()),
    Row("memory_locked", held(locked_memory=["vault"]), "All memory of these programs is locked: vault."),
    Row("memory_locked", held()),
    Row("memory_merged", held(merged_memory=["qemu"]), "(KSM): qemu."),
    Row("memory_merged", held()),
    Row("kernel_keys", of("processes", "keys", to=3), "3 key(s)"),
    Row("memory_files_many", of("memory", "tmpfs_files", to=200_001), "There are 200001 files on"),
    Row("memory_files_many", of("memory", "tmpfs_files", to=200_000)),
    Row("kernel_keys", of("processes", "keys", to=0)),
    Row(
        "peer_credentials", of("processes", "peers", to=PEERS), "fpm (/run/fpm.sock, user and group 33:33), psql (@db, "
    ),
    # Facts of an older version.
    Row("peer_credentials", lambda case: case["source"]["container"]["processes"].pop("peers")),
    Row(
        "processors_missing",
        all_of(
            on("source", "kernel", "processors", to=list(range(8))),
            of(
                "processes",
                "tied",
                to=[
                    *({"program": "nginx", "processors": [number]} for number in range(8)),
                    {"program": "redis", "processors": [1, 2]},
                ],
            ),
        ),
        "does not have: nginx to 4, 5, 6, 7.",
    ),
    # Those that it has, as few as they may be.
    Row(
        "processors_missing",
        all_of(
            on("destination", "kernel", "processors", to=[0, 1]),
            of("processes", "tied", to=[{"program": "nginx", "processors": [0, 1]}]),
        ),
    ),
    Row("inotify_on_overlay", held(inotify_overlay=["dotnet"]), "dotnet", "4.2"),
    Row(
        "inotify_on_overlay",
        all_of(
            held(inotify_overlay=["dotnet"]),
            on("source", "criu", "version", to="4.3"),
            on("destination", "criu", "version", to="4.3"),
        ),
    ),
    Row("devices_open", of("processes", "devices", to=["/dev/fuse (sshfs)"]), "/dev/fuse (sshfs)"),
    Row(
        "deleted_file_large",
        of("processes", "deleted", to=[{"path": "/tmp/x", "bytes": (256 << 20) + 1, "program": "sort"}]),
        "sort",
        "/tmp/x",
        "256 MiB",
        engine="api",
    ),
    # The engine runtime tells CRIU how much there is.
    Row("deleted_file_large", of("processes", "deleted", to=[{"path": "/x", "bytes": 1 << 30, "program": "sort"}])),
    Row(
        "deleted_file_large",
        of("processes", "deleted", to=[{"path": "/x", "bytes": 256 << 20, "program": "sort"}]),
        engine="api",
    ),
    Row(
        "deleted_file_large",
        all_of(
            of("processes", "deleted", to=[{"path": "/x", "bytes": 2 << 20, "program": "sort"}]),
            on("source", "criu", "options", to={}),
        ),
        "up to 1 MiB",
        engine="api",
    ),
    Row(
        "file_locks",
        all_of(of("processes", "locks", to=3), on("source", "criu", "options", to={})),
        "3 file lock(s)",
        engine="api",
    ),
    Row("file_locks", of("processes", "locks", to=3), engine="api"),
    Row("file_locks", all_of(of("processes", "locks", to=3), on("source", "criu", "options", to={}))),
    *(
        Row("nested_namespaces", held(**{f"namespace_{kind}": ["x"]}), "x")
        for kind in ("pid", "user", "net", "ipc", "uts", "cgroup")
    ),
    Row("user_namespace", of("processes", "own_user_namespace", to=True), "user namespace"),
    Row("socket_protocol", of("processes", "protocols", to={"MPTCP": 2}), "2 MPTCP"),
    *each_side(
        "seccomp_support",
        lambda side: on(side, "criu", "features", "seccomp_suspend", to=False),
        "lacks seccomp_suspend",
    ),
    Row(
        "seccomp_support",
        all_of(
            on("source", "criu", "features", "seccomp_suspend", to=False),
            on("destination", "criu", "features", "seccomp_suspend", to=False),
            of("processes", "seccomp", to=0),
        ),
    ),
    Row("sqlite_open", of("processes", "databases", to=DATABASES[:1]), "/data/app.db (python3). SQLite remembers"),
    Row("sqlite_open", of("processes", "databases", to=DATABASES[:1] * 6), "/data/app.db (python3) and 2 more."),
    # On storage that both hosts have its number is the same, unless it is copied all the same.
    Row("sqlite_open", of("processes", "databases", to=DATABASES[1:])),
    Row(
        "sqlite_open",
        all_of(of("processes", "databases", to=DATABASES[1:]), with_bind(place(), destination="/nfs", travels=True)),
        "/nfs/app.db (python3)",
    ),
    Row(
        "sqlite_open",
        all_of(of("processes", "databases", to=DATABASES[1:]), with_bind(place(), destination="/nf", travels=True)),
    ),
    Row("pipe_without_writer", of("processes", "pipes_without_writer", to=["/run/ctl (agent)"]), "/run/ctl (agent)"),
    Row("sleep_ends", of("processes", "sleeping", to=SLEEPING), "perl (for 100000 s), php (for ever)", engine="api"),
    Row(
        "sleep_ends",
        all_of(
            of("processes", "sleeping", to=SLEEPING),
            *(on(side, "kernel", "machine", to="aarch64") for side in BOTH),
        ),
        "perl (for 100000 s), php (for ever)",
    ),
    # With the engine runtime the call is made again.
    Row("sleep_ends", of("processes", "sleeping", to=SLEEPING), also=("sleep_begins_again",)),
    Row("sleep_begins_again", of("processes", "sleeping", to=SLEEPING), "sleep still: php (for ever)."),
    Row("sleep_begins_again", of("processes", "sleeping", to=SLEEPING), engine="api", also=("sleep_ends",)),
    Row("mount_inside", of("kernel_mounts", "foreign", to=["/mnt (fuse.sshfs)"]), "/mnt (fuse.sshfs)"),
    # -- its network
    Row("socket_bound_to_address", sockets(BOUND), "172.17.0.2:9000"),
    Row("socket_bound_to_address", kept(sockets(BOUND))),
    Row("connections_break", sockets(OUTGOING, lasting=(OUTGOING,)), "198.51.100.9:5432"),
    Row("connections_break", sockets(OUTGOING)),
    Row("connections_break", kept(sockets(OUTGOING, lasting=(OUTGOING,)), "bridge"), "198.51.100.9:5432"),
    Row("connections_break", kept(sockets(OUTGOING, lasting=(OUTGOING,))), also=("connections_kept",)),
    Row("connections_break", sockets(INCOMING, lasting=(INCOMING,)), also=("connections_close",)),
    Row("multicast_joined", sockets(groups=["224.0.0.251"]), "224.0.0.251"),
    Row("multicast_unknown", sockets(unknown_groups=["224.0.0.251"]), "224.0.0.251"),
    # Facts of an older version.
    Row("multicast_unknown", lambda case: case["source"]["container"]["sockets"].pop("unknown_groups")),
    Row("unix_stream_outside", sockets(outside=["/run/dbus.sock"]), "/run/dbus.sock"),
    Row("connections_close", sockets(INCOMING), "1 connection(s)", "198.51.100.7:40000"),
    Row("connections_close", kept(sockets(INCOMING))),
    Row("connections_kept", kept(sockets(INCOMING, lasting=(INCOMING,))), "198.51.100.7:40000"),
    Row("connections_kept", kept(sockets(INCOMING, lasting=(INCOMING,)), "bridge"), also=("connections_close",)),
    Row("network_strangers", of("strangers", to=[4711]), "4711"),
    Row("network_devices_inside", of("network_made", "devices", to=["wg0 (wireguard)"]), "wg0 (wireguard)"),
    Row("traffic_control_inside", of("network_made", "shaped", to=["eth0 (tbf)"]), "eth0 (tbf)"),
    Row("ipsec_inside", of("network_made", "ipsec", to=3), "3 association(s)"),
    Row("ipsets_inside", of("network_made", "ipsets", to=["blocked"]), "blocked"),
    Row(
        "firewall_stateful_inside",
        all_of(kept(sockets(INCOMING, lasting=(INCOMING,))), of("network_made", "stateful", to=["nft"])),
        "nft lists them",
        "198.51.100.7:40000",
        also=("connections_kept",),
    ),
    # What is not kept is told otherwise, and what opens a moment later meets the rules as it always did.
    Row(
        "firewall_stateful_inside",
        all_of(sockets(INCOMING, lasting=(INCOMING,)), of("network_made", "stateful", to=["nft"])),
        also=("connections_close",),
    ),
    Row(
        "firewall_stateful_inside",
        all_of(kept(sockets(INCOMING)), of("network_made", "stateful", to=["iptables-nft"])),
    ),
    Row(
        "tcp_ulp",
        all_of(kept(sockets(INCOMING)), of("processes", "upper_protocols", to={"8": "tls"})),
        "198.51.100.7:40000 (tls)",
    ),
    Row(
        "tcp_ulp", all_of(sockets(WITHIN), of("processes", "upper_protocols", to={"11": "tls"})), "127.0.0.1:6000 (tls)"
    ),
    # One that is closed in any case, and another one than that.
    Row(
        "tcp_ulp",
        all_of(sockets(INCOMING), of("processes", "upper_protocols", to={"8": "tls"})),
        also=("connections_close",),
    ),
    Row("tcp_ulp", all_of(kept(sockets(INCOMING)), of("processes", "upper_protocols", to={"9": "tls"}))),
    Row("gateway_neighbour_inside", of("network_made", "gateways", to=["172.17.0.1"]), "172.17.0.1"),
    # -- the destination: the container itself
    Row(
        "old_copy_in_use",
        there(
            "old_copies_in_use", to=[{"why": "The container web-moved-1 has been started again", "remedy": "Stop it."}]
        ),
        "web-moved-1 has been started again",
        "on the destination",
    ),
    Row("old_copy_in_use", there("old_copies_in_use", to=[])),
    Row("name_taken", there("name_status", to="created"), "container one (status created)"),
    Row(
        "image_missing",
        all_of(there("image", "present", to=False), of("image", "identity", to=None)),
        "app:1",
        "neither host",
    ),
    Row(
        "image_missing",
        all_of(
            there("image", "present", to=False), of("image", to={**samples.container()["image"], "digests": ["a@b"]})
        ),
        also=("image_travels",),
    ),
    Row("image_travels", there("image", "present", to=False), "100 MiB"),
    Row("cannot_recreate", of("unsupported_fields", to={"1.45": ["HostConfig.X: since 1.46"]}), "HostConfig.X", "1.45"),
    Row("cannot_recreate", of("unsupported_fields", to={"1.44": ["HostConfig.X: since 1.45"]})),
    Row("cannot_recreate", of("unsupported_fields", to={"1.46": ["HostConfig.X: since 1.47"]})),
    # -- the destination: network
    Row("network_unsupported", with_network({}, scope="swarm"), "belongs to a swarm"),
    Row("network_differs", with_network({"driver": "macvlan"}), "driver bridge on the source and macvlan"),
    Row(
        "network_differs", with_network({"subnets": ["10.0.0.0/8"]}, address="172.30.0.50"), "172.30.0.50", "10.0.0.0/8"
    ),
    Row("network_differs", with_network({"subnets": ["10.0.0.0/8"]})),
    Row("network_differs", with_network({}, address="172.30.0.50")),
    Row("address_in_use", with_network({"addresses_in_use": ["172.30.0.50"]}, address="172.30.0.50"), "172.30.0.50"),
    Row("address_in_use", with_network({"addresses_in_use": ["172.30.0.50"]})),
    # A program that listens on [::] for IPv4 too, as nearly all in Go and Java do.
    Row(
        "ipv6_missing",
        all_of(on("destination", "kernel", "ipv6", to=False), of("sockets", "six", to=[LISTENING_6])),
        "tcp [::]:80",
        "no IPv6",
        remedy="0.0.0.0",
    ),
    Row(
        "ipv6_missing",
        all_of(on("destination", "kernel", "ipv6", to=False), of("sockets", "six", to=[LISTENING_6] * 5)),
        "and 2 more",
    ),
    Row(
        "ipv6_missing",
        all_of(
            on_network(GlobalIPv6Address="2001:db8::5", IPAMConfig=None), on("destination", "kernel", "ipv6", to=False)
        ),
        "the IPv6 address 2001:db8::5",
    ),
    Row("ipv6_missing", on("destination", "kernel", "ipv6", to=False)),
    Row("ipv6_missing", all_of(of("sockets", to=None), on("destination", "kernel", "ipv6", to=False))),
    Row("ipv6_missing", of("sockets", "six", to=[LISTENING_6])),
    # The source needs none: what is open there it has.
    Row("ipv6_missing", all_of(on("source", "kernel", "ipv6", to=False), of("sockets", "six", to=[LISTENING_6]))),
    # Facts of another version.
    Row(
        "ipv6_missing",
        all_of(lambda case: case["destination"]["kernel"].pop("ipv6"), of("sockets", "six", to=[LISTENING_6])),
    ),
    Row("network_overlaps", there("overlaps", to={"app": ["172.30.0.0/24"]}), "172.30.0.0/24"),
    Row("network_overlaps", there("overlaps", to={"app": []})),
    Row("network_parent_missing", there("missing_parents", to=["eth7"]), "eth7"),
    Row("network_missing", with_network(None), "app"),
    Row("network_missing", with_network({})),
    Row("neighbours_stay", with_network({}, neighbours=["redis", "db"]), "network app stay behind: db, redis."),
    Row("neighbours_stay", with_network(None, neighbours=["redis"]), "redis", also=("network_missing",)),
    Row("neighbours_stay", with_network({"members": ["redis", "db"]}, neighbours=["redis"])),
    Row("neighbours_stay", with_network({"members": ["db"]}, neighbours=["redis", "db"]), "stay behind: redis."),
    # On the engine's own bridge nobody has a name.
    Row("neighbours_stay", of("networks", to=[network("bridge", neighbours=["redis"])])),
    Row("port_taken", there("ports_taken", to=["tcp port 80 (container web)"]), "tcp port 80 (container web)"),
    Row(
        "host_address_missing",
        of("ports", to=[{"port": "80/tcp", "host_ip": "192.0.2.9", "host_port": 80, "pinned": False}]),
        "192.0.2.9",
    ),
    Row(
        "host_address_missing",
        of("ports", to=[{"port": "80/tcp", "host_ip": ip, "host_port": 80} for ip in ("192.0.2.1", "127.0.0.2", "")]),
    ),
    # -- the destination: data
    Row("foreign_data", with_volume({"has_content": True}), "volume data"),
    Row("foreign_data", with_volume({"has_content": True}, travels=False)),
    Row("foreign_data", with_bind(place(has_content=True), travels=True), "directory /srv/data"),
    Row("volume_used_there", with_volume({"used_by": ["other"]}), "other"),
    Row("bind_used_there", with_bind(place(used_by=["db", "web"]), travels=True), "/srv/data is used", "db, web"),
    Row(
        "volume_used_there",
        there("taken_by", to={"data": ["20261123T000001Z-3f9a1c"]}),
        "volume data",
        "20261123T000001Z",
    ),
    Row("bind_used_there", there("taken_by", to={"/srv/data": ["20261123T000001Z-3f9a1c"]}), "into /srv/data"),
    Row("volume_used_there", there("taken_by", to={"/srv/data": ["20261123T000001Z-3f9a1c"]})),
    Row("bind_used_there", there("taken_by", to={"data": ["20261123T000001Z-3f9a1c"]})),
    Row("bind_used_there", with_bind({"exists": False, **place()}, travels=True)),
    Row("volume_differs", with_volume({"driver": "nfs"}), "driver nfs"),
    Row("volume_differs", with_volume({"options": "f00"}), "other options"),
    Row("volume_differs", with_volume({"driver": "nfs"}, travels=False), also=("volume_stays",)),
    Row("volume_stays", with_volume(None, travels=False, driver="rexray"), "of the driver rexray", "It is made there."),
    Row("volume_stays", with_volume({"driver": "rexray"}, travels=False, driver="rexray"), "has one of that name"),
    Row("volume_stays", with_volume(None, travels=False, shared=True)),
    Row("volume_stays", with_volume(None)),
    Row("volume_differs", with_volume(None)),
    # A share of the source, and a volume of that name which is none.
    Row(
        "volume_differs",
        with_volume({"shared": False}, travels=False, shared=True, options="f00"),
        "on its own disk",
    ),
    Row("volume_differs", with_volume({"shared": True}, travels=False, shared=True, options="f00")),
    Row("volume_differs", with_volume({"shared": False, "options": "f00"}, travels=False, shared=True, options="f00")),
    Row("bind_mount_missing", with_bind(place(exists=False)), "/srv/data", "does not exist"),
    Row("bind_mount_missing", with_bind(place(exists=False), travels=True)),
    Row("bind_mount_refused", with_bind(place(), path="/etc", travels=True), "/etc"),
    Row(
        "bind_mount_refused",
        with_bind(place(leads_to="/etc", host_directory="/etc"), travels=True),
        "written into /etc of the destination",
    ),
    Row(
        "bind_mount_refused",
        with_bind(file_place(has_content=False, host_directory="/etc"), travels=True, form="file"),
        "written into /etc of the destination",
    ),
    # What does not travel is written to by the container alone, as on the source.
    Row("bind_mount_refused", with_bind(place(host_directory="/etc")), also=("bind_mount_stays",)),
    Row("bind_mount_refused", with_bind(place(is_directory=False), travels=True), "something else on the destination"),
    Row("bind_mount_refused", with_bind(place(is_directory=False, exists=False), travels=True)),
    # Single files travel too; what is no file has no content to move.
    Row(
        "bind_mount_missing",
        with_bind(place(exists=False), form="file"),
        "/srv/data",
        remedy="name it in migrate_bind_mounts",
    ),
    Row(
        "bind_mount_missing",
        with_bind(place(exists=False), form="other"),
        "/srv/data",
        remedy="its content cannot be moved",
    ),
    Row("bind_mount_missing", with_bind(place(exists=False), form="missing"), "/srv/data", remedy="Provide it there;"),
    Row("bind_mount_stays", with_bind(file_place(), form="other"), "/srv/data", remedy="See that both are the same."),
    Row("bind_mount_refused", with_bind(place(is_directory=False, exists=False), travels=True, form="file")),
    Row("bind_mount_refused", with_bind(file_place(has_content=False), travels=True, form="file")),
    Row("foreign_data", with_bind(file_place(), travels=True, form="file"), "The file /srv/data on the destination"),
    Row(
        "bind_mount_refused",
        with_bind(place(), travels=True, form="file"),
        "is a file on the source and something else",
    ),
    Row(
        "bind_mount_refused",
        with_bind(file_place(leads_to="/etc/passwd"), travels=True, form="file"),
        "is a file on the source and something else",
    ),
    Row(
        "bind_mount_refused",
        with_bind(file_place(is_file=False), travels=True, form="file"),
        "is a file on the source and something else",
    ),
    Row(
        "bind_mount_refused",
        with_bind(place(exists=False), travels=True, form="other"),
        "neither a directory nor a file",
    ),
    # Both hosts see the same files: they would be replaced under the container.
    Row(
        "bind_mount_refused",
        with_bind(place(reaches_shared=True), travels=True, reaches_shared=True),
        "/srv/data",
        "storage that is shared",
    ),
    Row("bind_mount_refused", with_bind(place(), travels=True, reaches_shared=True)),
    Row("bind_mount_refused", with_bind(place(reaches_shared=True), travels=True)),
    Row("bind_mount_refused", with_bind(place(exists=False, reaches_shared=True), travels=True, reaches_shared=True)),
    Row("bind_mount_stays", with_bind(place()), "/srv/data"),
    Row("bind_mount_stays", with_bind(place(), shared=True)),
    # -- the destination: places and devices
    Row(
        "mount_is_link",
        with_bind(place(leads_to="/srv/real")),
        "/srv/data (mounted at /data)",
        engine="api",
        also=("bind_mount_stays",),
    ),
    Row("mount_is_link", with_bind(place(leads_to="/srv/real")), also=("bind_mount_stays",)),
    Row(
        "mount_is_link",
        all_of(created(Init=True), there("init_leads_to", to="/usr/bin/tini-static")),
        "/usr/bin/docker-init (mounted at /sbin/docker-init)",
        engine="api",
    ),
    Row("init_missing", all_of(created(Init=True), there("init", to=None)), "--init"),
    Row("init_missing", there("init", to=None)),
    Row(
        "init_differs",
        all_of(created(Init=True), on("destination", "docker", "init_bytes", to=900)),
        "has 800 bytes; that of the destination has 900",
    ),
    Row("init_differs", on("destination", "docker", "init_bytes", to=900)),
    Row("init_differs", all_of(created(Init=True), on("destination", "docker", "init_bytes", to=None))),
    Row("masked_path_missing", there("missing_places", to=["/proc/asound"]), "/proc/asound"),
    Row("device_missing", there("missing_devices", to=["/dev/fuse"]), "/dev/fuse"),
    Row(
        "device_differs",
        there("other_devices", to=[other_device()]),
        "/dev/dsp is c 240:0 in the container; on the destination /dev/snd/dsp is c 241:0, and c 240:0 is rtc.",
    ),
    # Nobody has named it, and it is a disk all the same.
    Row(
        "device_differs",
        there("other_devices", to=[other_device(given=False, numbers="b 259:5", here="", owner="nvme1n1p2")]),
        "/dev/dsp is b 259:5 in the container; on the destination there is no /dev/snd/dsp, and b 259:5 is nvme1n1p2.",
    ),
    Row("device_differs", there("other_devices", to=[other_device(owner="")] * 6), "is c 241:0; and 2 more."),
    Row(
        "device_nodes_differ",
        there("other_devices", to=[other_device(given=False)]),
        "has all devices of its host",
        "/dev/dsp is c 240:0",
    ),
    # A node that leads to nothing there.
    Row(
        "device_nodes_differ",
        there("other_devices", to=[other_device(given=False, numbers="b 259:5", owner="")]),
        "has all devices of its host",
        "/dev/dsp is b 259:5",
    ),
    Row("device_differs", there("other_devices", to=[])),
    Row("device_nodes_differ", there("other_devices", to=[])),
    # Facts of another version.
    Row("device_differs", lambda case: case["destination"]["for_container"].pop("other_devices")),
    Row(
        "apparmor_profile_missing",
        all_of(inspect(AppArmorProfile="own"), there("apparmor_profiles", to=["docker-default"])),
        "profile own",
    ),
    Row(
        "apparmor_profile_missing",
        all_of(inspect(AppArmorProfile="docker-default"), there("apparmor_profiles", to=[])),
    ),
    Row("apparmor_profile_missing", inspect(AppArmorProfile="own")),
    # -- room
    *each_side(
        "swap_in_the_clear",
        lambda side: on(side, "swap", to={"noswap": False, "in_the_clear": ["/dev/vda2"]}),
        "/dev/vda2",
        "lie in /run",
    ),
    Row("swap_in_the_clear", on("source", "swap", to={"noswap": True, "in_the_clear": ["/dev/vda2"]})),
    Row("swap_in_the_clear", on("source", "swap", to={"noswap": False, "in_the_clear": []})),
    *each_side(
        "disk_free",
        lambda side: disk(side, "/var/lib/docker", (512 << 20) - 1),
        "/var/lib/docker",
        "has 511 MiB left",
    ),
    Row("disk_free", disk("source", "/var/lib/docker", 512 << 20)),
    *each_side("disk_free", lambda side: disk(side, "/tmp", 1 << 20), "/tmp", "has 1 MiB left", engine="api"),
    # Debian 13 has a tmpfs there, of half the memory; the engine `runtime` has nothing in it.
    *[Row("disk_free", disk(side, "/tmp", 1 << 20)) for side in BOTH],
    *[Row("disk_free", disk(side, "/tmp", 1 << 20), engine="auto") for side in BOTH],
    Row("disk_free", on("source", "disk", to=[])),
    Row("memory_room", on("destination", "memory", "available_bytes", to=100 << 20), "100 MiB", "138 MiB"),
    Row("memory_room", on("source", "memory", "available_bytes", to=100 << 20)),
    Row(
        "checkpoint_room",
        all_of(
            of("memory", "dump_bytes", to=3 << 30),
            on("destination", "tmpfs_free_bytes", to=1 << 30),
            disk("destination", "/var/lib/livemigrate", 1 << 30),
        ),
        "3200 MiB",
        "1024 MiB",
        "destination",
    ),
    # One of the engine's copies goes to each of three places.
    *(
        Row(
            "checkpoint_room",
            all_of(of("memory", "dump_bytes", to=1 << 30), disk("source", path, 1 << 29)),
            f"may take 1024 MiB at {path} on the source, which has 512 MiB left",
            engine="api",
        )
        for path in ("/tmp", "/var/lib/docker", "/var/lib/containerd")
    ),
    Row(
        "checkpoint_room",
        all_of(of("memory", "dump_bytes", to=1 << 30), disk("source", "/tmp", 2410 << 20)),
        engine="api",
    ),
    # Two of them on one file system.
    Row(
        "checkpoint_room",
        all_of(
            of("memory", "dump_bytes", to=1 << 30),
            same_disk("source", ("/var/lib/docker", "/var/lib/containerd"), 3 << 29),
        ),
        "may take 2048 MiB at /var/lib/docker and /var/lib/containerd on the source, which has 1536 MiB left",
        engine="api",
    ),
    # A containerd that keeps its content elsewhere.
    Row(
        "checkpoint_room",
        all_of(
            of("memory", "dump_bytes", to=1 << 30),
            on("source", "docker", "containerd_root", to="/srv/containerd"),
            disk("source", "/var/lib/containerd", 1 << 29),
        ),
        engine="api",
    ),
    Row(
        "checkpoint_room",
        all_of(of("memory", "dump_bytes", to=1 << 30), disk("source", "/var/lib/livemigrate", 1 << 30)),
    ),
    # CRIU asks the kernel for one huge page of its own on the source; on the destination all of them are needed.
    Row(
        "huge_pages",
        all_of(
            of("processes", "huge_pages", to={"2048": 8}), pool("source", "2048", free_hugepages=1, resv_hugepages=1)
        ),
        "has 8 huge page(s) of 2 MiB, and the source has no more",
    ),
    Row(
        "huge_pages",
        all_of(of("processes", "huge_pages", to={"2048": 8}), pool("destination", "2048", free_hugepages=7)),
        "8 huge page(s) of 2 MiB; the destination has 7 left",
        remedy="sysctl vm.nr_hugepages=9",
    ),
    Row(
        "huge_pages",
        all_of(
            of("processes", "huge_pages", to={"1048576": 1}),
            pool("source", "1048576", nr_hugepages=2, free_hugepages=1),
        ),
        "1 huge page(s) of 1024 MiB; the destination has 0 left",
        remedy="echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
    ),
    Row(
        "huge_pages",
        of("processes", "huge_pages", to={"16384": 1}),
        "a size that the destination's kernel does not have",
    ),
    Row("huge_pages", of("processes", "huge_pages", to={"2048": 8})),
    # Pages that the kernel makes when they are asked for.
    Row(
        "huge_pages",
        all_of(
            of("processes", "huge_pages", to={"2048": 8}),
            pool("destination", "2048", free_hugepages=0, nr_overcommit_hugepages=9, surplus_hugepages=1),
        ),
    ),
    Row("data_room", of("sizes", "volume_bytes", to=11 << 30), "/var/lib/docker", "10240 MiB left"),
    Row("data_room", of("sizes", "volume_bytes", to=9 << 30)),
]
NAMES = [f"{row.rule}-{'tells' if row.texts else 'silent'}-{number}" for number, row in enumerate(TABLE)]


@pytest.mark.parametrize("row", TABLE, ids=NAMES)
def test_rule(row: Row) -> None:
    case = samples.case()
    row.change(case)
    reported = [one for one in judge(case, row.engine) if one.rule == row.rule]
    if not row.texts:
        assert reported == []
        for also in row.also:
            assert also in {one.rule for one in judge(case, row.engine)}
        return
    assert reported, "the rule is silent"
    text = " ".join(one.message for one in reported)
    for wanted in row.texts:
        assert wanted.lower() in text.lower()
    assert row.remedy in " ".join(one.remedy for one in reported)
    for one in reported:
        assert one.message.rstrip("'\"").endswith((".", ")", "?")), one.message
        assert one.remedy.rstrip().endswith((".", ")")), one.remedy
        assert "s3cret" not in repr(one)
        assert (one.severity, one.variable) == (RULES[row.rule].severity, RULES[row.rule].variable)


def test_the_table_covers_every_rule_both_ways() -> None:
    """That each is silent where nothing is wrong, the next test shows for all of them at once."""
    assert {row.rule for row in TABLE if row.texts} == set(RULES)
    assert {rule.id for rule in preflight_judge.rules()} == set(RULES)


@pytest.mark.parametrize("engine", ["api", "runtime"])
def test_nothing_is_found_where_nothing_is_wrong(engine: str) -> None:
    assert judge(samples.case(), engine) == []


def test_what_lifts_a_finding_lifts_it() -> None:
    case = samples.case()
    with_volume({"has_content": True})(case)
    sockets(OUTGOING, lasting=(OUTGOING,))(case)
    assert {one.rule for one in judge(case)} == {"foreign_data", "connections_break"}
    reported = judge(case, settings=Settings(overwrite_data=True, close_connections=True))
    assert {one.rule for one in reported} == {"connections_close"}


def test_all_findings_are_reported_at_once_errors_first() -> None:
    case = samples.case()
    for row in TABLE:
        if (
            row.rule in ("io_uring", "privileged", "image_travels", "port_taken", "cpu_features", "name_taken")
            and row.texts
        ):
            row.change(case)
    reported = judge(case)
    assert {"io_uring", "privileged", "image_travels", "port_taken", "cpu_features", "name_taken"} <= {
        o.rule for o in reported
    }
    order = [SEVERITIES.index(one.severity) for one in reported]
    assert order == sorted(order)
    assert len(set(order)) == 3


def test_a_host_with_nothing_on_it_is_judged_not_stumbled_over() -> None:
    """The facts of a machine as they come, whatever it has: no rule reads a key that is not there."""
    bare = samples.gathered()
    reported = preflight_judge.judge(bare, copy.deepcopy(bare)).findings
    assert all(one.rule in RULES and one.message and one.remedy for one in reported)
    # A container that could not be looked at, because there is no engine, is no second finding.
    case = samples.case()
    no_engine("source")(case)
    case["source"]["container"] = {"found": False, "name": "one", "error": "The engine does not answer."}
    case["destination"]["for_container"] = None
    assert {one.rule for one in judge(case)} == {"docker_present"}


def test_a_container_that_does_not_run_is_judged_without_its_processes() -> None:
    case = samples.case()
    container = case["source"]["container"]
    container["inspect"]["State"].update(Status="exited", Running=False, Pid=0)
    for key in ("kernel_mounts", "memory", "sockets", "lasting", "strangers"):
        del container[key]
    container["processes"] = None
    verdict = preflight_judge.judge(case["source"], case["destination"], "runtime")
    assert [one.rule for one in verdict.findings] == ["not_running"]
    assert verdict.prediction is None
