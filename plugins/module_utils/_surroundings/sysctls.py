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

There are about 800 of them, and reading one costs 10 microseconds. So what a fresh namespace has is read on both hosts before the
freeze, and the held copy is asked only for those in which the source differs from that. Where no process of the container can
change any of them (see ``_surroundings/sysctl_access.py``), the source's are read right before the freeze and not again.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from .._host import namespaces
from . import sysctl_access
from .side import Side

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
# One of them may reset others: the kernel gives every interface new values when forwarding is switched. Devices come last.
_FIRST = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/",
    "net/ipv6/conf/all/",
    "net/ipv4/conf/default/",
    "net/ipv6/conf/default/",
)
# What one device has. A new one gets it from `default` of its namespace. For neighbours only the host shows `default`, and MPLS
# has none, but `lo` has got the same.
_OF_DEVICE = re.compile(r"(net/(?:ipv[46]/(?:conf|neigh)|mpls/conf)/)([^/]+)(/.*)")
_OF_DEVICES = ("net/ipv4/conf/", "net/ipv4/neigh/", "net/ipv6/conf/", "net/ipv6/neigh/", "net/mpls/conf/")
_FOR_DEVICES = ("all", "default")
_NO_DEVICES = (*_FOR_DEVICES, "lo")
_HAVE_DEFAULT = ("net/ipv4/conf/", "net/ipv6/conf/")
# That IPv6 is off at a device, or at all of them. A kernel without IPv6 (ipv6.disable=1) has none of its sysctls, and there it
# is off anyway. Docker sets this where a network has no IPv6, which is nearly everywhere, and of IPv6 nothing else.
_IPV6_OFF = re.compile(r"net/ipv6/conf/[^/]+/disable_ipv6")
_SAFE_NAME = re.compile(r"net/[a-zA-Z0-9_./-]+")
# A file of secrets is among the settings. It is carried, and its value is shown to nobody: no message has values.
_USUAL = 1 << 16
# More than 64 Ki ports take, in ip_local_reserved_ports.
_LARGEST = 1 << 20

Values = dict[str, str]


def _read(name: str) -> str | None:
    """A value; None where there is none. Some can only be written, some have no value yet, others are not on every kernel."""
    try:
        found = _read_once(name, _USUAL)
        # Room for the largest one costs time, because the kernel makes as much.
        return found if len(found) < _USUAL else _read_once(name, _LARGEST)
    except OSError:
        return None


def _read_once(name: str, size: int) -> str:
    """A value as far as it fits: the kernel tells many of them to the first read alone."""
    descriptor = os.open(f"{_ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size).decode("utf-8", "surrogateescape").rstrip("\n")
    finally:
        os.close(descriptor)


def _network_names() -> t.Iterator[str]:
    for directory, _below, names in os.walk(f"{_ROOT}/{_NET}"):
        for name in names:
            path = os.path.relpath(os.path.join(directory, name), _ROOT)
            if not _NO_SETTINGS.fullmatch(path):
                yield path


def _names(kinds: t.Collection[str]) -> list[str]:
    """What there is in the namespaces that this thread is in."""
    others = [name for kind, names in _OF_KINDS.items() if kind in kinds for name in names]
    return [*others, *(_network_names() if "net" in kinds else ())]


def _values(names: t.Iterable[str]) -> Values:
    read = ((name, _read(name)) for name in names)
    return {name: value for name, value in read if value is not None}


def kind_of(name: str) -> str:
    """Which kind of namespace a sysctl belongs to."""
    return next((kind for kind, names in _OF_KINDS.items() if name in names), "net")


def fresh() -> Values:
    """What fresh namespaces have on this host."""
    kinds = ("net", *_OF_KINDS)
    return namespaces.inside_fresh(kinds, lambda: _values(_names(kinds)))


def look_ahead(side: Side) -> t.Any:
    """What fresh namespaces have on this host, and which sysctls there are in those of the container."""
    kinds = side.namespaces()
    names = namespaces.inside(side.init, kinds, lambda: _names(kinds))
    return {"fresh": fresh(), "names": names}


def look_last(side: Side, ahead: t.Any) -> t.Any:
    """The same with all values, where nothing inside of the container can change one until it is frozen.

    :param ahead: what :func:`look_ahead` returned, or this function when it was tried before.
    """
    found = {key: value for key, value in ahead.items() if key != "values"}
    # What cannot be read now is read of the frozen container.
    with contextlib.suppress(OSError):
        if not sysctl_access.can_write(side):
            found["values"] = _taken(side, ahead)
    return found


def take(side: Side, ahead: t.Any) -> t.Any:
    """All values, and the names of those that were set for this container."""
    values = (ahead or {}).get("values") or _taken(side, ahead)
    return {"values": values, "set": sorted(_with_devices(_unlike(values, ahead["fresh"] if ahead else {}), values))}


def _taken(side: Side, ahead: t.Any) -> Values:
    """All values that the container has now."""
    kinds = side.namespaces()
    names = ahead["names"] if ahead else None
    return namespaces.inside(side.init, kinds, lambda: _values(names if names is not None else _names(kinds)))


def _unlike(values: Values, usual: Values) -> list[str]:
    """Those values that are not what a fresh namespace would have.

    :param usual: what a fresh namespace has.
    """

    def expected(name: str) -> str | None:
        device = _OF_DEVICE.fullmatch(name)
        if device is None or device.group(2) in _NO_DEVICES:
            return usual.get(name)
        before, _device, after = device.groups()
        return usual.get(before + ("default" if before in _HAVE_DEFAULT else "lo") + after)

    # Nearly all are to the letter what a fresh namespace has under the same name, which costs least to see.
    other = [name for name, value in values.items() if usual.get(name) != value]
    return [name for name in other if not _same(expected(name), values[name])]


def _with_devices(names: t.Iterable[str], values: Values) -> set[str]:
    """The same, and what each device has of those that are of `all` and `default`.

    The kernel passes these on to devices when they are written, to some of them and not to others. So a device may have another
    value on the copy though it has what is usual on the source.
    """
    found = set(names)
    passed_on = set()
    for name in found:
        device = _OF_DEVICE.fullmatch(name)
        if device is not None and device.group(2) in _FOR_DEVICES:
            passed_on.add((device.group(1), device.group(3)))
    for name in values:
        device = _OF_DEVICE.fullmatch(name) if passed_on else None
        if device is not None and (device.group(1), device.group(3)) in passed_on:
            found.add(name)
    return found


def _same(one: str | None, other: str) -> bool:
    return one is not None and one.split() == other.split()


def for_restore(source: t.Any) -> list[str]:
    """Those that have to be there before CRIU makes sockets (which ports and pings a user may open), as lines ``NAME VALUE``.

    :param source: what :func:`take` returned.
    """
    lines = []
    for name in sorted((source or {}).get("set", ()), key=_order):
        value = source["values"][name].replace("\t", " ")
        device = _OF_DEVICE.fullmatch(name)
        # There is no device yet, and no namespace but the network's is entered for them. Names go into paths, values into lines.
        if (device is None or device.group(2) in _NO_DEVICES) and _is_safe(name) and value.isprintable():
            lines.append(f"{name} {value}")
    return lines


def _is_safe(name: str) -> bool:
    return bool(_SAFE_NAME.fullmatch(name)) and ".." not in name.split("/")


def _order(name: str) -> tuple[int, str]:
    return next((number for number, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST)), name


def renamed(source: t.Any, names: t.Mapping[str, str]) -> t.Any:
    """The same for network devices that are called otherwise; without those that are not there.

    :param source: what :func:`take` returned.
    :param names: what devices are called on the copy, by their names on the source; empty for one that is not there. Of others
        the network's own topic knows nothing: the user does not heed them, or the kernel makes them by itself, here or there.
    """

    def new_name(name: str) -> str:
        device = _OF_DEVICE.fullmatch(name) if name.startswith(_OF_DEVICES) else None
        if device is None or device.group(2) in _NO_DEVICES:
            return name
        new = names.get(device.group(2))
        return f"{device.group(1)}{new}{device.group(3)}" if new else ""

    values = {new_name(name): value for name, value in source["values"].items()}
    return {
        "values": {name: value for name, value in values.items() if name},
        "set": sorted(filter(None, map(new_name, source["set"]))),
    }


def carry(side: Side, source: t.Any) -> None:
    """Write what differs."""
    kinds, values = side.namespaces(), source["values"]
    usual: Values = side.ahead.get(NAME) or {}
    names = _with_devices({*source["set"], *_unlike(values, usual)}, values)
    wanted = sorted((name for name in names if kind_of(name) in kinds and _is_known(name)), key=_order)

    def write() -> Values | None:
        found, written = {}, False
        for name in wanted:
            now = _read(name)
            # A kernel that does not have the setting cannot take it.
            if now is not None:
                found[name] = now
                if not _same(now, values[name]):
                    _write(name, values[name])
                    written = True
        side.sysctls_written |= written
        # One that is written may change others.
        return None if written else found

    side.notes[NAME] = namespaces.inside(side.init, kinds, write)


def _is_known(name: str) -> bool:
    """Whether a name that was sent is that of a sysctl of a namespace: it is written by root."""
    return kind_of(name) != "net" or _is_safe(name)


def _write(name: str, value: str) -> None:
    # What cannot be written, because it is the kernel's own or belongs to the whole host, shows in the comparison if it matters.
    with (
        contextlib.suppress(OSError),
        open(f"{_ROOT}/{name}", "w", encoding="utf-8", errors="surrogateescape") as handle,
    ):
        handle.write(value + "\n")


def compare(side: Side, source: t.Any) -> list[str]:
    """The values that were set for this container and that the copy has not."""
    kinds = side.namespaces()
    # What is not the copy's own (a network that is not closed) is not its to have.
    names = [name for name in source["set"] if kind_of(name) in kinds]
    known = [name for name in names if _is_known(name)]
    strange = [f"the sysctl {name!r} cannot be set" for name in names if not _is_known(name)]
    copy = side.notes.get(NAME)
    if copy is None:
        copy = namespaces.inside(side.init, kinds, lambda: _values(known))
    return strange + differences(known, source["values"], copy)


def differences(names: t.Iterable[str], source: Values, copy: Values) -> list[str]:
    """The names of the settings that differ. Their values are left out, because keys are among them.

    :param names: what is compared.
    """
    wrong = [name for name in names if not _same(_effective(name, copy.get(name)), source[name])]
    return [f"the sysctl {name.replace('/', '.')} is another one" for name in wrong]


def _effective(name: str, value: str | None) -> str | None:
    """What a setting amounts to on a kernel that may not have it.

    :param value: what is set; None where the kernel does not have the setting.
    """
    return "1" if value is None and _IPV6_OFF.fullmatch(name) else value
