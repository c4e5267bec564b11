# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who else uses a path of this host, as far as it counts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import left_data, mount_users
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
    destination as facts_of_destination,
)


class Containers:
    """An engine with containers that mount something; ``running`` ones, and others."""

    def __init__(self, *mounts: tuple[str, dict[str, Any]], running: bool = True) -> None:
        self._found: list[dict[str, Any]] = [
            {"Id": "f" * 64, "Names": [f"/{name}"], "Mounts": [mount]} for name, mount in mounts
        ]
        self._running = running

    def containers(self, _filters: object = None, *, running: bool = False) -> list[dict[str, Any]]:
        return self._found if self._running or not running else []

    def find_volume(self, name: str) -> dict[str, Any]:
        return {"Mountpoint": f"/nowhere/{name}", "Options": {"type": "none", "o": "bind", "device": name}}


def _mounts(source: str | Path, *, writes: bool = True) -> tuple[str, dict[str, Any]]:
    return "other", {"Type": "bind", "Source": str(source), "RW": writes}


def _users_of(path: Path, asks: Any, **more: Any) -> list[str]:
    entry = {"kind": "bind", "path": str(path), "travels": True, **more}
    used: list[str] = facts_of_destination.binds(asks, [entry], {}, ["own"])[str(path)]["used_by"]
    return used


@pytest.mark.parametrize(
    ("mounted", "writes", "counts"),
    [
        ("srv/web", True, True),
        ("srv/web", False, True),
        ("srv/web/spool", True, True),
        ("srv/web/spool", False, True),
        ("srv", True, True),
        ("srv", False, False),
        (".", True, True),
        ("srv/webmail", True, False),
        ("srv/other", True, False),
        # What it leads to is what is written.
        ("link/web", True, True),
        ("link", True, True),
        ("link", False, False),
    ],
)
def test_who_uses_a_bind_mounts_path(mounted: str, writes: bool, counts: bool, tmp_path: Path) -> None:
    for name in ("srv/web/spool", "srv/webmail", "srv/other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("srv")
    mount = _mounts(tmp_path / mounted, writes=writes)
    # The path of the container that comes may be the one with the link, and need not be there yet.
    for path in (tmp_path / "srv" / "web", tmp_path / "link" / "web"):
        assert _users_of(path, Containers(mount)) == ["other"] * counts
    (tmp_path / "srv/web/spool").rmdir()
    (tmp_path / "srv/web").rmdir()
    assert _users_of(tmp_path / "link" / "web", Containers(mount)) == ["other"] * counts


def test_who_does_not_count_as_a_user_of_a_path(tmp_path: Path) -> None:
    """One that does not run, the container's own old copy, an agent that reads all of the host, and what is no bind mount."""
    path = tmp_path / "web"
    assert _users_of(path, Containers(_mounts(path), running=False)) == []
    assert _users_of(path, Containers(_mounts("/", writes=False))) == []
    assert _users_of(path, Containers(("other", {"Type": "tmpfs", "Source": "", "Destination": "/x"}))) == []
    own = Containers(_mounts(path))
    own._found[0]["Id"] = "own"
    assert _users_of(path, own) == []
    # What does not travel is not written.
    nobody: Any = None
    assert _users_of(path, nobody, travels=False) == []


def test_who_reads_what_is_the_containers_own_does_not_count(tmp_path: Path) -> None:
    """A collector of logs reads what the container writes; it did so before the container left."""
    path = tmp_path / "logs"
    path.mkdir()
    entry = {"kind": "bind", "path": str(path), "travels": True}

    def users(writes: bool) -> list[str]:
        asks: Any = Containers(_mounts(path, writes=writes))
        own = {str(path): [left_data.note(str(path))]}
        found: list[str] = facts_of_destination.binds(asks, [entry], own, ["own"])[str(path)]["used_by"]
        return found

    assert users(False) == []
    assert users(True) == ["other"]


def test_a_volume_of_a_plugin_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin may be down. It counts by its name."""
    monkeypatch.setattr(Containers, "find_volume", lambda *_arguments: pytest.fail("it was asked for"))
    mount = {"Type": "volume", "Driver": "rexray", "Name": "data", "Source": str(tmp_path / "data"), "RW": True}
    assert _users_of(tmp_path / "data", Containers(("other", mount))) == ["other"]


def test_what_lies_on_another_host_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """That host may be down, and who looks would wait for it."""
    resolve = os.path.realpath

    def realpath(path: str, **options: Any) -> str:
        assert not str(path).startswith("/nas/"), "it was looked at"
        return resolve(path, **options)

    monkeypatch.setattr(mount_users, "_remote_places", lambda: ("/nas/",))
    asks: Any = Containers(_mounts("/nas/share/"))
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "realpath", realpath)
        found = mount_users.uses(asks)
    assert [one.path for one in found] == ["/nas/share"]


def test_a_volume_may_be_another_name_for_a_path(tmp_path: Path) -> None:
    mount = {"Type": "volume", "Name": str(tmp_path / "web"), "Source": "", "RW": True}
    assert _users_of(tmp_path / "web", Containers(("other", mount))) == ["other"]


def test_a_container_of_which_little_is_reported_has_its_id_for_a_name(tmp_path: Path) -> None:
    found = Containers(_mounts(tmp_path))
    found._found[:] = [{"Id": "f" * 64, "Mounts": [{"Source": str(tmp_path)}]}, {"Id": "a" * 64, "Mounts": None}]
    assert _users_of(tmp_path, found) == ["f" * 12]
