# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock that a killed CRIU leaves, made with CRIU's own words in a real network namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import network_lock
from tests.unit.helpers.netns import Namespaces, namespaces

# criu/net.c and criu/netfilter.c of 4.2.
_IPTABLES = (
    "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n"
    "-A CRIU -m mark --mark 0xC114 -j ACCEPT\n-A CRIU -j DROP\nCOMMIT\n"
)
_NFT = (
    "create table inet CRIU-4711\n"
    "add chain inet CRIU-4711 output { type filter hook output priority 0; policy drop; }\n"
    "add rule inet CRIU-4711 output meta mark 0xC114 accept\n"
    "add chain inet CRIU-4711 input { type filter hook input priority 0; policy drop; }\n"
)


@pytest.fixture
def both() -> Iterator[Namespaces]:
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    with namespaces() as found:
        yield found


def _inside(both: Namespaces, argv: list[str], text: str) -> None:
    inside = ["nsenter", f"--net=/proc/{both.container}/ns/net"]
    subprocess.run([*inside, *argv], input=text, text=True, check=True, capture_output=True)


@pytest.mark.parametrize("method", ["iptables", "nftables"])
def test_a_lock_that_was_left_is_lifted(both: Namespaces, method: str) -> None:
    argv = ["iptables-restore", "--noflush"] if method == "iptables" else ["nft", "-f", "-"]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    with both.listener():
        both.connect().close()
        _inside(both, argv, _IPTABLES if method == "iptables" else _NFT)
        with pytest.raises(TimeoutError):
            both.connect(timeout=0.5)
        assert network_lock.lift(both.container)
        both.connect().close()
    assert not network_lock.lift(both.container), "nothing is left to be lifted"


def test_a_network_that_is_the_host_s_is_left_alone() -> None:
    def nobody(*_arguments: object, **_options: object) -> None:
        raise AssertionError("it was looked at")

    assert not network_lock.lift(os.getpid(), nobody)  # type: ignore[arg-type]
