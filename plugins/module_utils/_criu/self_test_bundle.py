# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The tiny container that a host's CRIU is tried with: what runs in it, what it is made of, and the steps of the try.

It is like the containers of the engine in all that CRIU meets: an overlay as root, the engine's own mounts, masked paths,
namespaces, a network that a hook sets up. Its programs are the host's own, bound in for reading.
"""

from __future__ import annotations

import os
import sys
import typing as t

NAME = "livemigrate-self-test"
# Directories that are there before the steps begin.
DIRECTORIES = ("lower", "upper", "overlay", "rootfs", "images", "dump", "restore", "runc")

# Holds what most services hold, waits until it is told that it has been restored, and then uses its connection.
_PROGRAM = """\
import fcntl, os, socket, sys, time
listening = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listening.getsockname())
server = listening.accept()[0]
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
ends = socket.socketpair()
lock = open("/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
open("/ready", "w").close()
while not os.path.exists("/go"):
    time.sleep(0.002)
client.sendall(b"x")
sys.exit(0 if server.recv(1) == b"x" else 1)
"""

# Every step says its name, the time and, when it is over, its exit code. What is said between is runc's.
STEPS = """\
cd "$1" || exit 1
runc="runc --root $1/runc"
step() {
    echo "step $1 $(date +%s.%N)"
}
ended() {
    echo "ended $1 $(date +%s.%N)"
    [ "$1" -eq 0 ] || exit 0
}
# Where there is no overlay the engine has none either.
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=overlay overlay rootfs 2>/dev/null || {
    mount --bind upper rootfs && cp -a lower/. rootfs/
}
: >options
step run
$runc run --detach --bundle . NAME </dev/null
rc=$?
left=10000
while [ $rc -eq 0 ] && [ ! -e rootfs/ready ]; do
    sleep 0.005
    left=$((left - 1))
    [ $left -gt 0 ] || rc=1
done
ended $rc
cp options.dump options
step dump
CRIU_CONFIG_FILE=$1/options.environment $runc checkpoint --image-path images --work-path dump NAME </dev/null
ended $?
: >rootfs/go
cp options.restore options
step restore
$runc restore --no-subreaper --image-path images --work-path restore --bundle . NAME </dev/null
ended $?
""".replace("NAME", NAME)

# As livemigrate-network does it for a copy.
_LOOPBACK = """\
pid=$(sed -n 's/.*"pid":[[:blank:]]*\\([0-9]\\{1,\\}\\).*/\\1/p' | head -n 1)
exec nsenter "--net=/proc/$pid/ns/net" ip link set lo up
"""

_MOUNTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=1024k")),  # noqa: S108 - the container's
)


def programs(interpreter: str, root: str = "/") -> tuple[dict[str, str], list[str]]:
    """Where the host has its programs and libraries.

    :param interpreter: the path of a Python, without symbolic links.
    :returns: links to make, and directories to bind.
    """
    links, directories = {}, []
    for name in sorted(os.listdir(root)):
        if name in ("usr", "bin", "sbin") or name.startswith("lib"):
            path = os.path.join(root, name)
            if os.path.islink(path):
                links[name] = os.readlink(path)
            elif os.path.isdir(path):
                directories.append(f"/{name}")
    if not any(interpreter.startswith(f"{directory}/") for directory in directories):
        directories.append(sys.base_prefix)
    return links, directories


def write(place: str, unit: str) -> dict[str, t.Any]:
    """Make the directories of the container in *place*; returns the text of its ``config.json`` as data.

    :param unit: the name of the systemd unit in whose cgroup it is to run.
    """
    for name in DIRECTORIES:
        os.mkdir(os.path.join(place, name), 0o700)
    interpreter = os.path.realpath(sys.executable)
    links, directories = programs(interpreter)
    for name, target in links.items():
        os.symlink(target, os.path.join(place, "lower", name))
    mounts: list[dict[str, t.Any]] = [
        {"destination": path, "type": kind, "source": kind, "options": list(options)} for path, kind, options in _MOUNTS
    ]
    for path in directories:
        os.makedirs(os.path.join(place, "lower", path.lstrip("/")))
        mounts.append({"destination": path, "type": "bind", "source": path, "options": ["bind", "ro"]})
    hook = {"path": "/bin/sh", "args": ["sh", "-c", _LOOPBACK], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [interpreter, "-I", "-S", "-c", _PROGRAM],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": NAME,
        "mounts": mounts,
        "hooks": {"prestart": [hook]},
        # What CRIU reads in place of the host's own file.
        "annotations": {"org.criu.config": os.path.join(place, "options")},
        "linux": {
            "cgroupsPath": f"/system.slice/{unit}/container",
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
        },
    }
