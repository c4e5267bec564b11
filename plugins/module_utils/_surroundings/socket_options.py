# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The table of the options of sockets that CRIU does not store, and how one of them is read and set.

It was found by trying. On sockets of each kind every option with a number below 110 was set to another value, one option on one
socket. CRIU 4.2.1 dumped and restored the program on Linux 6.18, and the options were read again. The table has what was lost but
for what docs/decisions/0064 names as left out. CRIU stores the others (sk-opts.proto, and the options of TCP and IP in
sk-inet.proto).
"""

from __future__ import annotations

import re
import socket
import struct
import typing as t

Value = t.Union[int, str]
Values = dict[str, Value]
"""Values of options, by their names."""

Devices = t.Mapping[int, str]
"""The network devices of a network, by their numbers there."""

#: kinds of sockets: how a new one is made
KINDS: dict[str, tuple[int, int, int]] = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    "raw6": (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "unix_packets": (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
    "unix_datagrams": (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
}
# One kind for all protocols of datagrams, and for all that are raw: the options of the table are the same.
_KIND_OF = {(family, kind): name for name, (family, kind, _protocol) in KINDS.items()}

TCP = frozenset({"tcp", "tcp6"})
#: kinds of unix sockets that have a connection, or wait for one
UNIX_CONNECTED = frozenset({"unix", "unix_packets"})
UNIX = UNIX_CONNECTED | {"unix_datagrams"}
_INET = frozenset(KINDS) - UNIX
# UDP and the like, of both families, and raw ones.
_UDP, _DATAGRAMS = frozenset({"udp", "udp6"}), _INET - TCP
_SIX = frozenset({"tcp6", "udp6", "raw6"})
# Programs set options of IPv4 on sockets of IPv6 as well; raw ones have none.
_FOUR = _INET - {"raw6"}
_FOUR_DATAGRAMS, _SIX_DATAGRAMS = _FOUR - TCP, _SIX - TCP
_STAMPED = _INET | {"unix_datagrams"}

_SO, _IP, _IPV6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6
_TCP, _OF_UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP

#: forms of values: an int of 32 bits, one of 64 bits without a sign, a name, an address of IPv4; a network device by its number,
#: in the order of this machine or of the network, which is sent by its name
INT, LONG, NAME, ADDRESS, DEVICE = "int", "long", "name", "address", "device"
DEVICE_IN_NETWORK_ORDER = "device in network order"


class Option(t.NamedTuple):
    """A row of the table."""

    level: int
    number: int
    kinds: frozenset[str]
    """Those that have it, and on which it does something."""
    form: str = INT
    waiting_only: bool = False
    """Of a TCP socket that listens or may come to it. On a connection it has no effect, or cannot be set."""
    listening_only: bool = False
    """Of a TCP socket that listens. On another one what is read may be of a connection that is over."""
    only_compared: bool = False
    """It cannot be made from outside."""


# Level and number are those of asm-generic/socket.h, tcp.h, udp.h, in.h and in6.h, the same on all architectures on which this
# runs. What is read last is set last: SO_TIMESTAMPING changes which form the other time stamps have.
OPTIONS: dict[str, Option] = {
    "SO_TIMESTAMPING": Option(_SO, 37, _STAMPED),
    "SO_TIMESTAMPING_NEW": Option(_SO, 65, _STAMPED),
    "SO_TIMESTAMP": Option(_SO, 29, _STAMPED),
    "SO_TIMESTAMPNS": Option(_SO, 35, _STAMPED),
    "SO_TIMESTAMP_NEW": Option(_SO, 63, _STAMPED),
    "SO_TIMESTAMPNS_NEW": Option(_SO, 64, _STAMPED),
    "SO_RXQ_OVFL": Option(_SO, 40, _DATAGRAMS),
    "SO_PEEK_OFF": Option(_SO, 42, TCP | _UDP | UNIX),
    "SO_SELECT_ERR_QUEUE": Option(_SO, 45, _DATAGRAMS),
    "SO_BUSY_POLL": Option(_SO, 46, _INET),
    "SO_MAX_PACING_RATE": Option(_SO, 47, _INET, LONG),
    "SO_ZEROCOPY": Option(_SO, 60, TCP | _UDP),
    "SO_PREFER_BUSY_POLL": Option(_SO, 69, _INET),
    "SO_TXREHASH": Option(_SO, 74, TCP),
    "SO_RCVMARK": Option(_SO, 75, _DATAGRAMS),
    "SO_PASSPIDFD": Option(_SO, 76, UNIX),
    "SO_RCVPRIORITY": Option(_SO, 82, _DATAGRAMS),
    "SO_PASSRIGHTS": Option(_SO, 83, UNIX),
    "TCP_MAXSEG": Option(_TCP, 2, TCP, listening_only=True),
    "TCP_SYNCNT": Option(_TCP, 7, TCP),
    "TCP_LINGER2": Option(_TCP, 8, TCP),
    "TCP_DEFER_ACCEPT": Option(_TCP, 9, TCP, waiting_only=True),
    # The kernel changes that of a connection as it goes.
    "TCP_WINDOW_CLAMP": Option(_TCP, 10, TCP, listening_only=True),
    "TCP_CONGESTION": Option(_TCP, 13, TCP, NAME),
    "TCP_THIN_LINEAR_TIMEOUTS": Option(_TCP, 16, TCP),
    "TCP_USER_TIMEOUT": Option(_TCP, 18, TCP),
    "TCP_FASTOPEN": Option(_TCP, 23, TCP, waiting_only=True),
    "TCP_NOTSENT_LOWAT": Option(_TCP, 25, TCP),
    "TCP_SAVE_SYN": Option(_TCP, 27, TCP, waiting_only=True),
    "TCP_FASTOPEN_CONNECT": Option(_TCP, 30, TCP, waiting_only=True),
    # What encrypts in the kernel (kTLS); its keys cannot be read.
    "TCP_ULP": Option(_TCP, 31, TCP, NAME, only_compared=True),
    "TCP_FASTOPEN_NO_COOKIE": Option(_TCP, 34, TCP, waiting_only=True),
    "TCP_INQ": Option(_TCP, 36, TCP),
    "TCP_TX_DELAY": Option(_TCP, 37, TCP),
    "TCP_RTO_MAX_MS": Option(_TCP, 44, TCP),
    "TCP_RTO_MIN_US": Option(_TCP, 45, TCP),
    "TCP_DELACK_MAX_US": Option(_TCP, 46, TCP),
    "UDP_ENCAP": Option(_OF_UDP, 100, _UDP),
    "UDP_NO_CHECK6_TX": Option(_OF_UDP, 101, _UDP),
    "UDP_NO_CHECK6_RX": Option(_OF_UDP, 102, _UDP),
    "UDP_SEGMENT": Option(_OF_UDP, 103, _UDP),
    "UDP_GRO": Option(_OF_UDP, 104, _UDP),
    # Of these three CRIU keeps those of sockets of IPv4.
    "IP_TOS": Option(_IP, 1, frozenset({"tcp6", "udp6"})),
    "IP_TTL": Option(_IP, 2, frozenset({"tcp6", "udp6"})),
    "IP_PKTINFO": Option(_IP, 8, frozenset({"udp6"})),
    "IP_ROUTER_ALERT": Option(_IP, 5, frozenset({"raw"})),
    "IP_RECVOPTS": Option(_IP, 6, _FOUR_DATAGRAMS),
    "IP_RETOPTS": Option(_IP, 7, _FOUR_DATAGRAMS),
    "IP_MTU_DISCOVER": Option(_IP, 10, _FOUR),
    "IP_RECVERR": Option(_IP, 11, _FOUR),
    "IP_RECVTTL": Option(_IP, 12, _FOUR),
    "IP_RECVTOS": Option(_IP, 13, _FOUR),
    "IP_PASSSEC": Option(_IP, 18, _FOUR_DATAGRAMS),
    "IP_TRANSPARENT": Option(_IP, 19, _FOUR),
    "IP_RECVORIGDSTADDR": Option(_IP, 20, _FOUR_DATAGRAMS),
    "IP_MINTTL": Option(_IP, 21, _FOUR),
    "IP_CHECKSUM": Option(_IP, 23, _FOUR_DATAGRAMS),
    "IP_BIND_ADDRESS_NO_PORT": Option(_IP, 24, _FOUR),
    "IP_RECVFRAGSIZE": Option(_IP, 25, _FOUR_DATAGRAMS),
    "IP_RECVERR_RFC4884": Option(_IP, 26, _FOUR_DATAGRAMS),
    # By the address of the device. Where a program has given its number alone, no address can be read.
    "IP_MULTICAST_IF": Option(_IP, 32, _FOUR_DATAGRAMS, ADDRESS),
    # An accepted connection has the TTL of its client there.
    "IP_MULTICAST_TTL": Option(_IP, 33, _FOUR_DATAGRAMS),
    "IP_MULTICAST_LOOP": Option(_IP, 34, _FOUR_DATAGRAMS),
    "IP_MULTICAST_ALL": Option(_IP, 49, _FOUR_DATAGRAMS),
    "IP_UNICAST_IF": Option(_IP, 50, _FOUR_DATAGRAMS, DEVICE_IN_NETWORK_ORDER),
    "IP_LOCAL_PORT_RANGE": Option(_IP, 51, _FOUR, waiting_only=True),
    "IPV6_2292PKTINFO": Option(_IPV6, 2, _SIX_DATAGRAMS),
    "IPV6_2292HOPOPTS": Option(_IPV6, 3, _SIX_DATAGRAMS),
    "IPV6_2292DSTOPTS": Option(_IPV6, 4, _SIX_DATAGRAMS),
    "IPV6_2292RTHDR": Option(_IPV6, 5, _SIX_DATAGRAMS),
    "IPV6_2292HOPLIMIT": Option(_IPV6, 8, _SIX_DATAGRAMS),
    "IPV6_FLOWINFO": Option(_IPV6, 11, _SIX_DATAGRAMS),
    "IPV6_UNICAST_HOPS": Option(_IPV6, 16, _SIX),
    "IPV6_MULTICAST_IF": Option(_IPV6, 17, _SIX_DATAGRAMS, DEVICE),
    "IPV6_MULTICAST_HOPS": Option(_IPV6, 18, _SIX_DATAGRAMS),
    "IPV6_MULTICAST_LOOP": Option(_IPV6, 19, _SIX_DATAGRAMS),
    "IPV6_MTU_DISCOVER": Option(_IPV6, 23, _SIX),
    "IPV6_RECVERR": Option(_IPV6, 25, _SIX),
    "IPV6_MULTICAST_ALL": Option(_IPV6, 29, _SIX_DATAGRAMS),
    "IPV6_ROUTER_ALERT_ISOLATE": Option(_IPV6, 30, frozenset({"raw6"})),
    "IPV6_RECVERR_RFC4884": Option(_IPV6, 31, _SIX_DATAGRAMS),
    "IPV6_FLOWINFO_SEND": Option(_IPV6, 33, _SIX),
    "IPV6_RECVPKTINFO": Option(_IPV6, 49, _SIX),
    "IPV6_RECVHOPLIMIT": Option(_IPV6, 51, _SIX),
    "IPV6_RECVHOPOPTS": Option(_IPV6, 53, _SIX_DATAGRAMS),
    "IPV6_RECVRTHDR": Option(_IPV6, 56, _SIX_DATAGRAMS),
    "IPV6_RECVDSTOPTS": Option(_IPV6, 58, _SIX_DATAGRAMS),
    "IPV6_RECVPATHMTU": Option(_IPV6, 60, _SIX_DATAGRAMS),
    "IPV6_DONTFRAG": Option(_IPV6, 62, _SIX_DATAGRAMS),
    "IPV6_RECVTCLASS": Option(_IPV6, 66, _SIX),
    "IPV6_TCLASS": Option(_IPV6, 67, _SIX),
    "IPV6_AUTOFLOWLABEL": Option(_IPV6, 70, _SIX),
    "IPV6_ADDR_PREFERENCES": Option(_IPV6, 72, _SIX),
    "IPV6_MINHOPCOUNT": Option(_IPV6, 73, _SIX),
    "IPV6_RECVORIGDSTADDR": Option(_IPV6, 74, _SIX_DATAGRAMS),
    # The others have it as IP_TRANSPARENT.
    "IPV6_TRANSPARENT": Option(_IPV6, 75, frozenset({"raw6"})),
    "IPV6_UNICAST_IF": Option(_IPV6, 76, _SIX_DATAGRAMS, DEVICE_IN_NETWORK_ORDER),
    "IPV6_RECVFRAGSIZE": Option(_IPV6, 77, _SIX_DATAGRAMS),
}
#: What a socket takes from sysctls of its network when it is made: tcp_congestion_control, ip_no_pmtu_disc, txrehash,
#: tcp_rto_max_ms, tcp_rto_min_us.
AT_CREATION = ("TCP_CONGESTION", "IP_MTU_DISCOVER", "SO_TXREHASH", "TCP_RTO_MAX_MS", "TCP_RTO_MIN_US")

# What the kernel takes as the name of a congestion control (TCP_CA_NAME_MAX), and as that of a device (IFNAMSIZ).
_NAME_BYTES = 16
_PROGRAM_NAME = re.compile(r"[a-z0-9_-]{1,15}")
_DEVICE_NAME = re.compile(r"[^/\s\0]{1,15}")
_ADDRESS = re.compile(r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}", re.ASCII)
_UNSIGNED = struct.Struct("@Q")
# Of those that are read as bytes.
_BYTES = {NAME: _NAME_BYTES, LONG: _UNSIGNED.size, ADDRESS: 4}
# The kernel notes a connection's ECN in the two lower bits.
_ECN = 3
_WITH_ECN = ("IPV6_TCLASS", "IP_TOS")

# Of tcp_states.h, as TCP_INFO begins with it.
_TCP_INFO, _CLOSED, _LISTENING = 11, 7, 10
_NO_ADDRESS = "0.0.0.0"  # noqa: S104
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def kind_of(one: socket.SocketType) -> str | None:
    """Which kind a socket is of; None for those of other families, and of protocols that CRIU does not know.

    :raises OSError: for what is no socket.
    """
    family = one.getsockopt(_SO, _SO_DOMAIN)
    if family not in _FAMILIES:
        return None
    kind = _KIND_OF.get((family, one.getsockopt(_SO, socket.SO_TYPE)))
    if kind in TCP and one.getsockopt(_SO, _SO_PROTOCOL) != socket.IPPROTO_TCP:
        return None
    return kind


def may_listen(one: socket.SocketType) -> bool:
    """Whether a TCP socket listens, or has no connection yet."""
    return _state(one) in (_CLOSED, _LISTENING)


def _state(one: socket.SocketType) -> int:
    return one.getsockopt(_TCP, _TCP_INFO, 1)[0]


def get(one: socket.SocketType, name: str, kind: str) -> Value:
    """An option; that of a device as its number, whatever the order.

    :raises OSError: for an option that the socket does not have.
    """
    option = OPTIONS[name]
    if option.form in _BYTES:
        return _decoded(name, one.getsockopt(option.level, option.number, _BYTES[option.form]))
    value = one.getsockopt(option.level, option.number)
    if option.form == DEVICE_IN_NETWORK_ORDER:
        return socket.ntohl(value & 0xFFFFFFFF)
    return value & _mask(name, kind)


def _decoded(name: str, data: bytes) -> Value:
    form = OPTIONS[name].form
    if form == NAME:
        return data.partition(b"\0")[0].decode("ascii", "replace")
    if form == ADDRESS:
        return socket.inet_ntoa(data)
    return int(_UNSIGNED.unpack(data)[0])


def _mask(name: str, kind: str) -> int:
    return ~_ECN if kind in TCP and name in _WITH_ECN else -1


def put(one: socket.SocketType, name: str, value: Value) -> None:
    """Set an option to what :func:`get` has returned.

    :raises OSError: what the kernel says.
    """
    option = OPTIONS[name]
    if isinstance(value, str):
        data = socket.inet_aton(value) if option.form == ADDRESS else value.encode("ascii")
        one.setsockopt(option.level, option.number, data)
    elif option.form == LONG:
        one.setsockopt(option.level, option.number, _UNSIGNED.pack(value))
    elif option.form == DEVICE_IN_NETWORK_ORDER:
        one.setsockopt(option.level, option.number, struct.pack("!I", value))
    else:
        one.setsockopt(option.level, option.number, value)


def with_names(values: Values, devices: t.Callable[[], Devices]) -> Values:
    """The same with the names of devices in place of their numbers; empty for none, and for one that is gone."""
    return {name: devices().get(int(value), "") if _is_device(name) else value for name, value in values.items()}


def with_numbers(values: Values, devices: t.Callable[[], Devices]) -> Values:
    """The opposite; without those that are not there."""
    found: Values = {}
    for name, value in values.items():
        if not _is_device(name):
            found[name] = value
        elif value == "":
            found[name] = 0
        else:
            number = next((number for number, device in devices().items() if device == value), None)
            if number is not None:
                found[name] = number
    return found


def _is_device(name: str) -> bool:
    return OPTIONS[name].form in (DEVICE, DEVICE_IN_NETWORK_ORDER)


def renamed(values: Values, names: t.Mapping[str, str]) -> Values:
    """The same for network devices that are called otherwise."""
    return {
        name: names.get(value) or value if isinstance(value, str) and _is_device(name) else value
        for name, value in values.items()
    }


def of_new_ones() -> dict[str, Values]:
    """What each option is on a new socket of each kind, in the network of the calling thread."""
    found: dict[str, Values] = {}
    for kind, how in KINDS.items():
        # A host may have no IPv6.
        try:
            one = socket.socket(*how)
        except OSError:
            continue
        with one:
            found[kind] = {}
            for name, option in OPTIONS.items():
                if kind in option.kinds:
                    # Options that a kernel does not have are left out.
                    try:
                        found[kind][name] = get(one, name, kind)
                    except OSError:
                        continue
    return found


class Reading:
    """Reads the options of sockets of one kind: there may be hundreds, and the container stands still.

    :param kind: of the sockets.
    :param fresh: what a new one has.
    """

    def __init__(self, kind: str, fresh: Values) -> None:
        self._kind = kind
        self._fresh = fresh
        numbers: list[tuple[str, int, int, int, int]] = []
        self._texts: list[tuple[str, int, int, int, set[bytes]]] = []
        for name, usual in fresh.items():
            option = OPTIONS[name]
            if option.form in _BYTES:
                self._texts.append((name, option.level, option.number, _BYTES[option.form], set()))
            else:
                # No device is 0 in any order.
                numbers.append((name, option.level, option.number, int(usual), _mask(name, kind)))
        self._all = tuple(numbers)
        self._of_closed = tuple(row for row in numbers if not OPTIONS[row[0]].listening_only)
        self._of_connections = tuple(row for row in self._of_closed if not OPTIONS[row[0]].waiting_only)

    def of(self, one: socket.SocketType) -> Values:
        """The options in which a socket differs from a new one, in the order of the table."""
        found: Values = {}
        ask = one.getsockopt
        state = _state(one) if self._kind in TCP else _LISTENING
        rows = self._all if state == _LISTENING else self._of_closed if state == _CLOSED else self._of_connections
        for name, level, number, usual, mask in rows:
            # Of a connection that is over not everything can be read. (contextlib.suppress takes longer than the call.)
            try:
                if ask(level, number) & mask != usual:
                    found[name] = get(one, name, self._kind)
            except OSError:
                continue
        for name, level, number, size, known in self._texts:
            try:
                data = ask(level, number, size)
            except OSError:
                continue
            if data not in known:
                value = _decoded(name, data)
                if value == self._fresh[name]:
                    known.add(data)
                else:
                    found[name] = value
        return {name: found[name] for name in OPTIONS if name in found} if len(found) > 1 else found


def is_elsewhere(name: str, now: Value | None) -> bool:
    """Whether an option names an address that is not there: it has been carried, and the kernel has not taken it.

    :param now: what it is on the copy.
    """
    return OPTIONS[name].form == ADDRESS and now in (None, _NO_ADDRESS)


def checked(kind: t.Any, values: t.Any) -> Values:
    """Options that another host has sent.

    :raises ValueError: for what is not of the table, or no value of it.
    """
    for name, value in values.items():
        if name not in OPTIONS or kind not in OPTIONS[name].kinds:
            raise ValueError(f"{name!r} is no option of a socket of the kind {kind!r}")
        if not _is_value(OPTIONS[name].form, value):
            raise ValueError(f"{value!r} is no value of {name}")
    return dict(values)


def is_number(value: t.Any) -> bool:
    """Whether it is an int, and none of those that stand for true and false."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_value(form: str, value: t.Any) -> bool:
    if form == NAME:
        return isinstance(value, str) and _PROGRAM_NAME.fullmatch(value) is not None
    if form == ADDRESS:
        return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None
    if form in (DEVICE, DEVICE_IN_NETWORK_ORDER):
        return isinstance(value, str) and (not value or _DEVICE_NAME.fullmatch(value) is not None)
    if form == LONG:
        return is_number(value) and 0 <= value < 1 << 64
    return is_number(value) and -(1 << 31) <= value < 1 << 31
