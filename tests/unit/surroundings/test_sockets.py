# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of sockets go from one real process to another that has the same sockets without them."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._host.borrowed_descriptor import borrowed
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import (
    network,
    socket_options,
    sockets,
    surroundings,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.inhabitants import inhabited
from tests.unit.helpers.netns import CLIENT_ADDRESS, CONTAINER_ADDRESS, Namespaces

# Numbers are chosen, so that both programs have the same: 100 and so on. What is as it was before belongs to both.
_OPEN = """
import os, socket
FOUR, SIX, TCP, UDP, RAW = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
made = []
def at(number, one):
    os.dup2(one.fileno(), number)
    one.close()
    made.append(socket.socket(fileno=number))
    return made[-1]
listening = at(100, socket.create_server(("127.0.0.1", 0)))
at(101, socket.create_connection(listening.getsockname()))
at(102, listening.accept()[0])
at(103, socket.socket(FOUR, UDP))
at(104, socket.socket(SIX, TCP))
at(105, socket.socket(SIX, UDP))
at(106, socket.socket(FOUR, RAW, 1))
at(107, socket.socket(SIX, RAW, 58))
at(108, socket.socketpair()[0])
waiting = at(120, socket.socket(socket.AF_UNIX))
waiting.bind("")
waiting.listen(7)
at(121, socket.socketpair(type=socket.SOCK_SEQPACKET)[0])
at(122, socket.socketpair(type=UDP)[0])
"""

Special = dict[int, dict[str, "int | str"]]

NOTHING: dict[str, Any] = {"created": {}, "special": [], "listeners": []}

# What a program sets, by the number of the descriptor: as it reads back, and network devices by their names.
SET: Special = {
    100: {
        "SO_TIMESTAMP": 1,
        "SO_ZEROCOPY": 1,
        "TCP_MAXSEG": 1000,
        "TCP_DEFER_ACCEPT": 63,
        "TCP_WINDOW_CLAMP": 65536,
        "TCP_USER_TIMEOUT": 9000,
        "TCP_FASTOPEN": 7,
        "TCP_SAVE_SYN": 1,
        "TCP_FASTOPEN_NO_COOKIE": 1,
        "IP_RECVTOS": 1,
        "IP_MINTTL": 255,
        # Ports 40000 to 50000, the larger one in the upper half.
        "IP_LOCAL_PORT_RANGE": (50000 << 16 | 40000) - (1 << 32),
    },
    101: {
        "SO_MAX_PACING_RATE": 5_000_000_000,
        "SO_PREFER_BUSY_POLL": 1,
        "SO_TXREHASH": 0,
        "TCP_SYNCNT": 3,
        "TCP_LINGER2": 17,
        "TCP_CONGESTION": "",
        "TCP_THIN_LINEAR_TIMEOUTS": 1,
        "TCP_NOTSENT_LOWAT": 16384,
        "TCP_INQ": 1,
        "TCP_RTO_MAX_MS": 5000,
        "TCP_RTO_MIN_US": 8000,
        "TCP_DELACK_MAX_US": 8000,
    },
    102: {
        "SO_PEEK_OFF": 3,
        "TCP_LINGER2": -1,
        "TCP_USER_TIMEOUT": 5000,
        "TCP_TX_DELAY": 1000,
        "IP_BIND_ADDRESS_NO_PORT": 1,
    },
    103: {
        "SO_TIMESTAMPNS": 1,
        "SO_RXQ_OVFL": 1,
        "SO_SELECT_ERR_QUEUE": 1,
        "SO_BUSY_POLL": 50,
        "SO_RCVMARK": 1,
        "SO_RCVPRIORITY": 1,
        "UDP_ENCAP": 2,
        "UDP_SEGMENT": 1000,
        "UDP_GRO": 1,
        "IP_RECVOPTS": 1,
        "IP_RETOPTS": 1,
        "IP_MTU_DISCOVER": 2,
        "IP_RECVERR": 1,
        "IP_RECVTTL": 1,
        "IP_PASSSEC": 1,
        "IP_TRANSPARENT": 1,
        "IP_RECVORIGDSTADDR": 1,
        "IP_MINTTL": 254,
        "IP_CHECKSUM": 1,
        "IP_RECVFRAGSIZE": 1,
        "IP_RECVERR_RFC4884": 1,
        "IP_MULTICAST_IF": "127.0.0.1",
        "IP_MULTICAST_TTL": 9,
        "IP_MULTICAST_LOOP": 0,
        "IP_MULTICAST_ALL": 0,
        "IP_UNICAST_IF": "lo",
    },
    104: {
        "TCP_FASTOPEN_CONNECT": 1,
        "IP_TOS": 16,
        "IP_TTL": 9,
        "IP_MTU_DISCOVER": 0,
        "IPV6_UNICAST_HOPS": 7,
        "IPV6_RECVERR": 1,
        "IPV6_FLOWINFO_SEND": 1,
        "IPV6_TCLASS": 32,
        "IPV6_AUTOFLOWLABEL": 0,
        "IPV6_ADDR_PREFERENCES": 0x401,
        "IPV6_MINHOPCOUNT": 255,
    },
    105: {
        "SO_TIMESTAMPING": 1 << 4 | 1 << 3,
        "UDP_NO_CHECK6_TX": 1,
        "UDP_NO_CHECK6_RX": 1,
        "IP_TOS": 3,
        "IP_PKTINFO": 1,
        "IP_RECVERR": 1,
        "IPV6_2292PKTINFO": 1,
        "IPV6_2292HOPOPTS": 1,
        "IPV6_2292DSTOPTS": 1,
        "IPV6_2292RTHDR": 1,
        "IPV6_2292HOPLIMIT": 1,
        "IPV6_FLOWINFO": 1,
        "IPV6_MULTICAST_IF": "lo",
        "IPV6_MULTICAST_HOPS": 5,
        "IPV6_MULTICAST_LOOP": 0,
        "IPV6_MTU_DISCOVER": 2,
        "IPV6_MULTICAST_ALL": 0,
        "IPV6_RECVERR_RFC4884": 1,
        "IPV6_RECVPKTINFO": 1,
        "IPV6_RECVHOPLIMIT": 1,
        "IPV6_RECVHOPOPTS": 1,
        "IPV6_RECVRTHDR": 1,
        "IPV6_RECVDSTOPTS": 1,
        "IPV6_RECVPATHMTU": 1,
        "IPV6_DONTFRAG": 1,
        "IPV6_RECVTCLASS": 1,
        "IPV6_TCLASS": 3,
        "IPV6_RECVORIGDSTADDR": 1,
        "IPV6_UNICAST_IF": "lo",
        "IPV6_RECVFRAGSIZE": 1,
    },
    106: {"SO_TIMESTAMPING": 1 << 4, "SO_TIMESTAMPING_NEW": 1 << 4, "IP_ROUTER_ALERT": 1, "IP_RECVERR": 1},
    107: {
        "SO_TIMESTAMP_NEW": 1,
        "IPV6_ROUTER_ALERT_ISOLATE": 1,
        "IPV6_RECVHOPLIMIT": 1,
        "IPV6_TRANSPARENT": 1,
    },
    108: {"SO_PASSPIDFD": 1, "SO_PASSRIGHTS": 0},
    120: {"SO_PEEK_OFF": 2},
    121: {"SO_PASSPIDFD": 1},
    # The kernel answers to the first one for the second one too.
    122: {"SO_TIMESTAMP_NEW": 1, "SO_TIMESTAMPNS_NEW": 1},
}
# What this kernel has: the options of the table are of newer ones too.
KNOWN = {name for values in socket_options.of_new_ones().values() for name in values}


def _congestion() -> str:
    """One that is not the default."""
    with socket.socket() as one:
        usual = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    return next((name for name in ("reno", "cubic") if name != usual), usual)


def _that_sets(options: Special) -> str:
    """A program that has the sockets, and sets these options of them."""
    lines = [_OPEN]
    for number, values in options.items():
        for name, value in values.items():
            option = socket_options.OPTIONS[name]
            lines.append(
                f"with socket.socket(fileno=os.dup({number})) as one: "
                f"one.setsockopt({int(option.level)}, {option.number}, {_as_set(option.form, value)!r})"
            )
    return "\n".join(lines) + "\n"


def _as_set(form: str, value: int | str) -> int | bytes:
    """As a program hands it in: a device by its number, in the order of its option."""
    if form == socket_options.LONG:
        return struct.pack("@Q", value)
    if form == socket_options.ADDRESS:
        return socket.inet_aton(str(value))
    if form == socket_options.DEVICE_IN_NETWORK_ORDER:
        return struct.pack("!I", socket.if_nametoindex(str(value)))
    if form == socket_options.DEVICE:
        return socket.if_nametoindex(str(value))
    return value.encode() if isinstance(value, str) else value


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


@pytest.fixture
def options() -> Special:
    found = {number: {name: value for name, value in values.items() if name in KNOWN} for number, values in SET.items()}
    found[101]["TCP_CONGESTION"] = _congestion()
    return found


def _taken(side: Side) -> Any:
    return json.loads(json.dumps(sockets.take(side, json.loads(json.dumps(sockets.look_ahead(side))))))


def _by_number(source: Any) -> Special:
    return {number: values for _process, number, _kind, values in source["special"] if number >= 100}


def test_every_option_of_the_table_is_carried(group: Group, options: Special) -> None:
    """Before that each is told by its name, and only what is not as on a new socket is sent."""
    compared = {name for name, option in socket_options.OPTIONS.items() if option.only_compared}
    assert {name for values in SET.values() for name in values} == set(socket_options.OPTIONS) - compared
    with inhabited(group, "original", _that_sets(options)) as original, inhabited(group, "copy", _OPEN) as copy:
        source = _taken(original)
        assert _by_number(source) == options
        reported = sockets.compare(copy, source)
        for number, values in options.items():
            for name, value in values.items():
                if socket_options.OPTIONS[name].form == socket_options.ADDRESS:
                    # One that the container does not have any more cannot be set. That it is carried shows below.
                    continue
                start = f"{name} of descriptor {number} of process 1 was {value} and is "
                assert any(line.startswith(start) for line in reported), (start, reported)
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == []
        assert _by_number(_taken(copy)) == options


_ENDED = """
import struct
def connected(number):
    server = socket.create_server(("127.0.0.1", 0))
    client = at(number, socket.create_connection(server.getsockname()))
    return client, server.accept()[0]
one, other = connected(110)
one.shutdown(socket.SHUT_WR), other.shutdown(socket.SHUT_WR), other.close()
one, other = connected(111)
other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
other.close()
"""
_FRESH = """
for number in (110, 111):
    at(number, socket.socket())
"""


def test_of_a_connection_that_is_over_its_state_is_not_compared(group: Group) -> None:
    """What the kernel tells of it is of the connection that it was. CRIU makes a new socket of it."""
    with inhabited(group, "original", _OPEN + _ENDED) as original, inhabited(group, "copy", _OPEN + _FRESH) as copy:
        source = _taken(original)
        assert not {110, 111} & set(_by_number(source))
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == []


def test_an_address_that_the_copy_does_not_have_is_not_reported(group: Group) -> None:
    """It has another one in its place, and the kernel takes no foreign one."""
    source = {**NOTHING, "special": [["1", 103, "udp", {"IP_MULTICAST_IF": "192.0.2.1"}]]}
    with inhabited(group, "copy", _OPEN) as copy:
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == []


def test_it_is_one_of_the_topics(group: Group) -> None:
    some = {number: SET[number] for number in (103, 106) if set(SET[number]) <= KNOWN}
    with inhabited(group, "original", _that_sets(some)) as original, inhabited(group, "copy", _OPEN) as copy:
        with surroundings.Reading(original, {}) as reading:
            source = json.loads(json.dumps({"sockets": reading._parts["sockets"]}))
        assert surroundings.bring_over(copy, source) == []
        assert _by_number(_taken(copy)) == some


@pytest.mark.parametrize("seconds", [1, 2, 3, 5, 10, 30, 45, 100, 1000])
def test_the_kernel_rounds_the_time_for_which_it_defers(seconds: int) -> None:
    """To numbers of retransmissions: what it tells is set again as just that."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)
        reported = socket_options.get(one, "TCP_DEFER_ACCEPT", "tcp")
        sockets._Setting(dict).of(other, "tcp", {"TCP_DEFER_ACCEPT": reported})
        assert socket_options.get(other, "TCP_DEFER_ACCEPT", "tcp") == reported
        assert reported >= seconds if isinstance(reported, int) else pytest.fail("no number")


_ACCEPTS = """
listening.setsockopt(6, 9, 30)
listening.setsockopt(6, 18, 7000)
client = socket.create_connection(listening.getsockname())
client.send(b"x")
at(110, listening.accept()[0])
at(111, client).setsockopt(6, 9, 30)
"""


def test_what_an_accepted_connection_has_inherited(group: Group) -> None:
    """Its time for acknowledgements, and not that it is accepted late; that has no effect on a client that has set it."""
    with inhabited(group, "original", _OPEN + _ACCEPTS) as original:
        found = _by_number(_taken(original))
        assert set(found) == {100, 110}
        assert found[110] == {"TCP_USER_TIMEOUT": 7000}


def test_the_ecn_of_a_connection_is_none_of_its_options() -> None:
    """The kernel has it in the traffic class, from where CRIU's copy has another one or none."""
    with socket.socket(socket.AF_INET6) as one:

        class Connection(socket.socket):
            def getsockopt(self, *_arguments: int) -> Any:
                return 0x22

        with Connection(fileno=one.detach()) as connection:
            assert socket_options.get(connection, "IPV6_TCLASS", "tcp6") == 0x20
            assert socket_options.get(connection, "IPV6_TCLASS", "udp6") == 0x22


_FORKS = """
if os.fork() == 0:
    os.close(103)
    import time
    time.sleep(60)
"""


def test_a_socket_of_two_processes_is_read_once_and_set_by_whichever_number(group: Group) -> None:
    """The copy's processes may come in another order, and a socket be held by one alone in which it has that number."""
    some: Special = {100: {"TCP_FASTOPEN": 7}, 103: {"IP_RECVERR": 1}}
    forking = _that_sets(some) + _FORKS
    with inhabited(group, "original", forking) as original, inhabited(group, "copy", _OPEN + _FORKS) as copy:
        source = _taken(original)
        assert sorted(_by_number(source)) == [100, 103]
        assert len(source["special"]) == 2
        copy.__dict__["processes"] = dict(reversed(copy.processes.items()))
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == []


def test_what_cannot_be_set_is_reported_by_its_name(group: Group) -> None:
    """A congestion control that the destination does not have, another socket in the place, none there."""
    source: Any = {
        **NOTHING,
        "special": [
            ["1", 101, "tcp", {"TCP_CONGESTION": "nosuchone"}],
            ["1", 103, "tcp", {"TCP_SYNCNT": 3}],
            ["1", 108, "udp", {"IP_RECVERR": 1}],
            ["1", 109, "udp", {"IP_RECVERR": 1}],
            ["7", 100, "tcp", {"TCP_SYNCNT": 3}],
        ],
    }
    with inhabited(group, "copy", _OPEN) as copy:
        sockets.carry(copy, source)
        reported = sockets.compare(copy, source)
    assert reported[0].startswith("TCP_CONGESTION of descriptor 101 of process 1 was nosuchone and is ")
    assert reported[1:] == [
        "descriptor 103 of process 1 is no socket of the kind tcp",
        "descriptor 108 of process 1 is no socket of the kind udp",
        "IP_RECVERR of descriptor 109 of process 1 cannot be read (Bad file descriptor)",
    ]


def test_what_the_kernel_encrypts_is_compared_and_not_made(group: Group) -> None:
    """There are no keys: the copy would send in the clear. Not every kernel has it, so the source is written down."""
    source: Any = {**NOTHING, "special": [["1", 101, "tcp", {"TCP_ULP": "tls"}]]}
    with inhabited(group, "copy", _OPEN) as copy:
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == ["TCP_ULP of descriptor 101 of process 1 was tls and is none"]
        if "tls" in Path("/proc/sys/net/ipv4/tcp_available_ulp").read_text().split():
            with borrowed(copy.init, 101) as ours, process_sockets.opened(ours) as one:
                one.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
            assert _by_number(_taken(copy))[101] == {"TCP_ULP": "tls"}
            copy.ignored = frozenset({"tcp_ulp"})
            assert 101 not in _by_number(_taken(copy))


def test_network_devices_go_by_their_names(group: Group, net: Namespaces) -> None:
    """The copy's device has another number there, and may have another name. One that is not there is reported."""

    def within(*command: str) -> None:
        subprocess.run(["nsenter", f"--net=/proc/{net.container}/ns/net", *command], check=True)

    within("ip", "link", "add", "other", "index", "77", "type", "bridge")
    values = {"IPV6_MULTICAST_IF": "was", "IPV6_UNICAST_IF": "was"}
    source: Any = {**NOTHING, "special": [["1", 105, "udp6", values], ["1", 103, "udp", {"IP_UNICAST_IF": "gone"}]]}
    prefix = ("nsenter", f"--net=/proc/{net.container}/ns/net")
    with inhabited(group, "copy", _OPEN, *prefix) as copy:
        known = sockets.renamed(source, {"was": "other", "gone": ""})
        sockets.carry(copy, known)
        assert sockets.compare(copy, known) == ["IP_UNICAST_IF of descriptor 103 of process 1 was gone and is none"]
        with borrowed(copy.init, 105) as ours, process_sockets.opened(ours) as one:
            assert one.getsockopt(socket.IPPROTO_IPV6, 17) == 77
            assert one.getsockopt(socket.IPPROTO_IPV6, 76) == int.from_bytes((77).to_bytes(4, "big"), sys.byteorder)
    assert sockets.renamed({"special": 1}, {"was": "other"}) == {"special": 1}


def test_devices_that_the_engine_has_named_otherwise(
    group: Group, net: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic of the network knows which is which."""
    net.ip(net.container, "link", "add", "other", "type", "bridge")
    monkeypatch.setattr(network, "device_names", lambda _side, _source: {"was": "other"})
    monkeypatch.setattr(surroundings, "_TOPICS", (sockets,))
    source: Any = {**NOTHING, "special": [["1", 105, "udp6", {"IPV6_MULTICAST_IF": "was"}]]}
    with inhabited(group, "copy", _OPEN, "nsenter", f"--net=/proc/{net.container}/ns/net") as copy:
        copy.own_network = True
        assert surroundings.bring_over(copy, {"network": {}, "sockets": source}) == []
        assert _by_number(_taken(copy))[105] == {"IPV6_MULTICAST_IF": "other"}


def test_nothing_of_a_copy_that_runs_is_set(group: Group) -> None:
    """As with the engine `api`: it is told. Its programs may have changed or closed the socket in the meantime."""
    with inhabited(group, "original", _that_sets({103: {"IP_RECVERR": 1}})) as original:
        source = _taken(original)
    source["special"] += [["1", 109, "udp", {"IP_RECVERR": 1}], ["1", 100, "udp", {"IP_RECVERR": 1}]]
    with inhabited(group, "copy", _OPEN) as copy:
        copy.group.thaw()
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == ["IP_RECVERR of descriptor 103 of process 1 was 1 and is 0"]


def test_what_sockets_have_from_sysctls_of_their_network(group: Group, net: Namespaces) -> None:
    """CRIU makes the copy's sockets before its network has the sysctls of the source's."""

    def within(pid: int) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{pid}/ns/net")

    def control(pid: int) -> None:
        # A network of its own may always have this one, and that of its host.
        names = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.ip_no_pmtu_disc=1")
        subprocess.run([*within(pid), "sysctl", "-qw", *names], check=True)

    control(net.container)
    with (
        inhabited(group, "original", _OPEN, *within(net.container)) as original,
        inhabited(group, "copy", _OPEN, *within(net.client)) as copy,
    ):
        original.own_network = copy.own_network = True
        source = _taken(original)
        assert source["special"] == []
        # As its sysctls are carried.
        control(net.client)
        assert {values["IP_MTU_DISCOVER"] for kind, values in _of_all(copy) if kind == "udp"} == {1}
        sockets.carry(copy, source)
        assert {values["TCP_CONGESTION"] for kind, values in _of_all(copy) if kind in ("tcp", "tcp6")} == {"reno"}
        assert {values["IP_MTU_DISCOVER"] for kind, values in _of_all(copy) if kind == "udp"} == {0}
        copy.own_network = original.own_network = False
        assert _taken(original)["created"] == {}, "the host's own settings are the host's"


def _of_all(side: Side) -> list[tuple[str, dict[str, Any]]]:
    """What each socket has now."""
    usual = {
        kind: {
            name: "" if name == "TCP_CONGESTION" else -2
            for name in socket_options.AT_CREATION
            if kind in socket_options.OPTIONS[name].kinds
        }
        for kind in socket_options.KINDS
    }
    _kinds, special = sockets._look(side, usual, [])
    return [(one.kind, one.values) for one in special if one.descriptor >= 100]


@pytest.mark.parametrize(
    "special",
    [
        ["1", 100, "tcp", {"SO_BINDTODEVICE": 1}],
        ["1", 100, "udp", {"TCP_SYNCNT": 1}],
        ["1", 100, "tcp", {"TCP_SYNCNT": True}],
        ["1", 100, "tcp", {"TCP_SYNCNT": "1"}],
        ["1", 100, "tcp", {"TCP_SYNCNT": 1 << 31}],
        ["1", 100, "tcp", {"TCP_CONGESTION": "../x"}],
        ["1", 100, "tcp", {"TCP_CONGESTION": "a" * 16}],
        ["1", 100, "tcp", {"TCP_CONGESTION": 7}],
        ["1", "100", "tcp", {"TCP_SYNCNT": 1}],
        ["1", 100, "tcp", ["TCP_SYNCNT"]],
        ["1", 100, "seqpacket", {"SO_TIMESTAMP": 1}],
        ["1", 100, "unix", {"SO_TIMESTAMP": 1}],
        ["1", 100, "tcp", {"SO_MAX_PACING_RATE": -1}],
        ["1", 100, "tcp", {"SO_MAX_PACING_RATE": 1 << 64}],
        ["1", 100, "udp", {"IP_MULTICAST_IF": 1}],
        ["1", 100, "udp", {"IP_MULTICAST_IF": "127.0.0.256"}],
        ["1", 100, "udp", {"IP_MULTICAST_IF": "127.0.0"}],
        ["1", 100, "udp6", {"IPV6_UNICAST_IF": 1}],
        ["1", 100, "udp6", {"IPV6_UNICAST_IF": "../x"}],
        ["1", 100, "udp6", {"IPV6_UNICAST_IF": "a" * 16}],
        ["1", 100, [], {"SO_TIMESTAMP": 1}],
        [1, 100, "tcp", {"TCP_SYNCNT": 1}],
        ["1", 100, "tcp"],
        None,
    ],
)
def test_only_options_of_the_table_are_set(special: Any, group: Group) -> None:
    """The data come from another host."""
    source: Any = {**NOTHING, "special": [special]}
    with inhabited(group, "copy", _OPEN) as copy:
        with pytest.raises(ValueError, match=r" no |unpack"):
            sockets.carry(copy, source)
        [reported] = surroundings.bring_over(copy, {"sockets": source})
        assert reported.startswith("sockets cannot be compared")
        with pytest.raises(ValueError, match=r" no |unpack"):
            sockets.carry(copy, {**NOTHING, "created": {"tcp": {"SO_MARK": 1}}})


class NotHere:
    def __init__(self, _pid: int) -> None:
        raise OSError(errno.ENOSYS, "not here")


def test_where_nothing_can_be_borrowed(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.6. On the source nothing is known, and on the copy what is lost is told."""
    with inhabited(group, "original", _that_sets({103: {"IP_RECVERR": 1}})) as original:
        source = _taken(original)
        monkeypatch.setattr(sockets, "Lender", NotHere)
        assert sockets.take(original, None) is None
    with inhabited(group, "copy", _OPEN) as copy:
        sockets.carry(copy, source)
        reported = sockets.compare(copy, source)
        assert reported == ["IP_RECVERR of descriptor 103 of process 1 cannot be read (not here)"]


_MANY = "made += [socket.socket(type=kind) for kind in (TCP, UDP) for dummy in range(50)]\n"


@pytest.mark.parametrize(
    ("here", "there", "leaves"),
    [
        ("172.17.0.2", "192.0.2.9", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:172.17.0.2", "::ffff:192.0.2.9", True),
        # Within the container.
        ("172.17.0.2", "172.17.0.2", False),
        ("127.0.0.1", "127.0.0.53", False),
        ("::1", "::1", False),
    ],
)
def test_which_connections_leave_the_container(here: str, there: str, leaves: bool) -> None:
    assert sockets._leaves(here, there) is leaves


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["four", "six"])
def test_a_connection_to_another_host_will_be_closed(
    family: int, net: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of IPv4 on a socket of IPv6 too. Both addresses are read whole: these differ in their last bytes alone."""
    kind, prefix = ("tcp", "") if family == socket.AF_INET else ("tcp6", "::ffff:")

    def closed(number: int) -> bool:
        plain = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, number)
        try:
            return sockets._will_be_closed(plain, kind)
        finally:
            plain.detach()

    with socket.socket(family) as server, socket.socket(family) as client, socket.socket(family) as new:
        server.bind((f"{prefix}127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname()[:2])
        assert [closed(one.fileno()) for one in (server, client, new)] == [False, False, False]

    def connected() -> socket.socket:
        client = socket.socket(family)
        client.connect((f"{prefix}{CONTAINER_ADDRESS}", 9000))
        return client

    with net.listener(), net.inside(net.client, connected) as client:
        assert closed(client.fileno())
        asked: list[tuple[str, str]] = []
        monkeypatch.setattr(sockets, "_leaves", lambda here, there: asked.append((here, there)))
        closed(client.fileno())
        assert asked == [(f"{prefix}{CLIENT_ADDRESS}", f"{prefix}{CONTAINER_ADDRESS}")]


def test_connections_that_will_be_closed_are_not_looked_at(
    group: Group, options: Special, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inhabited(group, "original", _that_sets(options)) as original:
        monkeypatch.setattr(
            sockets, "_will_be_closed", lambda one, kind: "tcp" in kind and one.getsockopt(6, 11, 1) == b"\x01"
        )
        original.keeps_connections = False
        assert set(_by_number(_taken(original))) == set(options) - {101, 102}


def test_a_hundred_sockets_cost_the_frozen_time_little(group: Group) -> None:
    """About 5 ms on a busy machine; the whole frozen time is tens of milliseconds."""
    with inhabited(group, "original", _OPEN + _MANY) as original:
        ahead = sockets.look_ahead(original)
        original.find_processes()
        assert len(process_sockets.of_process(original.init)) > 100
        took = []
        for _round in range(5):
            before = time.perf_counter()
            sockets.take(original, ahead)
            took.append(time.perf_counter() - before)
    print(f"{min(took) * 1000:.2f} ms")
    assert min(took) < 0.03


def test_looking_changes_nothing_and_leaves_nothing_open(group: Group) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with inhabited(group, "original", _OPEN) as original:
        flags = Path(f"/proc/{original.init}/fdinfo/100").read_text()
        sockets.carry(original, _taken(original))
        assert Path(f"/proc/{original.init}/fdinfo/100").read_text() == flags
    assert len(os.listdir("/proc/self/fd")) == before
