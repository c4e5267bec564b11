# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The sysctls of a container's namespaces: network, IPC and UTS.

runc sets those that were asked for (``docker run --sysctl``, and Docker's own) when it creates a container, not when it restores
one, and a program with the right to do so may have changed more. So all of them are read on the source, and those that differ on
the copy are written there, as far as the kernel lets anybody write them.

Which of them *must* be the same: those that differ on the source from what a fresh namespace has there, for those were set for
this container. The others are the source kernel's own: they are carried where they can be, and another kernel may not have them.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _namespaces
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings_side import Side

NAME = "sysctls"
OF_PROCESSES = False

_ROOT = "/proc/sys"
_NET = "net"
# What belongs to an IPC or UTS namespace, by name: the directories hold what is the host's own too.
_OF_KINDS: dict[str, tuple[str, ...]] = {
    "ipc": (
        *("kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem"),
        *("kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced"),
        *(f"fs/mqueue/{name}" for name in ("msg_default", "msg_max", "msgsize_default", "msgsize_max", "queues_max")),
    ),
    "uts": ("kernel/hostname", "kernel/domainname"),
}
# Values that are nobody's setting: what the kernel counts or works out by itself, and those by which something is ordered.
_NO_SETTINGS = re.compile(
    r"net/(netfilter/nf_conntrack_count|ipv[46]/route/flush|ipv4/(tcp|udp)_\w*hash_entries|ipv4/tcp_available_\w+"
    r"|(ipv4|ipv6)/conf/[^/]+/mtu|core/netdev_rss_key|netfilter/nf_log/.*|mptcp/available_schedulers)"
)
# One of them may reset others: the kernel gives every interface new values when forwarding is switched.
_FIRST = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/",
    "net/ipv6/conf/all/",
    "net/ipv4/conf/default/",
    "net/ipv6/conf/default/",
)
# What one device has, as Docker and the kernel made it for that device.
_OF_DEVICE = re.compile(r"net/(?:ipv4|ipv6)/(?:conf|neigh)/([^/]+)/")
_SAFE_NAME = re.compile(r"net/[a-zA-Z0-9_./-]+")
# A file of secrets among the settings: it is carried, and its value told nobody. (No message tells values.)
_LARGEST = 1 << 16

Values = dict[str, str]


def _read(name: str) -> str | None:
    try:
        with open(f"{_ROOT}/{name}", encoding="utf-8", errors="surrogateescape") as handle:
            return handle.read(_LARGEST).rstrip("\n")
    except OSError:
        # Some can only be written, and some have no value yet.
        return None


def _network_names() -> t.Iterator[str]:
    for directory, _below, names in os.walk(f"{_ROOT}/{_NET}"):
        for name in names:
            path = os.path.relpath(os.path.join(directory, name), _ROOT)
            if not _NO_SETTINGS.fullmatch(path):
                yield path


def _values(names: t.Iterable[str]) -> Values:
    read = ((name, _read(name)) for name in names)
    return {name: value for name, value in read if value is not None}


def _kinds(side: Side) -> list[str]:
    """The kinds of namespaces that are the container's own. (What is the host's is nothing that moves, nor to be written.)"""
    kinds = [kind for kind in _OF_KINDS if side.owns(kind)]
    return ["net", *kinds] if side.own_network and side.owns("net") else kinds


def _read_all(kinds: t.Collection[str]) -> Values:
    """All values of the namespaces that this thread is in."""
    found = _values(_network_names()) if "net" in kinds else {}
    for kind, names in _OF_KINDS.items():
        if kind in kinds:
            found.update(_values(names))
    return found


def look_ahead(side: Side) -> t.Any:
    """What fresh namespaces have on this host."""
    kinds = _kinds(side)
    return _namespaces.inside_fresh(kinds, lambda: _read_all(kinds)) if kinds else {}


def take(side: Side, ahead: t.Any) -> t.Any:
    """All values, and the names of those that were set for this container."""
    kinds = _kinds(side)
    values = _namespaces.inside(side.init, kinds, lambda: _read_all(kinds)) if kinds else {}
    fresh: Values = ahead or {}
    chosen = [name for name, value in values.items() if _expected(name, fresh, values) != value]
    return {"values": values, "set": sorted(chosen)}


def _expected(name: str, fresh: Values, values: Values) -> str | None:
    """What a value would be, had nobody set it: what a new device gets is what `default` says in its own namespace."""
    found = _OF_DEVICE.match(name)
    if found and found.group(1) not in ("all", "default", "lo"):
        return values.get(name.replace(f"/{found.group(1)}/", "/default/", 1))
    return fresh.get(name)


def for_restore(source: t.Any) -> list[str]:
    """Those that have to be there before CRIU makes sockets (which ports and pings a user may open), as lines ``NAME VALUE``.

    :param source: what :func:`take` returned.
    """
    lines = []
    for name in sorted((source or {}).get("set", ()), key=_order):
        value = source["values"][name]
        device = _OF_DEVICE.match(name)
        # There is no device yet, and names go into paths.
        if (device is None or device.group(1) in ("all", "default", "lo")) and _is_safe(name) and value.isprintable():
            lines.append(f"{name} {value}")
    return [line.replace("\t", " ") for line in lines]


def _is_safe(name: str) -> bool:
    return bool(_SAFE_NAME.fullmatch(name)) and ".." not in name.split("/")


def _order(name: str) -> tuple[int, str]:
    return next((number for number, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST)), name


def carry(side: Side, source: t.Any) -> None:
    """Write what differs."""
    values: Values = source["values"]

    def write() -> None:
        for name in sorted((one for one in values if kind_of(one) in kinds), key=_order):
            now = _read(name)
            # A kernel that does not have it cannot be told.
            if now is not None and not _same(now, values[name]):
                _write(name, values[name])

    kinds = _kinds(side)
    _namespaces.inside(side.init, kinds, write)


def _write(name: str, value: str) -> None:
    # What cannot be written, because it is the kernel's own or belongs to the whole host, shows in the comparison if it matters.
    with (
        contextlib.suppress(OSError),
        open(f"{_ROOT}/{name}", "w", encoding="utf-8", errors="surrogateescape") as handle,
    ):
        handle.write(value + "\n")


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()


def compare(side: Side, source: t.Any) -> list[str]:
    """The values that were set for this container and that the copy has not."""
    kinds = _kinds(side)
    # What is not the copy's own (a network that is not closed) is not its to have.
    names = [name for name in source["set"] if kind_of(name) in kinds]
    return differences(names, source["values"], _namespaces.inside(side.init, kinds, lambda: _values(names)))


def kind_of(name: str) -> str:
    """Which kind of namespace a sysctl belongs to."""
    return next((kind for kind, names in _OF_KINDS.items() if name in names), "net")


def differences(names: t.Iterable[str], source: Values, copy: Values) -> list[str]:
    """Those settings that differ, by name; no value is told, for there are keys among them.

    :param names: what is compared.
    """
    wrong = [name for name in names if not _same(copy.get(name, ""), source[name])]
    return [f"the sysctl {name.replace('/', '.')} is another one" for name in wrong]
