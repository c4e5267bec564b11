# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Netlink, as far as addresses, routes, rules, neighbours and sockets need it: dumps, requests, attributes.

What the kernel tells of an object is, attribute by attribute, what it takes to make the same object again (``ip route save`` and
``ip route restore`` rest on that, and so does CRIU). So nothing is lost that a program's text would not show, and no program has
to be started in the time for which a container stands still. The calling thread has to be in the network namespace.
"""

from __future__ import annotations

import os
import socket
import struct
import typing as t

ROUTE, SOCK_DIAG, XFRM, NETFILTER = 0, 4, 6, 12

# linux/netlink.h
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCLUSIVE, _CREATE, _APPEND = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400, 0x800
_ERROR, _DONE = 2, 3
# In the upper two bits of an attribute's number: that it holds others, and its byte order.
_NUMBER = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LARGEST = 1 << 17
# No dump may keep a frozen container waiting.
_SECONDS = 2.0

#: how a request treats what is there already
ADD, REPLACE, APPEND, ONLY = _CREATE | _EXCLUSIVE, _CREATE | _REPLACE, _CREATE | _APPEND, 0


class Message(t.NamedTuple):
    """A netlink message: the fixed part of its kind, and its attributes in the order of the kernel."""

    head: bytes
    attributes: tuple[tuple[int, bytes], ...]

    def get(self, number: int) -> bytes | None:
        """An attribute's value; None where it has none."""
        return next((value for kind, value in self.attributes if kind & _NUMBER == number), None)

    def number(self, number: int) -> int | None:
        """An attribute that is a number of 32 bits."""
        value = self.get(number)
        return struct.unpack("=I", value)[0] if value is not None and len(value) == 4 else None

    def text(self, number: int) -> str:
        """An attribute that is a text; empty where there is none."""
        return (self.get(number) or b"").rstrip(b"\0").decode("utf-8", "replace")

    def without(self, *numbers: int) -> Message:
        """The same without some attributes."""
        return self._replace(attributes=tuple(one for one in self.attributes if one[0] & _NUMBER not in numbers))

    def with_attribute(self, number: int, value: bytes) -> Message:
        """The same with another value of an attribute, in its place; at the end where it had none."""
        if self.get(number) is None:
            return self._replace(attributes=(*self.attributes, (number, value)))
        return self._replace(
            attributes=tuple((kind, value if kind & _NUMBER == number else old) for kind, old in self.attributes)
        )

    def as_data(self) -> list[t.Any]:
        """As plain data."""
        return [self.head.hex(), *([kind, value.hex()] for kind, value in self.attributes)]

    @classmethod
    def parse(cls, data: t.Sequence[t.Any]) -> Message:
        """Back from plain data.

        :raises ValueError: for what is none.
        """
        return cls(bytes.fromhex(data[0]), tuple((int(kind), bytes.fromhex(value)) for kind, value in data[1:]))


def attributes(data: bytes) -> tuple[tuple[int, bytes], ...]:
    """The attributes in a piece of a message."""
    found, at = [], 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found.append((kind, data[at + _ATTRIBUTE.size : at + length]))
        at += _aligned(length)
    return tuple(found)


def packed(pairs: t.Iterable[tuple[int, bytes]]) -> bytes:
    """Attributes as bytes."""
    parts = []
    for kind, value in pairs:
        parts.append(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)
        parts.append(bytes(_aligned(len(value)) - len(value)))
    return b"".join(parts)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class Netlink:
    """A netlink socket of the network namespace in which the calling thread is.

    :param protocol: :data:`ROUTE`, :data:`SOCK_DIAG`, :data:`XFRM` or :data:`NETFILTER`.
    :raises OSError: where this kernel does not have it.
    """

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_SECONDS)
        self._socket.bind((0, 0))
        self._number = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def dump(self, kind: int, head: bytes, extra: bytes = b"") -> list[Message]:
        """All objects of a kind.

        :param head: the fixed part of the request, which is as long as that of an answer.
        :raises OSError: what the kernel says.
        """
        number = self._send(kind, _REQUEST | _DUMP, head + extra)
        found = []
        for payload in self._answers(number):
            at = _aligned(len(head))
            found.append(Message(payload[: len(head)], attributes(payload[at:])))
        return found

    def ask(self, kind: int, head: bytes, answer_bytes: int) -> Message | None:
        """One object; None where the kernel has nothing to say of it.

        :param head: the fixed part of the request.
        :param answer_bytes: the length of the fixed part of the answer.
        :raises OSError: what the kernel says.
        """
        number = self._send(kind, _REQUEST | _ACK, head)
        found = None
        for payload in self._answers(number):
            found = Message(payload[:answer_bytes], attributes(payload[_aligned(answer_bytes) :]))
        return found

    def request(self, kind: int, message: Message, how: int = ONLY) -> None:
        """Have something made, changed or deleted.

        :param how: :data:`ADD`, :data:`REPLACE`, :data:`APPEND` or :data:`ONLY`.
        :raises OSError: what the kernel says.
        """
        head = message.head + bytes(_aligned(len(message.head)) - len(message.head))
        number = self._send(kind, _REQUEST | _ACK | how, head + packed(message.attributes))
        for _answer in self._answers(number):
            pass

    def _send(self, kind: int, flags: int, body: bytes) -> int:
        self._number += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0) + body)
        return self._number

    def _answers(self, number: int) -> t.Iterator[bytes]:
        """The bodies of what the kernel answers to a request, until it says that this is all."""
        while True:
            data, at = self._socket.recv(_LARGEST), 0
            while at + _HEADER.size <= len(data):
                length, kind, _flags, answered, _port = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += _aligned(max(length, _HEADER.size))
                if answered != number:
                    continue
                if kind in (_ERROR, _DONE):
                    code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code < 0:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield body
