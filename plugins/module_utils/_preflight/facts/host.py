# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a host has: CRIU, kernel, Docker, tools, room. Absence is a fact here, never an error.

Parsers (parse_*) take what was printed and are tested with captured outputs; the gatherers around them only run and read.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import typing as t

from ..._base import durable
from ..._base.command import SYSTEM_PATH, Runner
from ..._base.errors import MigrationError
from ..._base.versions import parse_version
from ..._channel import host_keys
from ..._criu import log as criu_log
from ..._criu import self_test
from ..._criu.support import criu_verdict, engine_verdict
from ..._docker import host_files
from ..._docker import images as docker_images
from ..._docker import library as docker_library
from ..._docker.shim import shim_facts
from ..._docker.socket import engine_get
from ..._host import huge_pages, machine, process_resources, processors, rsync, swap

Facts = dict[str, t.Any]

FEATURES = (
    "mem_dirty_track",
    "uffd-noncoop",
    "network_lock_nftables",
    "external_net_ns",
    "timens",
    "overlayfs_maps",
    "pidfd_store",
    "pagemap_scan",
    "seccomp_suspend",
    "seccomp_filters",
)
TOOLS = (
    "iptables",
    "ip6tables",
    "iptables-restore",
    "ip6tables-restore",
    "nft",
    "ip",
    "ss",
    "nsenter",
    "runc",
    "containerd",
    "ctr",
    "docker",
    "dockerd",
    "tar",
    "gzip",
    "zstd",
    "rsync",
    "ssh",
)
# What a migration fills: containerd's copies of a checkpoint, the engine's data, containerd's content, the session.
DISK_PATHS = ("/tmp", "/var/lib/docker", "/var/lib/containerd", "/var/lib/livemigrate")  # noqa: S108 - it is only looked at


def which(program: str) -> str | None:
    """Where a program is, sbin included whatever PATH says."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":" + SYSTEM_PATH)


# --- CRIU ---------------------------------------------------------------------------------------------------------


def parse_criu_version(output: str) -> str | None:
    """``Version: 4.2.1`` out of ``criu --version``."""
    match = re.search(r"^Version:\s*(\S+)", output, re.MULTILINE)
    return match.group(1) if match else None


def parse_feature(rc: int, output: str) -> bool | None:
    """The answer of ``criu check --feature X``: True, False, or None where this CRIU does not know the feature."""
    if "Unknown feature" in output:
        return None
    return rc == 0


def parse_package_owner(output: str) -> str | None:
    """The package out of ``dpkg-query --search PATH`` (``criu: /usr/sbin/criu``, ``criu:amd64: ...``)."""
    for line in output.splitlines():
        # dpkg names a diversion before it names the owner.
        if ": " in line and not line.startswith("diversion by"):
            return line.split(": ", 1)[0].split(",")[0].split(":")[0].strip()
    return None


def _package(run: Runner, path: str) -> tuple[str | None, str | None]:
    """Name and revision of the distribution's package that owns a file."""
    real = os.path.realpath(path)
    if which("dpkg-query"):
        owner = parse_package_owner(run(["dpkg-query", "--search", real]).stdout)
        if owner:
            return owner, run(["dpkg-query", "--show", "--showformat=${Version}", owner]).stdout.strip() or None
    elif which("rpm"):
        done = run(["rpm", "-q", "--file", real, "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}"])
        if done.rc == 0 and " " in done.stdout:
            name, revision = done.stdout.strip().split(" ", 1)
            return name, revision
    return None, None


def criu_facts(run: Runner, path: str | None = None, features: t.Sequence[str] = FEATURES) -> Facts:
    """What CRIU is there and what it says of this kernel.

    :param path: the program to ask; without it the one that a container runtime would find.
    :param features: names for ``criu check --feature``.
    """
    # The services' own search path first: containerd looks there, whatever PATH this user has.
    found = path or shutil.which("criu", path=SYSTEM_PATH) or which("criu")
    facts: Facts = {
        "present": False,
        "path": found,
        "version": None,
        "package": None,
        "package_revision": None,
        "check": {"ok": None, "output": ""},
        "features": {},
        "options": machine.parse_criu_options(process_resources.read(criu_log.CONFIGURATION)),
    }
    if not found:
        return facts
    try:
        facts["version"] = parse_criu_version(run([found, "--version"]).stdout)
        facts["package"], facts["package_revision"] = _package(run, found)
        if facts["version"] is None:
            return facts
        facts["present"] = True
        # One after the other: the first one makes the notes that the others read (criu.kdat), and two of them at once fail.
        done = run([found, "check"])
        facts["check"] = {"ok": done.rc == 0, "output": done.output}
        for feature in features:
            answer = run([found, "check", "--feature", feature])
            facts["features"][feature] = parse_feature(answer.rc, answer.output)
    except (MigrationError, OSError) as exc:
        # A program that is missing, hangs, or cannot be executed is a fact about this host like any other.
        facts["check"]["output"] = str(exc)
    return facts


def self_test_facts(run: Runner, criu: Facts) -> Facts:
    """Whether this CRIU dumps and restores here, by trying it.

    :param criu: what :func:`criu_facts` tells.
    """
    if not criu["present"]:
        return self_test.not_tried("There is no CRIU to try.")
    if os.geteuid() != 0:
        return self_test.not_tried("It was not tried, because only root can do that: use become.")
    if not criu["check"]["ok"]:
        return self_test.not_tried("It was not tried, because criu check fails already.")
    return self_test.of_host(process_resources.read(criu_log.CONFIGURATION), criu["path"], criu["version"], run)


# --- kernel and room ----------------------------------------------------------------------------------------------


def kernel_facts() -> Facts:
    """Release, architecture, cgroup version (of the unified hierarchy, as Docker counts it), security modules, page size ..."""
    uname = os.uname()
    return {
        "release": uname.release,
        "machine": uname.machine,
        "cgroup_version": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
        "lsm": [name for name in process_resources.read("/sys/kernel/security/lsm").strip().split(",") if name],
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "processors": sorted(processors.online()),
        "time_namespace": os.path.exists("/proc/self/ns/time"),
        "ipv6": _has_ipv6(),
        "config": machine.kernel_config(uname.release),
    }


def _has_ipv6() -> bool:
    """Whether sockets of IPv6 can be had. A module that is not loaded yet is loaded by asking for one."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):
            return True
    except OSError:
        return False


def parse_meminfo(text: str) -> Facts:
    """Bytes in total and available out of /proc/meminfo."""
    kib = {m.group(1): int(m.group(2)) for m in re.finditer(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return {
        "total_bytes": kib.get("MemTotal", 0) * 1024,
        "available_bytes": kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024,
    }


def disk_facts(paths: t.Sequence[str]) -> list[Facts]:
    """Room for each path; a path that is not there yet is judged by its nearest parent that is."""
    facts: list[Facts] = []
    for path in paths:
        existing = os.path.realpath(path)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        filesystem = os.statvfs(existing)
        facts.append(
            {
                "path": path,
                "free_bytes": filesystem.f_bavail * filesystem.f_frsize,
                "total_bytes": filesystem.f_blocks * filesystem.f_frsize,
                "filesystem": durable.filesystem_type(existing),
                # Two paths on one device share their room.
                "device": os.stat(existing).st_dev,
            }
        )
    return facts


# --- Docker -------------------------------------------------------------------------------------------------------


def parse_engine(version: Facts, info: Facts) -> Facts:
    """The engine's facts out of its answers to ``/version`` and ``/info``."""
    components = {part.get("Name"): part.get("Version") for part in version.get("Components") or []}
    security = info.get("SecurityOptions") or []
    names = [part[5:] for option in security for part in option.split(",") if part.startswith("name=")]
    verdict = engine_verdict(version.get("Version"), components.get("containerd"))
    return {
        "version": version.get("Version"),
        "api_version": version.get("ApiVersion"),
        "min_api_version": version.get("MinAPIVersion"),
        "experimental": bool(info.get("ExperimentalBuild")),
        "storage_driver": info.get("Driver"),
        "image_store": docker_images.store(info),
        "cgroup_driver": info.get("CgroupDriver"),
        "cgroup_version": int(info.get("CgroupVersion") or 1),
        "live_restore": bool(info.get("LiveRestoreEnabled")),
        "data_root": info.get("DockerRootDir"),
        "security_options": names,
        "rootless": "rootless" in names,
        "userns_remap": "userns" in names,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime"),
        "shim": shim_facts(info),
        # A paused container is a live one: a restart of the engine ends it too.
        "containers_running": int(info.get("ContainersRunning") or 0) + int(info.get("ContainersPaused") or 0),
        "containerd_version": components.get("containerd"),
        "runc_version": components.get("runc"),
        "swarm": (info.get("Swarm") or {}).get("LocalNodeState", "inactive"),
        "api_engine": {"restores": verdict.restores, "reason": verdict.reason},
    }


def docker_facts(run: Runner, get: t.Callable[[str], Facts] = engine_get) -> Facts:
    """The engine of this host, or why there is none.

    :param get: asks the engine; :func:`engine_get`.
    """
    installed = which("dockerd") is not None
    try:
        info = get("/info")
        root = info.get("DockerRootDir")
        init = host_files.find_init(info.get("InitBinary"))
        return {
            "installed": installed,
            "running": True,
            "error": None,
            "init_binary": init,
            "init_bytes": host_files.size(init),
            "containerd_root": machine.containerd_root(root),
            **parse_engine(get("/version"), info),
        }
    except FileNotFoundError:
        error = "There is no engine listening: its socket does not exist."
    except PermissionError:
        error = "The engine's socket may not be opened by this user: use become."
    except (OSError, ValueError) as exc:
        error = f"The engine does not answer: {exc}"
    facts: Facts = {
        "installed": installed,
        "running": False,
        "error": error,
        "init_binary": None,
        "init_bytes": None,
        "containerd_root": None,
    }
    # Keys are there always, so that a play can name them without asking first.
    facts.update(dict.fromkeys(parse_engine({}, {}), None))
    facts["api_engine"] = engine_verdict(None, None)._asdict()
    facts["runtimes"], facts["security_options"], facts["containers_running"] = [], [], 0
    facts["shim"] = shim_facts({})
    for program in ("containerd", "runc"):
        if which(program):
            facts[f"{program}_version"] = ".".join(map(str, parse_version(run([program, "--version"]).stdout))) or None
    return facts


# --- Python -------------------------------------------------------------------------------------------------------


def python_facts() -> Facts:
    """The interpreter this module runs in, and the docker-py it would import."""
    found = docker_library.look()
    return {
        "executable": sys.executable,
        "version": ".".join(str(part) for part in sys.version_info[:3]),
        "docker_py": found.version,
        "docker_py_path": found.path,
        "docker_py_error": found.error,
    }


# --- all of it ----------------------------------------------------------------------------------------------------


def host_facts(
    run: Runner, criu_path: str | None = None, features: t.Sequence[str] = FEATURES, asked_at: float | None = None
) -> Facts:
    """Everything that the roles and the preflight ask about a host.

    :param asked_at: the time of the host that asks, for a comparison of clocks.
    """
    clock = machine.ClockReading(asked_at)
    criu = criu_facts(run, criu_path, features)
    kernel = kernel_facts()
    docker = docker_facts(run)
    tried = self_test_facts(run, criu)
    verdict = criu_verdict(
        criu["version"],
        criu["package_revision"],
        criu["check"]["ok"],
        criu["check"]["output"],
        kernel["release"],
        kernel["machine"],
        tried["ok"],
        tried["error"],
    )
    places = {"/var/lib/docker": docker["data_root"], "/var/lib/containerd": docker["containerd_root"]}
    paths = [places.get(path) or path for path in DISK_PATHS]
    return {
        "criu": criu,
        "self_test": tried,
        "kernel": kernel,
        "docker": docker,
        "tools": {name: which(name) for name in TOOLS},
        "rsync": rsync.look(),
        "memory": parse_meminfo(process_resources.read("/proc/meminfo")),
        "huge_pages": huge_pages.pools(),
        "limits": machine.limits(),
        "cpu": machine.parse_cpuinfo(process_resources.read("/proc/cpuinfo")),
        "clock": clock.facts(),
        "login": machine.login(),
        "ssh_host_keys": host_keys.public(),
        "disk": disk_facts(paths),
        # Where a session keeps what must not reach a disk.
        "swap": swap.facts(),
        "tmpfs_free_bytes": disk_facts(["/run"])[0]["free_bytes"],
        "python": python_facts(),
        "usable": not verdict.reasons,
        "reasons": verdict.reasons,
        "remarks": verdict.remarks,
    }
