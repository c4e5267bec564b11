# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which ciphers the channel prefers on which processor, and that ssh takes the list."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client

X86 = "processor\t: 0\nflags\t\t: fpu vme sse4_2 movbe popcnt aes xsave avx\nbugs\t\t: spectre_v1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32\n"


@pytest.mark.parametrize("cpuinfo", [X86, ARM, X86 + X86])
def test_a_processor_with_aes_instructions(cpuinfo: str) -> None:
    preferred = channel_client.ciphers(cpuinfo)
    assert preferred is not None
    assert preferred.startswith("aes128-gcm@openssh.com,")


@pytest.mark.parametrize(
    "cpuinfo",
    ["", X86.replace(" aes", ""), ARM.replace(" aes", ""), X86.replace(" aes", " vaes aes_x"), "model name\t: aes\n"],
)
def test_a_processor_without(cpuinfo: str) -> None:
    assert channel_client.ciphers(cpuinfo) is None


def test_ssh_takes_the_list_and_nothing_is_missing_in_it() -> None:
    """Whatever a daemon was left with can still be agreed on."""
    ours = str(channel_client.ciphers(X86))
    done = subprocess.run(
        ["ssh", "-F", "none", "-G", "-o", f"Ciphers={ours}", "host"], capture_output=True, text=True, check=True
    )
    assert f"ciphers {ours}\n" in done.stdout
    default = subprocess.run(["ssh", "-F", "none", "-G", "host"], capture_output=True, text=True, check=True).stdout
    [line] = [line for line in default.splitlines() if line.startswith("ciphers ")]
    assert set(ours.split(",")) >= set(line.split()[1].split(","))
