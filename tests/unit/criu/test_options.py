# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU's options for a dump: what the host says stays, what is decided here is said once."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import options as criu_options
from ansible_collections.livemigrate.criu.plugins.module_utils._host.deleted_files import Deleted

NOTHING = Deleted(0, 0, 0)

HOST = """\
# BEGIN livemigrate.criu
log-file=/var/log/criu-runc.log
manage-cgroups=ignore
ghost-limit=1M
tcp-close
# END livemigrate.criu
  external=mnt[/x]:x
no-file-locks
network-lock=iptables
"""


def test_lines_of_the_host_stay_but_for_what_is_decided() -> None:
    lines = criu_options.for_dump(HOST, kept=True, deleted=NOTHING).splitlines()
    assert lines[0] == "  external=mnt[/x]:x"
    assert "tcp-established" in lines
    for gone in (
        "tcp-close",
        "no-file-locks",
        "network-lock=iptables",
        "ghost-limit=1M",
        "log-file=/var/log/criu-runc.log",
    ):
        assert gone not in lines
    assert len(lines) == len(set(lines))


def test_connections_that_go_nowhere_are_closed() -> None:
    text = criu_options.for_dump("tcp-established\n", kept=False, deleted=NOTHING)
    assert "tcp-close" in text.splitlines()
    assert "tcp-established" not in text


def test_the_lock_is_never_named_where_it_kills_criu() -> None:
    """CRIU up to 4.2 dies of it in the file that runc names; one before 3.19 refuses a value that it does not know."""
    assert "network-lock" not in criu_options.for_dump("network-lock=skip\n", kept=True, deleted=NOTHING)
    assert criu_options.by_environment(skip_lock=True) == "network-lock=skip\n"
    assert criu_options.by_environment(skip_lock=False) == ""


def test_a_dump_takes_the_largest_deleted_file() -> None:
    big = criu_options.GHOST_LIMIT * 2
    text = criu_options.for_dump("", kept=False, deleted=Deleted(1, big, big))
    [limit] = [int(line.partition("=")[2]) for line in text.splitlines() if line.startswith("ghost-limit=")]
    assert big + big // 100 < limit < 2 * big
    assert f"ghost-limit={criu_options.GHOST_LIMIT}" in criu_options.for_dump("", kept=False, deleted=Deleted(1, 5, 5))


@pytest.mark.parametrize(
    ("version", "known"),
    [("4.2.1", True), ("3.19", True), ("3.18.9", False), ("3.17.1", False), ("", False), (None, False)],
)
def test_from_which_version_on_the_lock_can_be_skipped(version: str | None, known: bool) -> None:
    assert criu_options.skips_network_lock(version) is known
