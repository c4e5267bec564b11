# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames that tell the network where an address is now."""

from __future__ import annotations

from ansible_collections.livemigrate.criu.plugins.module_utils._network import announce


def test_frames_for_each_address_of_each_device() -> None:
    listing = [
        {
            "ifname": "lo",
            "link_type": "loopback",
            "flags": ["UP"],
            "addr_info": [{"local": "127.0.0.1", "scope": "host"}],
        },
        {
            "ifname": "eth0",
            "link_type": "ether",
            "flags": ["BROADCAST", "UP"],
            "address": "02:42:c6:12:05:64",
            "addr_info": [
                {"local": "198.51.100.7", "scope": "global"},
                {"local": "fd00::5", "scope": "global"},
                {"local": "fe80::1", "scope": "link"},
            ],
        },
    ]
    (first, arp), (second, advertisement) = announce.frames(listing)
    assert (first, second) == ("eth0", "eth0")
    assert arp.hex() == "ffffffffffff0242c6120564080600010800060400010242c6120564c6336407000000000000c6336407"
    # As a kernel's neighbour took it; the checksum over pseudo header and message is all ones.
    assert advertisement[:14].hex() == "3333000000010242c612056486dd"
    assert advertisement[54] == 136
    assert len(advertisement) == 14 + 40 + 32
