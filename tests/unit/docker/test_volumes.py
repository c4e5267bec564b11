# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's volumes and bind mounts: which of them travel, what lies there, and who else writes into them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import volumes
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.socket import Asks
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER


class Engine:
    """An engine with these volumes and other containers."""

    def __init__(self, found: dict[str, dict[str, Any]], others: list[dict[str, Any]]) -> None:
        self._volumes, self._others = found, others

    def find_volume(self, name: str) -> dict[str, Any] | None:
        return self._volumes.get(name)

    def containers(self, filters: dict[str, str] | None = None, *, running: bool) -> list[dict[str, Any]]:
        assert running, "one that is down writes nothing"
        wanted = (filters or {}).get("volume")
        return [one for one in self._others if wanted is None or wanted in one["uses"]]


def _mount(kind: str, source: Path, destination: str, **more: Any) -> dict[str, Any]:
    return {"Type": kind, "Source": str(source), "Destination": destination, "RW": True, "Mode": "", **more}


def _other(
    name: str, *mounts: dict[str, Any], uses: tuple[str, ...] = (), identity: str = OTHER_CONTAINER
) -> dict[str, Any]:
    return {"Id": identity, "Names": [f"/{name}"], "Mounts": list(mounts), "uses": uses}


def _of(
    mounts: list[dict[str, Any]],
    binds: tuple[str, ...] = (),
    found: dict[str, dict[str, Any]] | None = None,
    others: tuple[dict[str, Any], ...] = (),
) -> list[dict[str, Any]]:
    inspect = {"Id": CONTAINER, "Name": "/web", "Mounts": mounts, "HostConfig": {}, "Config": {}}
    return volumes.of_container(cast(Asks, Engine(found or {}, list(others))), inspect, binds)


def test_a_local_volume_travels_and_who_else_uses_it_is_reported(tmp_path: Path) -> None:
    [found] = _of(
        [_mount("volume", tmp_path, "/data", Name="data", Driver="local")],
        found={"data": {"Driver": "local", "Options": None, "Labels": {"of": "web"}}},
        others=(_other("backup", uses=("data",)), _other("web", uses=("data",), identity=CONTAINER), _other("idle")),
    )
    assert (found["travels"], found["shared"], found["form"]) == (True, False, volumes.DIRECTORY)
    assert found["in_use_by"] == ["backup"], "the container itself is nobody else"
    assert found["create"] == {"Name": "data", "Driver": "local", "DriverOpts": {}, "Labels": {"of": "web"}}


@pytest.mark.parametrize(
    ("driver", "options", "shared", "travels"),
    [
        ("local", {"type": "nfs", "device": ":/export", "o": "addr=192.0.2.1"}, True, False),
        ("local", {"type": "none", "device": "/srv/data", "o": "bind"}, False, True),
        ("rexray", None, False, False),
    ],
)
def test_what_both_hosts_have_and_what_a_plugin_keeps_stays(
    driver: str, options: dict[str, str] | None, shared: bool, travels: bool, tmp_path: Path
) -> None:
    [found] = _of(
        [_mount("volume", tmp_path, "/data", Name="data", Driver=driver)],
        found={"data": {"Driver": driver, "Options": options}},
        others=(_other("backup", uses=("data",)),),
    )
    assert (found["shared"], found["travels"]) == (shared, travels)
    # On a file system of the network others may write on any host.
    assert found["in_use_by"] == ([] if shared else ["backup"])
    assert found["device"] == ("" if shared or not options else options["device"])


def test_a_bind_mount_travels_where_it_is_named(tmp_path: Path) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    for directory in (named, other):
        directory.mkdir()
    found = _of(
        [_mount("bind", named, "/named"), _mount("bind", other, "/other")],
        (f"{named}/",),
        others=(
            _other("inside", _mount("bind", named / "below", "/x")),
            _other("reads", _mount("bind", named, "/x", RW=False)),
            _other("beside", _mount("bind", tmp_path / "named-too", "/x")),
            _other("volume", _mount("volume", named, "/x")),
            _other("web", _mount("bind", named, "/x"), identity=CONTAINER),
        ),
    )
    assert [(entry["travels"], entry["in_use_by"]) for entry in found] == [(True, ["inside"]), (False, [])]
    assert all(entry["create"] is None for entry in found)


def test_a_bind_mount_on_a_file_system_of_the_network_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "filesystem_type", lambda _path: "nfs4")
    [found] = _of([_mount("bind", tmp_path, "/data")])
    assert found["shared"]


def test_what_is_named_and_no_bind_mount_of_it_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        MigrationError, match=r"/srv/none is to be moved but is not a bind mount of container web"
    ) as caught:
        _of([_mount("bind", tmp_path, "/data")], ("/srv/none",))
    assert (caught.value.code, caught.value.details["path"]) == ("bind_mount_unknown", "/srv/none")


def test_what_lies_at_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "renamed").symlink_to("file")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").symlink_to(tmp_path / "file")
    (tmp_path / "link").symlink_to("there")
    os.mkfifo(tmp_path / "pipe")
    forms = {
        name: volumes.form_of(str(tmp_path / name))
        for name in ("file", "there", "there/file", "link", "renamed", "pipe", "no")
    }
    assert forms == {
        "file": volumes.FILE,
        "there": volumes.DIRECTORY,
        # A link with the name of what it leads to.
        "there/file": volumes.FILE,
        "link": volumes.DIRECTORY,
        # It would arrive under another name.
        "renamed": volumes.OTHER,
        "pipe": volumes.OTHER,
        "no": volumes.MISSING,
    }
    assert {name: volumes.form_of(str(tmp_path / name)) for name in forms} == forms
