# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of the host is recognised whatever it is called, and nothing is sent into it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._host import namespaces
from ansible_collections.livemigrate.criu.plugins.module_utils._host.system_directories import written_to
from tests.unit.helpers.wire import Wire


@pytest.mark.parametrize(
    ("path", "leads_to", "below", "is_file", "found"),
    [
        ("data", "/etc", "", False, "/etc"),
        ("data", "/", "", False, "/"),
        ("data", "/", "/etc", False, "/etc"),
        ("data", "/etc/..", "/var/lib", False, "/var/lib"),
        ("data", "/etc", "/livemigrate-none", False, ""),
        ("data", "/usr/share", "", False, ""),
        # A file that is named where it lies, and one that gets there by another name.
        ("data", "/etc", "/passwd", True, "/etc"),
        ("data", "/usr/share", "/file", True, ""),
    ],
)
def test_a_link_gives_a_directory_another_name(
    path: str, leads_to: str, below: str, is_file: bool, found: str, tmp_path: Path
) -> None:
    (tmp_path / path).symlink_to(leads_to)
    assert written_to(f"{tmp_path}/{path}{below}", is_file=is_file) == found


def test_by_its_own_name() -> None:
    assert written_to("/etc") == "/etc"
    assert written_to("/etc/passwd", is_file=True) == ""
    assert written_to("/livemigrate/none") == ""


@pytest.mark.usefixtures("needs_namespaces")
def test_so_does_a_mount(tmp_path: Path) -> None:
    def mounted() -> str:
        subprocess.run(["mount", "--bind", "/etc", str(tmp_path)], check=True)
        return written_to(str(tmp_path))

    assert written_to(str(tmp_path)) == ""
    assert _apart(mounted) == "/etc"


def _apart(function: Callable[[], str]) -> str:
    """Run a function in a mount namespace of its own, in which /boot is an empty file system in memory."""

    def prepared() -> str:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", "/boot"], check=True)
        Path("/boot/kernel").write_text("stays")
        return function()

    return namespaces.inside_fresh(("mnt",), prepared)


@pytest.mark.usefixtures("needs_namespaces")
def test_a_link_that_is_made_after_the_preflight_gets_nothing_named(wire: Wire, tmp_path: Path) -> None:
    def attempt() -> str:
        (tmp_path / "data").symlink_to("/boot")
        with pytest.raises(MigrationError) as caught:
            channel_server.set_targets(wire.destination, {"bind/0": str(tmp_path / "data")})
        assert f"{tmp_path}/data leads to /boot of the destination" in caught.value.message
        return caught.value.code

    assert _apart(attempt) == "bind_mount_refused"


@pytest.mark.usefixtures("needs_namespaces")
def test_what_is_mounted_there_later_gets_nothing_sent(wire: Wire) -> None:
    """The place was named while it was another's: the same directory is a directory of the host by now."""

    def attempt() -> str:
        place = wire.prepare("bind/0")
        (place / "kernel").write_text("stays")
        subprocess.run(["mount", "--bind", str(place), "/boot"], check=True)
        # What the forced command does for a client's rsync. A client would start it outside of this namespace.
        with pytest.raises(MigrationError) as caught:
            channel_server._run_rsync(wire.destination, ["rsync", "--version", f"{place}/"], "bind/0")
        assert "leads to /boot of the destination, a directory of the host itself" in caught.value.message
        return (place / "kernel").read_text()

    assert _apart(attempt) == "stays"
