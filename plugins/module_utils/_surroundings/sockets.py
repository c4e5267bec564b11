# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What sockets of a container's processes have and CRIU does not store: options (TCP_DEFER_ACCEPT, IP_RECVERR ...), and whose the
other end of a unix socket is.

Options are read from each socket through a borrowed descriptor, and what differs from a new socket of its kind is set on the held
copy; the table is in ``socket_options.py``. What CRIU stores is left alone, and so is what is no setting but a state
(TCP_QUICKACK, SO_INCOMING_CPU).

Some settings are taken from sysctls of the network when a socket is made, and the copy's sockets are made before it has those
sysctls. They are set on all of its sockets.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import socket
import typing as t

from .._host import namespaces
from .._host.borrowed_descriptor import Lender
from .._host.process_sockets import of_family, of_process, opened, taken
from . import socket_options, socket_peers
from .side import Side
from .socket_options import AT_CREATION, OPTIONS, TCP, UNIX, UNIX_CONNECTED, Value, Values, is_number, kind_of

NAME = "sockets"
OF_PROCESSES = True

#: the rule of the preflight for connections that the kernel encrypts
_ULP, _ULP_RULE = "TCP_ULP", "tcp_ulp"

# Before Linux 5.6 nothing can be borrowed, and a filter of system calls may forbid it.
_NOT_BORROWED = (errno.ENOSYS, errno.EPERM)


class Special(t.NamedTuple):
    """A socket that is not as a new one; a list in JSON."""

    process: str
    """One that holds it, as the container counts it."""
    descriptor: int
    """Its number there."""
    kind: str
    """A key of the kinds."""
    values: Values
    """Those in which it differs."""


def look_ahead(side: Side) -> t.Any:
    """What each option is on a new socket of each kind, in the container's network: some defaults are sysctls of it."""
    return namespaces.inside(side.init, ["net"], socket_options.of_new_ones)


def take(side: Side, ahead: t.Any) -> t.Any:
    """The sockets that are not as new ones, each once; and what new ones take from sysctls, in a network of the container's own.

    Nothing where there are no such sockets, or nothing can be borrowed.
    """
    listeners: list[socket_peers.Noted] = []
    try:
        kinds, special = _look(side, ahead or look_ahead(side), listeners)
    except OSError as exc:
        if exc.errno not in _NOT_BORROWED:
            raise
        return None
    if not kinds:
        return None
    created = {
        kind: {name: value for name, value in values.items() if name in AT_CREATION}
        for kind, values in kinds.items()
        if side.own_network and kind not in UNIX
    }
    return {"created": created, "special": special, "listeners": listeners}


def _look(
    side: Side, fresh: t.Mapping[str, Values], listeners: list[socket_peers.Noted]
) -> tuple[dict[str, Values], list[Special]]:
    """Of which kinds there are sockets, with what a new one has; and the special ones.

    :param listeners: gets the unix sockets that somebody else than root has made listen.
    :raises OSError: where nothing can be borrowed.
    """
    kinds: dict[str, Values] = {}
    special: list[Special] = []
    seen: set[int] = set()
    readings = {kind: socket_options.Reading(kind, values) for kind, values in fresh.items()}
    devices = _devices(side)
    for number, pid in side.processes.items():
        sockets = [(descriptor, inode) for descriptor, inode in of_process(pid) if inode not in seen]
        if not sockets:
            continue
        with Lender(pid) as lender:
            for descriptor, inode in sockets:
                if inode in seen:
                    continue
                seen.add(inode)
                one = taken(lender, descriptor)
                try:
                    kind = kind_of(one)
                    if kind is None or kind not in fresh or (not side.keeps_connections and _will_be_closed(one, kind)):
                        continue
                    kinds[kind] = fresh[kind]
                    if kind in UNIX_CONNECTED:
                        noted = socket_peers.listener(one, number, descriptor)
                        listeners.extend([noted] if noted else [])
                    values = readings[kind].of(one)
                finally:
                    one.close()
                if _ULP_RULE in side.ignored:
                    values.pop(_ULP, None)
                if values:
                    special.append(Special(number, descriptor, kind, socket_options.with_names(values, devices)))
    return kinds, special


def _devices(side: Side) -> t.Callable[[], socket_options.Devices]:
    """The network devices of a side. They are looked up when a socket has one of them, which is rare."""
    return functools.lru_cache(maxsize=1)(
        lambda: dict(namespaces.inside(side.init, ["net"], socket.if_nameindex)),
    )


def _will_be_closed(one: socket.SocketType, kind: str) -> bool:
    """Whether a socket is the end of a connection that leaves the container. There may be thousands of them."""
    if kind not in TCP or socket_options.may_listen(one):
        return False
    try:
        with of_family(one, socket_options.KINDS[kind][0]) as named:
            return _leaves(named.getsockname()[0], named.getpeername()[0])
    except OSError:
        # It is over, or only just begun.
        return True


def _leaves(here: str, there: str) -> bool:
    """Whether a connection between two addresses leaves the container. Between two ends within it it goes on."""
    return here != there and not ipaddress.ip_address(there.partition("%")[0]).is_loopback


def renamed(source: t.Any, names: t.Mapping[str, str]) -> t.Any:
    """The same for network devices that are called otherwise.

    :param source: what :func:`take` returned.
    :param names: what devices are called on the copy, by their names on the source; empty for one that is not there.
    """
    try:
        special = [one._replace(values=socket_options.renamed(one.values, names)) for one in _checked(source)[1]]
    except ValueError:
        # It is reported when it is carried.
        return source
    return {**source, "special": special}


def carry(side: Side, source: t.Any) -> None:
    """Set what differs from the source on the sockets of a held copy. One that runs may have changed them itself.

    :raises ValueError: for what no source can have found: numbers that are none, options that are not of the table.
    """
    created, special = _checked(source)
    socket_peers.checked(source)
    if side.group.frozen:
        if special or created:
            _carry(side, created if side.own_network else {}, special)
        socket_peers.carry(side, source)


def _carry(side: Side, created: t.Mapping[str, Values], special: t.Iterable[Special]) -> None:
    sockets_of = {number: of_process(pid) for number, pid in side.processes.items()}
    inodes = {(number, descriptor): inode for number, sockets in sockets_of.items() for descriptor, inode in sockets}
    wanted = {inodes.get((one.process, one.descriptor)): one for one in special}
    seen: set[int] = set()
    setting = _Setting(_devices(side))
    for number, sockets in sockets_of.items():
        new = {inode: descriptor for descriptor, inode in sockets if inode not in seen and (created or inode in wanted)}
        seen.update(new)
        if not new:
            continue
        # What cannot be borrowed or set shows in the comparison.
        with contextlib.suppress(OSError), Lender(side.processes[number]) as lender:
            for inode, descriptor in new.items():
                with contextlib.suppress(OSError), lender.borrowed(descriptor) as ours, opened(ours) as one:
                    kind = kind_of(one)
                    if kind is not None:
                        sent = wanted.get(inode)
                        values = sent.values if sent and sent.kind == kind else {}
                        setting.of(one, kind, {**created.get(kind, {}), **values})


class _Setting:
    """Sets options, and remembers what cannot be had here."""

    def __init__(self, devices: t.Callable[[], socket_options.Devices]) -> None:
        self._devices = devices
        # Congestion controls that this host does not have. Each time the kernel would start modprobe(8) for one.
        self._missing: set[Value] = set()

    def of(self, one: socket.SocketType, kind: str, values: Values) -> None:
        """Give a socket what it has otherwise."""
        for name, value in socket_options.with_numbers(values, self._devices).items():
            try:
                if OPTIONS[name].only_compared or value in self._missing:
                    continue
                if socket_options.get(one, name, kind) != value:
                    socket_options.put(one, name, value)
            except FileNotFoundError:
                self._missing.add(value)
            except OSError:
                # It shows in the comparison.
                continue


def _checked(source: t.Any) -> tuple[dict[str, Values], list[Special]]:
    """What has come from the source, which is another host.

    :raises ValueError: for what no source can have found.
    """
    try:
        created = {str(kind): socket_options.checked(kind, values) for kind, values in source["created"].items()}
        special = [
            Special(process, descriptor, kind, socket_options.checked(kind, values))
            for process, descriptor, kind, values in source["special"]
        ]
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"these are no options of sockets: {exc!r}") from exc
    for one in special:
        if not isinstance(one.process, str) or not is_number(one.descriptor):
            raise ValueError(f"{one.process!r}, {one.descriptor!r} is no descriptor of a process")
    return created, special


def compare(side: Side, source: t.Any) -> list[str]:
    """The options that were special on the source and are not the same on the copy, and whose unix sockets are not the same.

    On a copy that runs already nothing is set, so all differences are reported, but not those of sockets that its programs have
    closed meanwhile.
    """
    found: list[str] = []
    frozen = side.group.frozen
    devices = _devices(side)
    for one in _checked(source)[1]:
        pid = side.processes.get(one.process)
        where = f"of descriptor {one.descriptor} of process {one.process}"
        try:
            # A process that is missing, other topics tell.
            now = _now(pid, one, devices) if pid is not None else one.values
        except OSError as exc:
            if frozen or exc.errno in _NOT_BORROWED:
                found.append(f"{', '.join(one.values)} {where} cannot be read ({exc.strerror})")
            continue
        if now is None:
            if frozen:
                found.append(
                    f"descriptor {one.descriptor} of process {one.process} is no socket of the kind {one.kind}"
                )
            continue
        found.extend(
            f"{name} {where} was {value} and is {_shown(now.get(name))}"
            for name, value in one.values.items()
            if now.get(name) != value and not socket_options.is_elsewhere(name, now.get(name))
        )
    return found + socket_peers.compare(side, source)


def _shown(value: Value | None) -> str:
    if value is None:
        return "not there"
    return str(value) if value != "" else "none"


def _now(pid: int, special: Special, devices: t.Callable[[], socket_options.Devices]) -> Values | None:
    """The same options of a socket of the copy; None where that is another kind of thing.

    :raises OSError: where it cannot be borrowed.
    """
    with Lender(pid) as lender, lender.borrowed(special.descriptor) as ours, opened(ours) as one:
        found: Values = {}
        try:
            if kind_of(one) != special.kind:
                return None
        except OSError:
            # No socket.
            return None
        for name in special.values:
            with contextlib.suppress(OSError):
                found[name] = socket_options.get(one, name, special.kind)
        return socket_options.with_names(found, devices)
