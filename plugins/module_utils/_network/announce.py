# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Telling the neighbours where an address is from now on: gratuitous ARP, and for IPv6 unsolicited neighbour advertisements.

A container that keeps its addresses keeps its connections, but switches go on sending to the old host until they see a
frame from the new one, and neighbours to the old MAC address if that has changed. A copy that has nothing to say would not
be found for as long. Docker from 28 on announces an address itself, three times from when it makes the interface on, which
is before the decision: so after an abort the source has to announce its address again.

The frames leave through packet sockets, which are opened in the container's namespace while it is held, so that nothing
is left to do at the moment of the decision but to send.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import typing as t

from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._host import namespaces

_BROADCAST = b"\xff" * 6
_ETHERTYPE_ARP, _ETHERTYPE_IPV6 = 0x0806, 0x86DD
_NEXT_HEADER_ICMPV6, _NEIGHBOUR_ADVERTISEMENT = 58, 136
# "Override": neighbours replace what they had in their caches.
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


def gratuitous_arp(mac: bytes, address: ipaddress.IPv4Address) -> bytes:
    """An Ethernet frame that asks for the sender's own address (RFC 5227, section 3: the announcement)."""
    head = _BROADCAST + mac + struct.pack("!H", _ETHERTYPE_ARP)
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address.packed + bytes(6) + address.packed


def neighbour_advertisement(mac: bytes, address: ipaddress.IPv6Address) -> bytes:
    """An Ethernet frame with an unsolicited neighbour advertisement to all nodes (RFC 4861, section 7.2.6)."""
    everybody = ipaddress.IPv6Address("ff02::1").packed
    body = struct.pack("!I", _OVERRIDE) + address.packed + struct.pack("!BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac
    length = 4 + len(body)
    pseudo = address.packed + everybody + struct.pack("!II", length, _NEXT_HEADER_ICMPV6)
    checksum = _checksum(pseudo + struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0) + body)
    packet = struct.pack("!IHBB", 6 << 28, length, _NEXT_HEADER_ICMPV6, 255) + address.packed + everybody
    head = b"\x33\x33" + everybody[-4:] + mac + struct.pack("!H", _ETHERTYPE_IPV6)
    return head + packet + struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, checksum) + body


def _checksum(data: bytes) -> int:
    """RFC 1071, over an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def frames(addresses: t.Iterable[t.Mapping[str, t.Any]]) -> list[tuple[str, bytes]]:
    """What to send, and through which device: a frame for each address of a device with a MAC address.

    :param addresses: what ``ip -json address`` says.
    """
    found = []
    for device in addresses:
        if device.get("link_type") != "ether" or "UP" not in device.get("flags", ()):
            continue
        mac = bytes.fromhex(device["address"].replace(":", ""))
        for entry in device.get("addr_info", ()):
            if entry.get("scope") != "global":
                continue
            address = ipaddress.ip_address(entry["local"])
            frame = gratuitous_arp(mac, address) if address.version == 4 else neighbour_advertisement(mac, address)
            found.append((str(device["ifname"]), frame))
    return found


class Announcer:
    """What a container's network has to announce, ready to be sent.

    :param pid: a process in the network namespace.
    :raises MigrationError: ``announce_failed``; ``program_missing`` where ip or nsenter is not installed.
    """

    def __init__(self, pid: int, runner: Runner = run) -> None:
        done = runner(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-json", "address"])
        if done.rc != 0:
            raise MigrationError("announce_failed", f"Cannot read the container's addresses: {done.output}", rc=done.rc)
        self._frames = frames(json.loads(done.stdout or "[]"))
        self._sockets = _open_in(pid, sorted({device for device, _frame in self._frames}))

    def send(self) -> int:
        """Send each frame once. Errors are passed over: the copy is found by what it sends itself, if later.

        :returns: how many were sent.
        """
        sent = 0
        for device, frame in self._frames:
            with contextlib.suppress(OSError):
                self._sockets[device].send(frame)
                sent += 1
        return sent

    def close(self) -> None:
        """Close the sockets. They would keep the namespace alive."""
        for opened in self._sockets.values():
            opened.close()

    def __enter__(self) -> Announcer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _open_in(pid: int, devices: t.Sequence[str]) -> dict[str, socket.socket]:
    """Packet sockets in another network namespace, one a device. Sockets stay in the namespace they were made in."""
    opened: dict[str, socket.socket] = {}

    def work() -> None:
        for device in devices:
            # Protocol 0: it receives nothing.
            opened[device] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            opened[device].bind((device, 0))

    try:
        namespaces.inside(pid, ["net"], work)
    except OSError as exc:
        for one in opened.values():
            one.close()
        raise MigrationError("announce_failed", f"Cannot speak in the container's network: {exc}") from exc
    return opened
