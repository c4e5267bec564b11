# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a network namespace holds: links, addresses, routes, rules, neighbours, next hops.

Read by netlink (``_network/netlink.py``) in the namespace; what the kernel keeps up by itself (neighbours that it has found,
times, routes that were learned) is left out. Plain data as far as it goes: a :class:`State` travels between the hosts.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import typing as t

from . import netlink as netlink_module
from .netlink import Message, Netlink

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h, linux/neighbour.h, linux/nexthop.h
GET_LINK, GET_ADDRESS, GET_ROUTE, GET_NEIGHBOUR, GET_RULE, GET_QDISC, GET_NEXTHOP = 18, 22, 26, 30, 34, 38, 106
LINK_HEAD = struct.Struct("=BxHiII")
ADDRESS_HEAD = struct.Struct("=BBBBI")
ROUTE_HEAD = struct.Struct("=BBBBBBBBI")
RULE_HEAD = struct.Struct("=BBBBBBBBI")
NEIGHBOUR_HEAD = struct.Struct("=BBHiHBB")
QDISC_HEAD = struct.Struct("=BBHiIII")
NEXTHOP_HEAD = struct.Struct("=BBBBI")
NEXTHOP_OF_ROUTE = struct.Struct("=HBBi")

IFLA_ADDRESS, IFLA_NAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_TXQLEN, IFLA_INFO, IFLA_ALIAS, IFLA_GROUP, IFLA_NETNSID, IFLA_PROPERTIES, IFLA_ALTNAME = 13, 18, 20, 27, 37, 52, 53
UP, NOARP, PROMISC, ALLMULTI, MULTICAST = 0x1, 0x80, 0x100, 0x200, 0x1000
#: flags of a link that are somebody's setting
SETTINGS = UP | NOARP | PROMISC | ALLMULTI | MULTICAST

IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO = 1, 2, 3, 4, 6, 8, 11
NODAD = 0x02
# Homeaddress, managed temporary addresses, no prefix route, automatic joining of multicast groups: what a request may say.
_ADDRESS_SETTINGS = NODAD | 0x10 | 0x100 | 0x200 | 0x400
_TEMPORARY, _PERMANENT, _STABLE_PRIVACY = 0x01, 0x80, 0x800
_FROM_ADVERTISEMENT, _LINK_LOCAL = 2, 3

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH = 1, 2, 4, 5, 6, 7, 9
RTA_CACHEINFO, RTA_TABLE, RTA_EXPIRES, RTA_NH_ID = 12, 15, 23, 30
MAIN, LOCAL, DEFAULT = 254, 255, 253
REDIRECT, KERNEL, ADVERTISED = 1, 2, 9
UNICAST = 1
_CLONED, ONLINK = 0x200, 0x4

FRA_DST, FRA_SRC, FRA_IIF, FRA_PRIORITY, FRA_TABLE, FRA_OIF = 1, 2, 3, 6, 15, 17
_FRA_PAD, _RULE_INVERT = 18, 0x2

NDA_DST, NDA_LLADDR, _NDA_CACHEINFO, _NDA_PROBES = 1, 2, 3, 4
_NUD_PERMANENT, PROXY = 0x80, 0x08

NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6

TCA_KIND = 1

# Devices that the kernel makes in every namespace once a module for tunnels is loaded.
_FALLBACK = frozenset(
    ("tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6erspan0")
)
# What CRIU needs until the engine has made its own, see livemigrate-network.
_STAND_IN = "livemigrate0"


class Link(t.NamedTuple):
    """A network device."""

    number: int
    name: str
    kind: str
    """As ``ip -details link`` calls it; empty for the loopback and for hardware."""
    mac: str
    mtu: int
    txqlen: int
    flags: int
    alias: str
    group: int
    altnames: tuple[str, ...]
    peer: int
    """The number of the device that it hangs on in another namespace; 0 where there is none."""
    master: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is the namespace's own."""
        return self.name == "lo"


class State(t.NamedTuple):
    """What a network namespace holds."""

    links: tuple[Link, ...]
    addresses: tuple[Message, ...]
    routes: tuple[Message, ...]
    rules: tuple[Message, ...]
    neighbours: tuple[Message, ...]
    nexthops: tuple[Message, ...]
    shaped: tuple[str, ...]
    """Devices with a queueing discipline that somebody has chosen, as ``DEVICE (KIND)``."""

    def as_data(self) -> dict[str, t.Any]:
        """As plain data."""
        messages = {name: [one.as_data() for one in getattr(self, name)] for name in _MESSAGES}
        return {"links": [list(link) for link in self.links], "shaped": list(self.shaped), **messages}

    @classmethod
    def parse(cls, data: t.Mapping[str, t.Any]) -> State:
        """Back from plain data."""
        links = tuple(Link(*one)._replace(altnames=tuple(one[Link._fields.index("altnames")])) for one in data["links"])
        messages = {name: tuple(Message.parse(one) for one in data[name]) for name in _MESSAGES}
        return cls(links=links, shaped=tuple(data["shaped"]), **messages)

    def link(self, index: int) -> Link | None:
        """The device of a number."""
        return next((one for one in self.links if one.number == index), None)


_MESSAGES = ("addresses", "routes", "rules", "neighbours", "nexthops")


def read() -> State:
    """All of the namespace that the calling thread is in.

    :raises OSError: where the kernel does not tell it.
    """
    with Netlink() as netlink:
        links = tuple(
            link
            for link in map(_link, netlink.dump(GET_LINK, LINK_HEAD.pack(0, 0, 0, 0, 0)))
            if link.name != _STAND_IN and not (link.name in _FALLBACK and not link.flags & UP)
        )
        macs = {link.number: link.mac for link in links}
        addresses, routes, rules, neighbours = [], [], [], []
        for family in (INET, INET6):
            found = _of_family(netlink, GET_ADDRESS, ADDRESS_HEAD.pack(family, 0, 0, 0, 0))
            addresses += [_address(one) for one in found if _is_set(one, macs)]
            found = _of_family(netlink, GET_ROUTE, ROUTE_HEAD.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            routes += [_route(one) for one in found if _is_chosen(one)]
            found = _of_family(netlink, GET_RULE, RULE_HEAD.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
            rules += [_rule(one) for one in found]
            for flags in (0, PROXY):
                found = _of_family(netlink, GET_NEIGHBOUR, NEIGHBOUR_HEAD.pack(family, 0, 0, 0, 0, flags, 0))
                neighbours += [_neighbour(one) for one in found if _is_permanent(one)]
        nexthops: list[Message] = []
        with contextlib.suppress(OSError):
            # Linux 5.3.
            nexthops = [_nexthop(one) for one in netlink.dump(GET_NEXTHOP, NEXTHOP_HEAD.pack(0, 0, 0, 0, 0))]
        shaped = _shaped(netlink.dump(GET_QDISC, QDISC_HEAD.pack(0, 0, 0, 0, 0, 0, 0)), links)
    return State(
        links, tuple(addresses), tuple(routes), tuple(rules), tuple(neighbours), tuple(nexthops), tuple(shaped)
    )


def _of_family(netlink: Netlink, kind: int, head: bytes) -> list[Message]:
    """All objects of a kind and of the address family that the request begins with.

    Where a kernel does not have the family (``ipv6.disable=1``) it refuses that for some kinds, and tells of all for others.
    """
    try:
        return [one for one in netlink.dump(kind, head) if one.head[0] == head[0]]
    except OSError as exc:
        if exc.errno == errno.EAFNOSUPPORT:
            return []
        raise


def _link(message: Message) -> Link:
    _family, _type, index, flags, _change = LINK_HEAD.unpack(message.head)
    info = dict(netlink_module.attributes(message.get(IFLA_INFO) or b""))
    altnames = netlink_module.attributes(message.get(IFLA_PROPERTIES) or b"")
    return Link(
        number=index,
        name=message.text(IFLA_NAME),
        kind=info.get(1, b"").rstrip(b"\0").decode("ascii", "replace"),
        mac=(message.get(IFLA_ADDRESS) or b"").hex(":"),
        mtu=message.number(IFLA_MTU) or 0,
        txqlen=message.number(IFLA_TXQLEN) or 0,
        flags=flags & SETTINGS,
        alias=message.text(IFLA_ALIAS),
        group=message.number(IFLA_GROUP) or 0,
        altnames=tuple(sorted(value.rstrip(b"\0").decode("utf-8", "replace") for _kind, value in altnames)),
        peer=(message.number(IFLA_LINK) or 0) if message.get(IFLA_NETNSID) is not None else 0,
        master=message.number(IFLA_MASTER) or 0,
    )


def _is_set(address: Message, macs: t.Mapping[int, str]) -> bool:
    """Whether somebody has set an address, and not the kernel by itself: out of a MAC address, or of what a router said."""
    family, length, _flags, _scope, index = ADDRESS_HEAD.unpack(address.head)
    if index not in macs:
        return False
    if family == INET:
        return True
    flags = address.number(IFA_FLAGS) or 0
    origin = (address.get(IFA_PROTO) or b"\0")[0]
    if origin in (_FROM_ADVERTISEMENT, _LINK_LOCAL) or flags & (_TEMPORARY | _STABLE_PRIVACY):
        return False
    its_own = (address.get(IFA_ADDRESS) or b"")[8:] == interface_identifier(macs[index])
    local = ipaddress.ip_address(address.get(IFA_ADDRESS) or bytes(16))
    return not (its_own and (local.is_link_local or (length == 64 and not flags & _PERMANENT)))


def interface_identifier(mac: str) -> bytes:
    """The lower half of the IPv6 addresses that the kernel makes out of a MAC address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:] if len(octets) == 6 else b""


def _address(message: Message) -> Message:
    family, length, _flags, scope, index = ADDRESS_HEAD.unpack(message.head)
    flags = (message.number(IFA_FLAGS) or 0) & _ADDRESS_SETTINGS
    kept = message.without(IFA_FLAGS).with_attribute(IFA_FLAGS, struct.pack("=I", flags))
    lasting = kept.get(IFA_CACHEINFO)
    # Times for which it is preferred and valid; all ones for ever. When it was made does not matter.
    if lasting is not None and lasting[:8] == b"\xff" * 8:
        kept = kept.without(IFA_CACHEINFO)
    return kept._replace(head=ADDRESS_HEAD.pack(family, length, 0, scope, index))


def _is_chosen(route: Message) -> bool:
    """Whether a route is somebody's choice. Of the kernel's own only those to a device's network count: they may be deleted."""
    family, length, _src, _tos, _table, protocol, _scope, kind, flags = ROUTE_HEAD.unpack(route.head)
    if protocol in (REDIRECT, ADVERTISED) or flags & _CLONED:
        return False
    if protocol != KERNEL:
        return True
    target = route.get(RTA_DST) or b""
    return (
        kind == UNICAST
        and route.number(RTA_TABLE) == MAIN
        and length > 0
        and not (family == INET6 and target[:1] in (b"\xfe", b"\xff"))
    )


def _route(message: Message) -> Message:
    head = list(ROUTE_HEAD.unpack(message.head))
    head[8] &= ONLINK
    kept = message._replace(head=ROUTE_HEAD.pack(*head))
    if (message.get(RTA_NH_ID)) is not None:
        # The rest repeats what the next hop says.
        kept = kept.without(RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH)
    times = message.get(RTA_CACHEINFO)
    kept = kept.without(RTA_CACHEINFO)
    if head[0] == INET6 and times is not None and len(times) >= 12:
        hundredths = struct.unpack_from("=i", times, 8)[0]
        if hundredths > 0:
            kept = kept.with_attribute(RTA_EXPIRES, struct.pack("=I", max(1, hundredths // 100)))
    several = kept.get(RTA_MULTIPATH)
    return kept if several is None else kept.with_attribute(RTA_MULTIPATH, _several(several, lambda index: index))


def hops(several: bytes) -> t.Iterator[tuple[int, int, int, tuple[tuple[int, bytes], ...]]]:
    """The next hops of a route that has several: flags, weight, device, attributes."""
    at = 0
    while at + NEXTHOP_OF_ROUTE.size <= len(several):
        length, flags, weight, index = NEXTHOP_OF_ROUTE.unpack_from(several, at)
        if length < NEXTHOP_OF_ROUTE.size:
            return
        yield flags, weight, index, netlink_module.attributes(several[at + NEXTHOP_OF_ROUTE.size : at + length])
        at += (length + 3) & ~3


def _several(
    several: bytes,
    device: t.Callable[[int], int],
    attribute: t.Callable[[int, bytes], bytes] = lambda _number, value: value,
) -> bytes:
    parts = []
    for flags, weight, index, attributes in hops(several):
        body = netlink_module.packed((kind, attribute(kind, value)) for kind, value in attributes)
        size = NEXTHOP_OF_ROUTE.size + len(body)
        parts.append(NEXTHOP_OF_ROUTE.pack(size, flags & ONLINK, weight, device(index)) + body)
    return b"".join(parts)


#: the next hops of a route with other devices and addresses
several = _several


def _rule(message: Message) -> Message:
    head = list(RULE_HEAD.unpack(message.head))
    head[8] &= _RULE_INVERT
    kept = message._replace(head=RULE_HEAD.pack(*head)).without(_FRA_PAD)
    # Left out where it is 0, and then a request would be given another one.
    return kept.with_attribute(FRA_PRIORITY, kept.get(FRA_PRIORITY) or bytes(4))


def _is_permanent(neighbour: Message) -> bool:
    _family, _pad, _pad2, _index, state, flags, _type = NEIGHBOUR_HEAD.unpack(neighbour.head)
    return bool(flags & PROXY) or bool(state & _NUD_PERMANENT)


def _neighbour(message: Message) -> Message:
    return message.without(_NDA_CACHEINFO, _NDA_PROBES)


def _nexthop(message: Message) -> Message:
    head = list(NEXTHOP_HEAD.unpack(message.head))
    # The scope follows from the rest, and no request may name it.
    head[1] = 0
    head[4] &= ONLINK
    return message._replace(head=NEXTHOP_HEAD.pack(*head))


def _shaped(qdiscs: t.Iterable[Message], links: t.Sequence[Link]) -> list[str]:
    names = {link.number: link.name for link in links}
    found = set()
    for one in qdiscs:
        _family, _pad, _pad2, index, handle, _parent, _info = QDISC_HEAD.unpack(one.head)
        # The kernel's own have no handle.
        if handle and index in names:
            found.add(f"{names[index]} ({one.text(TCA_KIND)})")
    return sorted(found)


def host_mtus(indexes: t.Collection[int]) -> dict[int, int]:
    """The MTU of devices of the namespace that the calling thread is in, by their number."""
    found = {}
    for index, name in socket.if_nameindex():
        if index in indexes:
            with (
                contextlib.suppress(OSError, ValueError),
                open(f"/sys/class/net/{name}/mtu", encoding="ascii") as handle,
            ):
                found[index] = int(handle.read())
    return found


def address_of(data: bytes | None) -> str:
    """An address, for a person."""
    if data is not None and len(data) in (4, 16):
        return str(ipaddress.ip_address(data))
    return "default"
