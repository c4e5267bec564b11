# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of two hosts and of a container between which nothing stands: what the tests of the rules change one thing of.

A host is this very machine as criu_check tells of it, with what is to be judged set right, so that no rule reads a key that is
not gathered. The container's inspect data go through the same function as on a source.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.support import criu_verdict
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import host as facts_of_host
from tests.unit.docker.spec import samples

Facts = dict[str, Any]

# What trixie's engine answers, as far as facts are made of it.
VERSION = {
    "Version": "26.1.5+dfsg1",
    "ApiVersion": "1.45",
    "MinAPIVersion": "1.24",
    "Components": [
        {"Name": "Engine", "Version": "26.1.5"},
        {"Name": "containerd", "Version": "1.7.24~ds1"},
        {"Name": "runc", "Version": "1.3.6"},
    ],
}
INFO = {
    "ExperimentalBuild": True,
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "DockerRootDir": "/var/lib/docker",
    "Runtimes": {"runc": {}},
}


@functools.cache
def gathered() -> Facts:
    """What criu_check tells of this very machine: the facts as they really look."""
    return facts_of_host.host_facts(run, features=(), asked_at=0.0)


def host() -> Facts:
    """A host on which nothing is missing."""
    facts = copy.deepcopy(gathered())
    engine = {
        "installed": True,
        "running": True,
        "error": None,
        "init_binary": "/usr/bin/docker-init",
        "init_bytes": 800,
    }
    engine["containerd_root"] = "/var/lib/containerd"
    facts["docker"] = {**engine, **facts_of_host.parse_engine(VERSION, INFO)}
    facts["docker"]["shim"] = {"registered": True, "path": "/x", "installed": True, "version": "2"}
    facts["criu"].update(present=True, version="4.2", check={"ok": True, "output": "Looks good."})
    facts["criu"].update(
        options={"ghost-limit": "256M", "file-locks": ""}, features=dict.fromkeys(facts_of_host.FEATURES, True)
    )
    facts["self_test"] = {"ok": True, "steps": {"run": 0.1, "dump": 0.2, "restore": 0.2}, "seconds": 0.5, "options": []}
    facts["self_test"].update(refused_options=[], host_lines=[], host_file_error=None, error=None, from_note=False)
    facts["kernel"].update(release="6.12.1", machine="x86_64", cgroup_version=2, lsm=["capability", "apparmor"])
    facts["kernel"].update(config={"CONFIG_UNIX_DIAG": True}, time_namespace=True, page_size=4096, ipv6=True)
    facts["kernel"]["processors"] = [0, 1, 2, 3]
    facts["cpu"] = {"model": "One", "instructions": ["avx", "avx2", "sse4_2"]}
    facts["clock"] = {"wall": 1000.5, "asked_at": 1000.0, "age_seconds": 0.5}
    verdict = criu_verdict("4.2", None, True, "Looks good.", "6.12.1", "x86_64")
    facts.update(usable=not verdict.reasons, reasons=verdict.reasons, remarks=verdict.remarks)
    facts["python"]["docker_py"] = "7.1.0"
    facts["tools"].update(dict.fromkeys(facts["tools"], "/usr/bin/x"))
    facts["rsync"] = {"version": "3.2.7", "error": "", "follows_links": False}
    facts["memory"] = {"total_bytes": 8 << 30, "available_bytes": 4 << 30}
    facts["tmpfs_free_bytes"] = 4 << 30
    facts["swap"] = {"noswap": True, "in_the_clear": []}
    facts["huge_pages"] = {"2048": huge_page_pool(), "1048576": huge_page_pool(nr_hugepages=0, free_hugepages=0)}
    facts["disk"] = [
        {"path": path, "free_bytes": 10 << 30, "total_bytes": 20 << 30, "filesystem": "ext4", "device": device}
        for device, path in enumerate(("/tmp", "/var/lib/docker", "/var/lib/containerd", "/var/lib/livemigrate"))
    ]
    return facts


def huge_page_pool(**more: int) -> dict[str, int]:
    """Huge pages of one size that a host has."""
    counters = ("nr_hugepages", "free_hugepages", "resv_hugepages", "nr_overcommit_hugepages", "surplus_hugepages")
    return {**dict.fromkeys(counters, 0), "nr_hugepages": 8, "free_hugepages": 8, **more}


def peer(**more: Any) -> Facts:
    """How the source reached the destination."""
    return {
        "address": "beta",
        "port": 22,
        "error": None,
        "turned_away": False,
        "is_own": False,
        "from_address": "192.0.2.2",
        "host_keys": ["ssh-ed25519 DESTINATION"],
        "rtt_seconds": 0.001,
        "device": "eth0",
        "speed_mbit": 1000,
        **more,
    }


def volume(name: str = "data", **more: Any) -> Facts:
    """A volume of the container, as its facts have it."""
    return {
        "kind": "volume",
        "name": name,
        "path": f"/var/lib/docker/volumes/{name}/_data",
        "destination": "/data",
        "travels": True,
        "shared": False,
        "form": "directory",
        "in_use_by": [],
        "device": "",
        "driver": "local",
        "options": "",
        **more,
    }


def bind(path: str = "/srv/data", **more: Any) -> Facts:
    """A bind mount of the container."""
    return volume(path, **{"kind": "bind", "path": path, "travels": False, "driver": "", **more})


def place(**more: Any) -> Facts:
    """What lies at a path of the destination."""
    found = {
        "exists": True,
        "is_directory": True,
        "is_file": False,
        "has_content": False,
        "leads_to": "",
        "host_directory": "",
        "used_by": [],
    }
    return {**found, **more}


def file_place(**more: Any) -> Facts:
    """A file at a path of the destination."""
    return place(**{"is_directory": False, "is_file": True, "has_content": True, **more})


def other_device(**more: Any) -> Facts:
    """A device node of the container that is another device on the destination."""
    found = {
        "path": "/dev/dsp",
        "host_path": "/dev/snd/dsp",
        "numbers": "c 240:0",
        "given": True,
        "here": "c 241:0",
        "owner": "rtc",
    }
    return {**found, **more}


def network(name: str = "app", **more: Any) -> Facts:
    """A network, as facts have it."""
    return {
        "name": name,
        "driver": "bridge",
        "scope": "local",
        "ingress": False,
        "subnets": ["172.30.0.0/16"],
        "parent": "",
        **more,
    }


def container(**inspect: Any) -> Facts:
    """The facts of a container that can be moved."""
    data = samples.container(**inspect)
    return {
        "found": True,
        "name": "one",
        "id": samples.ID,
        "ancestry": [samples.ID],
        "inspect": facts_of_container.decisive(data),
        "image": {
            "id": samples.IMAGE,
            "identity": "sha256:" + "1" * 64,
            "store": "graphdriver",
            "reference": "app:1",
            "tags": ["app:1"],
            "digests": [],
            "size": 100 << 20,
        },
        "networks": [network("bridge", subnets=["172.17.0.0/16"])],
        "ports": [],
        "volumes": [],
        "unknown_binds": [],
        "storage_error": None,
        "unsupported_fields": {},
        "sizes": {"layer_bytes": 1 << 20, "volume_bytes": 0, "complete": True},
        "device_nodes": [],
        "processes": {
            "count": 2,
            "complete": True,
            "held": {},
            "devices": [],
            "deleted": [],
            "locks": 0,
            "sleeping": [],
            "databases": [],
            "pipes_without_writer": [],
            "huge_pages": {},
            "keys": 0,
            "tied": [],
            "peers": [],
            "upper_protocols": {},
            "seccomp": 2,
            "own_user_namespace": False,
            "protocols": {},
            "foreign": [],
        },
        "kernel_mounts": {"masked": ["/proc/acpi"], "foreign": [], "below_binds": [], "replaced": []},
        "memory": {
            "resident_bytes": 20 << 20,
            "dump_bytes": 10 << 20,
            "taken_bytes": 10 << 20,
            "tmpfs_bytes": 0,
            "tmpfs_files": 9,
            "tmpfs_files_most": 200_000,
        },
        "sockets": {
            "inet": [],
            "own_addresses": ["172.17.0.2"],
            "groups": [],
            "outside": [],
            "six": [],
            "unknown_groups": [],
        },
        "lasting": [],
        "strangers": [],
        "network_made": {
            **{name: [] for name in ("addresses", "devices", "shaped", "gateways", "ipsets", "stateful")},
            "ipsec": 0,
        },
    }


def there() -> Facts:
    """What a destination has for it on which nothing is in the way."""
    return {
        "old_copies_in_use": [],
        "old_layer": False,
        "name_status": None,
        "image": {"present": True},
        "networks": {"bridge": {**network("bridge"), "addresses_in_use": []}},
        "overlaps": {},
        "missing_parents": [],
        "addresses": ["127.0.0.1", "192.0.2.1"],
        "ports_taken": [],
        "volumes": {},
        "binds": {},
        "taken_by": {},
        "missing_places": [],
        "missing_devices": [],
        "other_devices": [],
        "init": "/usr/bin/docker-init",
        "init_leads_to": "",
        "apparmor_profiles": None,
    }


def case() -> Facts:
    """All of it: what the source tells, with the container, and what the destination does."""
    source, destination = host(), host()
    source.update(container=container(), peer=peer(), ssh_host_keys=["ssh-ed25519 SOURCE", "ssh-rsa SOURCE"])
    destination.update(for_container=there(), ssh_host_keys=["ssh-ed25519 DESTINATION", "ssh-rsa DESTINATION"])
    destination["channel_login"] = {"user": "root", "prints": "", "fails": "", "refused": ""}
    return {"source": source, "destination": destination}
