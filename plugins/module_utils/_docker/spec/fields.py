# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What happens with every field of ``docker inspect`` when a container is re-created elsewhere: one row per field.

Read from the Go types of moby v19.03.15, v20.10.24, v24.0.9, v26.1.5, v28.5.2 and docker-v29.7.2
(api/types/container/{config,hostconfig,container}.go, api/types/network/endpoint.go), that is API 1.40 to 1.55, and
from what daemon/create*.go and the create route do with them.

A field without a row is copied into the creation body and named in ``unknown_fields``, so that a newer Docker loses
nothing silently. (Only of the top level and of NetworkSettings nothing can be copied: there it is named and no
more.)
"""

from __future__ import annotations

import typing as t

# --- What happens with a field.
COPY = "copy"  # sent as inspect shows it
TRANSFORM = (
    "transform"  # sent changed; the function of the same name in TRANSFORMS (see _docker/spec/create.py) says how
)
DROP = "drop"  # not sent: the destination makes its own
REFUSE = "refuse"  # refusals() turns some of its values down; all others are copied

# --- What a redacted view and the text of a difference tell about its value.
SHOW = "show"  # the value
NAMES = "names"  # names without values: environment, labels, options
ARGV = "argv"  # the program and the number of its arguments: arguments hold passwords more often than not
COUNT = "count"  # a number of arguments
HEALTH = "health"  # a health check: its times, and its command as ARGV
LOG = "log"  # a log driver and the names of its options (tokens of log services)
SECURITY = "security"  # security options, an inlined seccomp profile by size and checksum
MOUNTS = "mounts"  # mounts without the options of volume drivers (passwords of network shares)
HIDE = "hide"  # nothing but whether it is there

# --- Where a field lives. Endpoint: NetworkSettings.Networks.NAME
TOP = "top"
CONFIG = "Config"
HOST = "HostConfig"
NETWORK = "NetworkSettings"
ENDPOINTS = "Endpoint"


class Field(t.NamedTuple):
    """One row of the table."""

    section: str
    name: str
    action: str
    why: str
    view: str = SHOW
    #: first API version whose create call honours the field; an older destination cannot reproduce it
    since: str = ""
    #: first API version whose create call does not honour it any more
    until: str = ""
    #: why the two hosts may show different values after a good move; empty: they must agree
    differs: str = ""

    @property
    def path(self) -> str:
        return self.name if self.section == TOP else "%s.%s" % (self.section, self.name)


# Reasons that many rows share.
_OWN = "each host makes its own"
_LIMIT = "a limit or weight of this container"
_WINDOWS = "means nothing on Linux, where it is always empty"
_DEVICES = "names block devices of the host"
_LEGACY = "old form of the default bridge's endpoint; NetworkSettings.Networks has it"
_PATH = "a path below the data-root of this host"
_ASSIGNED = "assigned at start by the network of this host"

# One row, one entry: laid out by hand.
# fmt: off
FIELDS: tuple[Field, ...] = (
    # ---------------------------------------------------------------- Config: the top level of the creation body
    Field(CONFIG, "Hostname", TRANSFORM, "kept, also where it is the default short id: the restored UTS namespace and "
          "/etc/hostname must agree. Left out with the host's UTS namespace, where the engine refuses a hostname"),
    Field(CONFIG, "Domainname", COPY, "part of the UTS namespace"),
    Field(CONFIG, "User", COPY, "effective user; equal to the image's or set over it"),
    Field(CONFIG, "AttachStdin", COPY, "shapes the standard streams that the checkpoint expects"),
    Field(CONFIG, "AttachStdout", COPY, "shapes the standard streams that the checkpoint expects"),
    Field(CONFIG, "AttachStderr", COPY, "shapes the standard streams that the checkpoint expects"),
    Field(CONFIG, "ExposedPorts", COPY, "set by image or user"),
    Field(CONFIG, "Tty", COPY, "a checkpoint with a terminal needs a terminal"),
    Field(CONFIG, "OpenStdin", COPY, "shapes the standard streams that the checkpoint expects"),
    Field(CONFIG, "StdinOnce", COPY, "what happens to stdin when its client goes"),
    Field(CONFIG, "Env", COPY, "for later starts and for docker exec; the restored processes have theirs in memory",
          NAMES),
    Field(CONFIG, "Cmd", COPY, "for later starts", COUNT),
    Field(CONFIG, "Healthcheck", COPY, "runs beside the restored processes", HEALTH),
    Field(CONFIG, "ArgsEscaped", COPY, _WINDOWS),
    Field(CONFIG, "Image", TRANSFORM, "the reference, where it resolves to the same image on the destination; else the "
          "image's id"),
    Field(CONFIG, "Volumes", COPY, "the image's and anonymous volumes; HostConfig.Mounts gives each its old name"),
    Field(CONFIG, "WorkingDir", COPY, "for later starts and for docker exec"),
    Field(CONFIG, "Entrypoint", TRANSFORM, 'null is sent as [""]: the engine would fill null from the image again, '
          "also where the user had cleared the image's entry point", ARGV),
    Field(CONFIG, "NetworkDisabled", COPY, "no network at all"),
    Field(CONFIG, "MacAddress", TRANSFORM, "a requested address: below API 1.44 here, from there on in the endpoint of "
          "the container's own network (1.52 refuses it here)"),
    Field(CONFIG, "OnBuild", COPY, "inherited from the image, used by builds only"),
    Field(CONFIG, "Labels", COPY, "image's and user's", NAMES),
    Field(CONFIG, "StopSignal", COPY, "how docker stop asks"),
    Field(CONFIG, "StopTimeout", COPY, "how long docker stop waits"),
    Field(CONFIG, "Shell", COPY, "the image's shell form", ARGV),
    # ---------------------------------------------------------------- HostConfig
    Field(HOST, "Binds", TRANSFORM, "kept; a bare destination (an anonymous volume) moves to Mounts under the volume's "
          "name"),
    Field(HOST, "ContainerIDFile", DROP, "a file that the docker command wrote on the source",
          differs="not needed again"),
    Field(HOST, "LogConfig", COPY, "driver and options; the daemon's default was made explicit when it was created",
          LOG),
    Field(HOST, "NetworkMode", TRANSFORM, 'a network id becomes its name, "default" becomes "bridge", a network that '
          "the container has left becomes the first one that it is on"),
    Field(HOST, "PortBindings", TRANSFORM, "a host port that the engine chose (-p 80, a range, -P) is pinned to the "
          "number it has now: clients know that number, and preflight can see a conflict before anything stops"),
    Field(HOST, "RestartPolicy", TRANSFORM, 'created with "no": a failed restore must not become a fresh start. The '
          "real policy is returned apart and given after the proof"),
    Field(HOST, "AutoRemove", REFUSE, "the engine removes container, layer and anonymous volumes when it stops"),
    Field(HOST, "VolumeDriver", COPY, "driver of the volumes in Binds"),
    Field(HOST, "VolumesFrom", TRANSFORM, "emptied: the other container does not exist there. Its mounts are in Mounts "
          "and are asked for one by one"),
    Field(HOST, "ConsoleSize", TRANSFORM, "first size of a terminal, never needed again; sent from API 1.42 on"),
    Field(HOST, "Annotations", COPY, "handed to the runtime", NAMES, since="1.43"),
    Field(HOST, "CapAdd", COPY, "capabilities of later starts and of docker exec"),
    Field(HOST, "CapDrop", COPY, "capabilities of later starts and of docker exec"),
    Field(HOST, "Capabilities", REFUSE, "an exact set, in API 1.40 only", until="1.41"),
    Field(HOST, "CgroupnsMode", COPY, "the cgroup namespace of the checkpoint", since="1.41"),
    Field(HOST, "Dns", COPY, "ends in /etc/resolv.conf"),
    Field(HOST, "DnsOptions", COPY, "ends in /etc/resolv.conf"),
    Field(HOST, "DnsSearch", COPY, "ends in /etc/resolv.conf"),
    Field(HOST, "ExtraHosts", COPY, "ends in /etc/hosts"),
    Field(HOST, "GroupAdd", COPY, "supplementary groups"),
    Field(HOST, "IpcMode", REFUSE, "host, container: and shareable keep shared memory outside of the checkpoint"),
    Field(HOST, "Cgroup", REFUSE, "container: is another container's cgroup"),
    Field(HOST, "Links", REFUSE, "legacy links of the default bridge name containers that do not exist there"),
    Field(HOST, "OomScoreAdj", COPY, _LIMIT),
    Field(HOST, "PidMode", REFUSE, "host and container: share process ids with tasks that do not move"),
    Field(HOST, "Privileged", COPY, "the same access to devices and kernel"),
    Field(HOST, "PublishAllPorts", COPY, "kept; the ports it published are pinned in PortBindings, so it adds none"),
    Field(HOST, "ReadonlyRootfs", COPY, "mount flags of the checkpoint"),
    Field(HOST, "SecurityOpt", COPY, "byte for byte: both spellings (seccomp:x, seccomp=x), inlined seccomp JSON, "
          "apparmor, label, no-new-privileges. systempaths=unconfined is MaskedPaths and ReadonlyPaths []", SECURITY),
    Field(HOST, "StorageOpt", COPY, "options of the storage driver; needs the same support there"),
    Field(HOST, "Tmpfs", COPY, "their content is in the checkpoint, the mount must be there"),
    Field(HOST, "UTSMode", COPY, "the UTS namespace of the checkpoint"),
    Field(HOST, "UsernsMode", REFUSE, "a remapped user namespace cannot be moved; empty and host mean none"),
    Field(HOST, "ShmSize", COPY, "size of /dev/shm"),
    Field(HOST, "Sysctls", TRANSFORM, "net.*.*.eth0.* goes to the endpoint's driver options from API 1.46 on (1.48 "
          "refuses it here)"),
    Field(HOST, "Runtime", COPY, "must be registered there"),
    Field(HOST, "Isolation", REFUSE, "Windows only"),
    Field(HOST, "CpuShares", COPY, _LIMIT),
    Field(HOST, "Memory", COPY, _LIMIT),
    Field(HOST, "NanoCpus", COPY, _LIMIT),
    Field(HOST, "CgroupParent", COPY, "must exist there or be creatable"),
    Field(HOST, "BlkioWeight", COPY, _LIMIT),
    Field(HOST, "BlkioWeightDevice", COPY, _DEVICES),
    Field(HOST, "BlkioDeviceReadBps", COPY, _DEVICES),
    Field(HOST, "BlkioDeviceWriteBps", COPY, _DEVICES),
    Field(HOST, "BlkioDeviceReadIOps", COPY, _DEVICES),
    Field(HOST, "BlkioDeviceWriteIOps", COPY, _DEVICES),
    Field(HOST, "CpuPeriod", COPY, _LIMIT),
    Field(HOST, "CpuQuota", COPY, _LIMIT),
    Field(HOST, "CpuRealtimePeriod", COPY, "needs a kernel with real-time group scheduling"),
    Field(HOST, "CpuRealtimeRuntime", COPY, "needs a kernel with real-time group scheduling"),
    Field(HOST, "CpusetCpus", COPY, "needs CPUs of these numbers"),
    Field(HOST, "CpusetMems", COPY, "needs memory nodes of these numbers"),
    Field(HOST, "Devices", COPY, "the same devices must exist there"),
    Field(HOST, "DeviceCgroupRules", COPY, _LIMIT),
    Field(HOST, "DeviceRequests", REFUSE, "GPUs and other requested devices hold state that CRIU does not dump through "
          "Docker"),
    Field(HOST, "KernelMemory", COPY, _LIMIT, until="1.42"),
    Field(HOST, "KernelMemoryTCP", COPY, _LIMIT, until="1.52"),
    Field(HOST, "MemoryReservation", COPY, _LIMIT),
    Field(HOST, "MemorySwap", COPY, _LIMIT),
    Field(HOST, "MemorySwappiness", COPY, _LIMIT),
    Field(HOST, "OomKillDisable", COPY, "null and false are the same; the engine says null on cgroup v2"),
    Field(HOST, "PidsLimit", COPY, _LIMIT),
    Field(HOST, "Ulimits", COPY, "inspect shows them merged with the daemon's defaults, and so they are pinned"),
    Field(HOST, "CpuCount", COPY, _WINDOWS),
    Field(HOST, "CpuPercent", COPY, _WINDOWS),
    Field(HOST, "IOMaximumIOps", COPY, _WINDOWS),
    Field(HOST, "IOMaximumBandwidth", COPY, _WINDOWS),
    Field(HOST, "Mounts", TRANSFORM, "kept, and every volume that no bind or mount names (image's, anonymous, "
          "--volumes-from) is asked for by its name, so that its content can be placed before the start", MOUNTS),
    Field(HOST, "MaskedPaths", COPY, "exactly the source's: the mounts of the checkpoint. [] is "
          "systempaths=unconfined, null the engine's default"),
    Field(HOST, "ReadonlyPaths", COPY, "as MaskedPaths"),
    Field(HOST, "Init", COPY, "docker-init as the first process"),
    # ---------------------------------------------------------------- one endpoint: NetworkSettings.Networks.NAME
    Field(ENDPOINTS, "IPAMConfig", TRANSFORM, "requested static addresses; an address that was merely assigned is "
          "asked for only where the caller keeps addresses"),
    Field(ENDPOINTS, "Links", COPY, "DNS names on a user-defined network; they hold no reference to a container"),
    Field(ENDPOINTS, "Aliases", TRANSFORM, "without the automatic short container id (shown below API 1.45)"),
    Field(ENDPOINTS, "DriverOpts", TRANSFORM, "kept, with the sysctls of the interface added", NAMES),
    Field(ENDPOINTS, "GwPriority", COPY, "which network has the default gateway", since="1.48"),
    Field(ENDPOINTS, "MacAddress", TRANSFORM, "only where it was requested: inspect shows the generated one in the "
          "same place", differs=_ASSIGNED),
    Field(ENDPOINTS, "NetworkID", DROP, "networks are found by name", differs=_OWN),
    Field(ENDPOINTS, "EndpointID", DROP, _OWN, differs=_OWN),
    Field(ENDPOINTS, "Gateway", DROP, _ASSIGNED, differs=_ASSIGNED),
    Field(ENDPOINTS, "IPAddress", DROP, _ASSIGNED, differs=_ASSIGNED),
    Field(ENDPOINTS, "IPPrefixLen", DROP, _ASSIGNED, differs=_ASSIGNED),
    Field(ENDPOINTS, "IPv6Gateway", DROP, _ASSIGNED, differs=_ASSIGNED),
    Field(ENDPOINTS, "GlobalIPv6Address", DROP, _ASSIGNED, differs=_ASSIGNED),
    Field(ENDPOINTS, "GlobalIPv6PrefixLen", DROP, _ASSIGNED, differs=_ASSIGNED),
    Field(ENDPOINTS, "DNSNames", DROP, "made from name, aliases, id and hostname",
          differs="holds the short container id"),
    # ---------------------------------------------------------------- NetworkSettings
    Field(NETWORK, "Networks", TRANSFORM, "each network becomes an endpoint of the creation body, or a connect call "
          "below API 1.44"),
    Field(NETWORK, "Ports", TRANSFORM, "the ports really bound: PortBindings are pinned to them"),
    Field(NETWORK, "Bridge", DROP, "only set by dockerd --bridge", differs=_OWN),
    Field(NETWORK, "SandboxID", DROP, _OWN, differs=_OWN),
    Field(NETWORK, "SandboxKey", DROP, _OWN, differs=_OWN),
    Field(NETWORK, "HairpinMode", DROP, "never set", differs=_OWN),
    Field(NETWORK, "LinkLocalIPv6Address", DROP, "never set", differs=_OWN),
    Field(NETWORK, "LinkLocalIPv6PrefixLen", DROP, "never set", differs=_OWN),
    Field(NETWORK, "SecondaryIPAddresses", DROP, "never set", differs=_OWN),
    Field(NETWORK, "SecondaryIPv6Addresses", DROP, "never set", differs=_OWN),
    Field(NETWORK, "EndpointID", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "Gateway", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "GlobalIPv6Address", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "GlobalIPv6PrefixLen", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "IPAddress", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "IPPrefixLen", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "IPv6Gateway", DROP, _LEGACY, differs=_OWN),
    Field(NETWORK, "MacAddress", DROP, _LEGACY, differs=_OWN),
    # ---------------------------------------------------------------- top level of inspect
    Field(TOP, "Name", TRANSFORM, "the name parameter of the create call, without its slash"),
    Field(TOP, "Config", TRANSFORM, "field by field, see above", HIDE),
    Field(TOP, "HostConfig", TRANSFORM, "field by field, see above", HIDE),
    Field(TOP, "NetworkSettings", TRANSFORM, "field by field, see above", HIDE),
    Field(TOP, "Mounts", TRANSFORM, "the mounts as they are: they tell the names of anonymous volumes"),
    Field(TOP, "Id", DROP, _OWN, differs=_OWN),
    Field(TOP, "Created", DROP, _OWN, differs=_OWN),
    Field(TOP, "Path", DROP, "made from Entrypoint and Cmd", ARGV),
    Field(TOP, "Args", DROP, "made from Entrypoint and Cmd", COUNT),
    Field(TOP, "State", DROP, "what the copy here is doing", HIDE, differs="each copy has its own state"),
    Field(TOP, "Image", DROP, "the caller names the image of the destination"),
    Field(TOP, "ResolvConfPath", DROP, _PATH, differs=_PATH),
    Field(TOP, "HostnamePath", DROP, _PATH, differs=_PATH),
    Field(TOP, "HostsPath", DROP, _PATH, differs=_PATH),
    Field(TOP, "LogPath", DROP, _PATH, differs=_PATH),
    Field(TOP, "Node", DROP, "standalone Swarm, long gone", differs=_OWN),
    Field(TOP, "RestartCount", DROP, "counted here", differs="counted anew"),
    Field(TOP, "Driver", DROP, "the storage driver of the host"),
    Field(TOP, "Platform", REFUSE, "only linux can be moved"),
    Field(TOP, "MountLabel", DROP, "made from SecurityOpt", differs="SELinux categories are drawn anew"),
    Field(TOP, "ProcessLabel", DROP, "made from SecurityOpt", differs="SELinux categories are drawn anew"),
    Field(TOP, "AppArmorProfile", DROP, "made from SecurityOpt; the checkpoint needs the same profile"),
    Field(TOP, "ExecIDs", REFUSE, "processes of docker exec are not in a checkpoint",
          differs="each copy has its own sessions"),
    Field(TOP, "GraphDriver", DROP, "where the layers lie", HIDE, differs=_PATH),
    Field(TOP, "Storage", DROP, "where the layers lie, from API 1.52 on", HIDE, differs=_PATH),
    Field(TOP, "SizeRw", DROP, "measured", differs="measured"),
    Field(TOP, "SizeRootFs", DROP, "measured", differs="measured"),
    Field(TOP, "ImageManifestDescriptor", DROP, "manifest of the image, with the containerd image store",
          differs="depends on the image store of each host"),
)
# fmt: on


def fields_by_path() -> dict[str, Field]:
    """The table by path, read anew at every call so that a test can take a row away."""
    return {field.path: field for field in FIELDS}


def parse_api(version: str) -> tuple[int, int]:
    """``"1.45"`` as numbers, so that 1.9 is older than 1.40.

    :raises ValueError: for anything that is not an API version
    """
    major, _dot, minor = version.partition(".")
    return int(major), int(minor)


def is_empty(value: t.Any) -> bool:
    """Whether a value is the zero value of its type in Go: nothing was asked for."""
    if isinstance(value, (dict, list, tuple)):
        return not value
    return value is None or value == "" or value is False or (isinstance(value, (int, float)) and value == 0)
