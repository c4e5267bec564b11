# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages of netlink, and what this kernel answers to some."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._network import netlink
from ansible_collections.livemigrate.criu.plugins.module_utils._network.netlink import Message, Netlink

MESSAGE = Message(b"head", ((1, b"abc"), (0x8002, struct.pack("=I", 7)), (3, b"name\0")))
# linux/rtnetlink.h: RTM_DELLINK and RTM_GETLINK, struct ifinfomsg, IFLA_IFNAME.
_DELETE, _GET, _NAME = 17, 18, 3
_HEAD = struct.Struct("=BxHiII")


def test_attributes_are_read_as_they_were_written() -> None:
    assert netlink.attributes(netlink.packed(MESSAGE.attributes)) == MESSAGE.attributes
    assert len(netlink.packed([(1, b"abc")])) == 8, "each begins at a multiple of four"
    # A length that cannot be is the end.
    assert netlink.attributes(struct.pack("=HH", 2, 1) + bytes(8)) == ()


def test_an_attribute_is_found_whatever_its_flags_say() -> None:
    assert (MESSAGE.get(1), MESSAGE.number(2), MESSAGE.text(3)) == (b"abc", 7, "name")
    assert (MESSAGE.get(9), MESSAGE.number(1), MESSAGE.text(9)) == (None, None, "")


def test_attributes_are_replaced_in_their_place_and_taken_away() -> None:
    changed = MESSAGE.with_attribute(2, b"new!").with_attribute(9, b"last")
    assert changed.attributes == ((1, b"abc"), (0x8002, b"new!"), (3, b"name\0"), (9, b"last"))
    assert changed.without(1, 9).attributes == ((0x8002, b"new!"), (3, b"name\0"))


def test_a_message_goes_to_the_other_host_as_plain_data() -> None:
    assert Message.parse(json.loads(json.dumps(MESSAGE.as_data()))) == MESSAGE
    with pytest.raises(ValueError, match="hex"):
        Message.parse(["no hex"])


def test_the_kernel_lists_its_devices_and_tells_of_one() -> None:
    names = dict(socket.if_nameindex())
    with Netlink() as kernel:
        listed = kernel.dump(_GET, _HEAD.pack(0, 0, 0, 0, 0))
        assert {_HEAD.unpack(one.head)[2]: one.text(_NAME) for one in listed} == names
        number, name = next(iter(names.items()))
        one = kernel.ask(_GET, _HEAD.pack(0, 0, number, 0, 0), _HEAD.size)
    assert one is not None
    assert one.text(_NAME) == name


@pytest.mark.usefixtures("needs_root")
def test_what_the_kernel_refuses_is_an_error() -> None:
    with Netlink() as kernel:
        with pytest.raises(OSError, match="No such device"):
            kernel.ask(_GET, _HEAD.pack(0, 0, 0x7FFFFFF0, 0, 0), _HEAD.size)
        with pytest.raises(OSError, match="No such device"):
            kernel.request(_DELETE, Message(_HEAD.pack(0, 0, 0x7FFFFFF0, 0, 0), ()))
