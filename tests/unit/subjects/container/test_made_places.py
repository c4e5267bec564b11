# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a refusal takes away of the places that it made, and what it leaves because somebody else uses it by then.

Directories, files and mounts are real. The engine is a table of containers; its volumes are directories.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import left_data
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import armed_start
from ansible_collections.livemigrate.criu.plugins.module_utils._host import namespaces
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
    destination as facts_of_destination,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import creation, made_places
from tests.unit.docker.spec.samples import IMAGE, container
from tests.unit.helpers import moved
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to, race

MakeSession = Callable[..., Session]

pytestmark = pytest.mark.usefixtures("host_roots")

WEB = "e" * 64


class Host:
    """An engine with containers and volumes, on which a copy can be made."""

    api_version = "1.51"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.table: list[dict[str, Any]] = []
        self.copy: dict[str, Any] | None = None
        self.asked_who = 0

    @property
    def engine(self) -> Any:
        return self

    # -- what the tests do ---------------------------------------------------------------------------------------

    def has(self, name: str, source: str | Path, *, state: str = "running", identity: str = WEB, **mount: Any) -> None:
        """A container of this host mounts something."""
        mount = {"Type": "bind", "Source": str(source), "RW": True, **mount}
        found = {"Id": identity, "Names": [f"/{name}"], "State": state, "Mounts": [mount]}
        self.table.append(found)

    # -- the engine ----------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        return {"Runtimes": {"livemigrate": {}}}

    def containers(self, _filters: object = None, *, running: bool = False) -> list[dict[str, Any]]:
        self.asked_who += 1
        return [one for one in self.table if one["State"] == "running" or not running]

    def find(self, name: str) -> dict[str, Any] | None:
        if self.copy and name in (self.copy["Id"], self.copy["Name"].lstrip("/")):
            return self.copy
        for one in self.table:
            if name in (one["Id"], one["Names"][0].lstrip("/")):
                state = {"Running": one["State"] == "running", "Status": one["State"]}
                return {"Id": one["Id"], "Name": one["Names"][0], "State": state, "Image": "another"}
        return None

    def inspect(self, name: str) -> dict[str, Any]:
        found = self.find(name)
        assert found is not None
        return found

    def create(self, name: str, _body: dict[str, Any]) -> str:
        upper = self.root / "upper"
        upper.mkdir(exist_ok=True)
        graph = {"Name": "overlay2", "Data": {"UpperDir": str(upper)}}
        state = {"Running": False, "Status": "created"}
        self.copy = container(Id=OTHER_CONTAINER, Name=f"/{name}", State=state, GraphDriver=graph)
        return OTHER_CONTAINER

    def remove(self, _container: str) -> None:
        self.copy = None

    def rename(self, *_arguments: object) -> None: ...

    def find_image(self, _reference: str) -> dict[str, Any]:
        return {"Id": IMAGE, "RepoTags": []}

    def find_network(self, _name: str) -> None: ...

    def remove_network(self, _name: str) -> None: ...

    def create_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        (self.root / "volumes" / body["Name"] / "_data").mkdir(parents=True, exist_ok=True)
        found = self.find_volume(body["Name"])
        assert found is not None
        return found

    def find_volume(self, name: str) -> dict[str, Any] | None:
        place = self.root / "volumes" / name / "_data"
        return {"Name": name, "Driver": "local", "Mountpoint": str(place), "Options": {}} if place.exists() else None

    def remove_volume(self, name: str) -> None:
        shutil.rmtree(self.root / "volumes" / name)


@pytest.fixture
def host(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (disk / "bin").mkdir()
    program = disk / "bin" / "systemctl"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(disk / "bin"), prepend=":")
    monkeypatch.setattr(armed_start, "arm", lambda *_arguments: None)
    (disk / "srv").mkdir()
    return Host(disk)


@pytest.fixture
def srv(host: Host) -> Path:
    """The directory of the destination in which bind mounts lie."""
    return host.root / "srv"


def _bind(path: Path, form: str = "directory") -> dict[str, Any]:
    names = {"path": str(path), "name": str(path), "destination": "/data", "form": form}
    return {**_volume("none"), "kind": "bind", **names, "create": None}


def _volume(name: str) -> dict[str, Any]:
    body = {"Name": name, "Driver": "local", "DriverOpts": {}, "Labels": {}}
    kind = {
        "kind": "volume",
        "name": name,
        "path": "/nowhere",
        "destination": "/v",
        "travels": True,
        "form": "directory",
    }
    return {**kind, "driver": "local", "options": "", "device": "", "shared": False, "create": body}


@pytest.fixture
def described(make_session: MakeSession, host: Host) -> Callable[..., Session]:
    """A function that opens a session to which the description of a container with these volumes has come."""

    def make(*entries: dict[str, Any], ignore: tuple[str, ...] = (), above: Any = None, **facts: Any) -> Session:
        session = make_session(DESTINATION, engine="runtime", data_root=str(host.root), **facts)
        image = {"id": IMAGE, "reference": "app:1", "tags": ["app:1"], "digests": []}
        spec = {"inspect": container(), "image": image, "volumes": list(entries), "networks": [], "memory_bytes": 1}
        spec["ignore_rules"] = list(ignore)
        spec["parents"] = above or {}
        Path(session.memory_path("inbox")).mkdir()
        durable.write_json(session.memory_path("inbox", "spec.json"), spec)
        return session

    return make


@pytest.fixture
def incoming(described: Callable[..., Session], host: Host) -> Callable[..., Session]:
    """A function that makes room for a container with these volumes, as the destination does it: incoming(*entries)."""

    def make(*entries: dict[str, Any], **facts: Any) -> Session:
        session = described(*entries, **facts)
        creation.create(session, host.engine)
        assert session.phase == "created"
        return session

    return make


def _refuse(session: Session, host: Host) -> list[str]:
    """As the watchdog does; returns what it tells of what was left."""
    assert destination.refuse(moved.copy(session, host.engine), "it failed") == REFUSED
    assert session.phase == "refused"
    return session_stories.left(session)


def _live(directory: Path) -> Path:
    """What somebody else has put into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "live").write_text("live")
    return directory / "live"


# -- what is not begun -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["it comes back", "it comes for the first time"])
def test_nothing_arrives_in_a_directory_that_a_running_container_uses(
    when: str, make_session: MakeSession, incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """Content that an earlier move has left counts as the container's own, and a spool directory may be empty for a moment.

    It was overwritten by rsync --delete. The rule can be ignored, and the room is not made all the same.
    """
    (srv / "web").mkdir()
    facts: dict[str, Any] = {}
    if when == "it comes back":
        _live(srv / "web")
        earlier = _moved_away(make_session, _bind(srv / "web"))
        facts["ancestry"] = [CONTAINER]
        host.has(f"one-moved-{earlier.id}", srv / "web", state="exited", identity=CONTAINER)
        # The container's own old copy does not stand in the way.
        _refuse(incoming(_bind(srv / "web"), **facts), host)
    host.has("other", srv / "web")
    with pytest.raises(MigrationError) as caught:
        incoming(_bind(srv / "web"), ignore=("bind_used_there",), **facts)
    assert caught.value.code == "bind_used_there"
    assert "container(s) other" in caught.value.message


def _moved_away(make_session: MakeSession, entry: dict[str, Any], path: Path | None = None, **facts: Any) -> Session:
    """The container was here, with a volume or bind mount, and was moved away.

    :param path: where the volume lies.
    """
    place = str(path or entry["path"])
    facts = {"left_data": {entry["name"]: left_data.note(place)}, **facts}
    earlier = make_session(SOURCE, container=CONTAINER, container_name="one", volumes=[entry["name"]], **facts)
    bring_to(earlier, "committed")
    return earlier


def _place_of(kind: str, host: Host) -> tuple[Path, dict[str, Any]]:
    """A place with content that a container can have, and the entry about it."""
    if kind == "volume":
        host.create_volume({"Name": "data"})
        place = host.root / "volumes" / "data" / "_data"
        _live(place)
        return place, _volume("data")
    place = host.root / "srv" / "data"
    if kind == "file":
        place.write_text("live")
        return place, _bind(place, "file")
    _live(place)
    return place, _bind(place)


@pytest.mark.parametrize("kind", ["volume", "directory", "file"])
def test_what_the_container_has_left_is_its_own(
    kind: str, make_session: MakeSession, incoming: Callable[..., Session], host: Host
) -> None:
    place, entry = _place_of(kind, host)
    _moved_away(make_session, entry, place)
    incoming(entry, ancestry=[CONTAINER])


@pytest.mark.parametrize("kind", ["volume", "directory", "file"])
@pytest.mark.parametrize("how", ["made anew", "record of an older version"])
def test_what_has_come_in_the_place_of_what_the_container_has_left_is_not_overwritten(
    how: str, kind: str, make_session: MakeSession, incoming: Callable[..., Session], host: Host
) -> None:
    """Somebody has removed it, and another project has made one of the same name. rsync --delete emptied it."""
    place, entry = _place_of(kind, host)
    _moved_away(make_session, entry, place, **({} if how == "made anew" else {"left_data": {}}))
    if how == "made anew":
        if kind == "file":
            place.unlink()
        else:
            shutil.rmtree(place.parent if kind == "volume" else place)
        _place_of(kind, host)
    with pytest.raises(MigrationError) as caught:
        incoming(entry, ancestry=[CONTAINER])
    assert caught.value.code == "foreign_data"
    assert "migrate_overwrite_data" in caught.value.message


def _comes_in(name: str, host: Host) -> dict[str, Any]:
    """An entry of a place that is not there yet, or is empty."""
    srv = host.root / "srv"
    if name == "volume":
        host.create_volume({"Name": "data"})
    (srv / "empty").mkdir(exist_ok=True)
    (host.root / "link").symlink_to("srv/empty")
    return {
        "volume": _volume("data"),
        "new volume": _volume("data"),
        "directory": _bind(srv / "empty"),
        "by another name": _bind(host.root / "link"),
        "in it": _bind(srv / "empty" / "deep"),
        "new directory": _bind(srv / "new"),
        "volume's directory": _bind(host.root / "volumes" / "data" / "_data"),
    }[name]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("volume", "volume"),
        ("new volume", "new volume"),
        ("directory", "directory"),
        ("directory", "by another name"),
        ("directory", "in it"),
        ("in it", "directory"),
        ("new directory", "new directory"),
        ("volume", "volume's directory"),
    ],
)
def test_two_moves_bring_nothing_into_one_place(
    first: str, second: str, incoming: Callable[..., Session], host: Host
) -> None:
    """Both found it empty, and each deleted what the other had sent. That can be ignored as little as a container there."""
    one = incoming(_comes_in(first, host), container="c" * 64)
    (host.root / "link").unlink()
    entry = _comes_in(second, host)
    code = "volume_used_there" if entry["kind"] == "volume" else "bind_used_there"
    with pytest.raises(MigrationError) as caught:
        incoming(entry, container="d" * 64, ignore=(code, "foreign_data"))
    assert code in [finding["rule"] for finding in caught.value.details["findings"]]
    assert f"session {one.id}" in caught.value.message
    # When it has ended here another one may come.
    _refuse(one, host)
    incoming(entry, container="e" * 64)


def test_two_moves_that_look_at_one_moment_do_not_both_find_a_place_free(
    described: Callable[..., Session], host: Host, srv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (srv / "empty").mkdir()
    gather = facts_of_destination.gather

    def slowly(*arguments: Any, **keywords: Any) -> Any:
        found = gather(*arguments, **keywords)
        time.sleep(0.5)
        return found

    monkeypatch.setattr(facts_of_destination, "gather", slowly)
    sessions = [described(_bind(srv / "empty"), container=letter * 64) for letter in "cd"]

    def create(number: int) -> str:
        creation.create(sessions[number], host.engine)
        return sessions[number].phase

    assert sorted(race(2, create)) == [("error", "bind_used_there"), ("ok", "created")]


# -- what is taken away ------------------------------------------------------------------------------------------


def test_all_that_was_made_and_sent_goes(incoming: Callable[..., Session], host: Host, srv: Path) -> None:
    (srv / "empty").mkdir()
    file = srv / "deep" / "etc" / "app.conf"
    session = incoming(
        *(_bind(srv / "shop" / "db"), _bind(srv / "shop" / "db" / "wal"), _bind(srv / "empty"), _bind(file, "file")),
        _volume("data"),
    )
    assert file.read_text() == ""
    for place in (srv / "shop" / "db", srv / "shop" / "db" / "wal", srv / "empty", host.root / "volumes/data/_data"):
        (place / "sub").mkdir()
        (place / "sub" / "sent").touch()
    assert _refuse(session, host) == []
    assert [path.name for path in srv.iterdir()] == ["empty"]
    assert list((srv / "empty").iterdir()) == []
    assert list((host.root / "volumes").iterdir()) == []


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("kind", ["directory", "volume"])
def test_an_empty_place_is_given_back_as_it_was(
    kind: str, incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """rsync gives it the owner, mode, access list and attributes that it has on the source."""
    if kind == "volume":
        host.create_volume({"Name": "data"})
    place, entry = (
        (srv / "empty", _bind(srv / "empty"))
        if kind == "directory"
        else (host.root / "volumes/data/_data", _volume("data"))
    )
    place.mkdir(exist_ok=True)
    os.chown(place, 33, 34)
    place.chmod(0o2750)
    os.setxattr(place, "user.mine", b"kept")
    access = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *one)
        for one in ((1, 7, 0xFFFFFFFF), (2, 5, 33), (4, 0, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    )
    os.setxattr(place, "system.posix_acl_access", access)
    before = _attributes_of(place)
    session = incoming(entry)
    source = host.root / "source"
    source.mkdir(mode=0o777)
    (source / "sent").touch()
    os.setxattr(source, "user.other", b"sent")
    os.setxattr(source, "system.posix_acl_default", access)
    argv = ["rsync", *channel_client.RSYNC_ARCHIVE, f"{source}/", f"{place}/"]
    subprocess.run(argv, check=True, capture_output=True)
    assert _attributes_of(place) != before
    assert _refuse(session, host) == []
    assert list(place.iterdir()) == []
    assert _attributes_of(place) == before


def _attributes_of(path: Path) -> tuple[Any, ...]:
    status = path.stat()
    xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return status.st_uid, status.st_gid, oct(status.st_mode), status.st_mtime_ns, xattrs


def test_a_refusal_is_repeated_where_it_was_cut_off(
    incoming: Callable[..., Session], host: Host, srv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that does not answer has removed nothing, and hidden nothing from the next look."""
    session = incoming(_bind(srv / "shop" / "db"))
    live = _live(srv / "shop" / "db")
    host.has("web", srv / "shop" / "db", state="created")

    def fails(*_arguments: object, **_keywords: object) -> None:
        raise MigrationError("engine_unreachable", "The Docker engine does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(host, "containers", fails)
        with pytest.raises(MigrationError):
            destination.refuse(moved.copy(session, host.engine), "it failed")
    assert session.phase == "created"
    assert len(_refuse(session, host)) == 1
    assert live.exists()


# -- what is left ------------------------------------------------------------------------------------------------


def test_a_directory_of_another_container_below_one_that_was_made_stays(
    incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """`/srv/shop` was missing; while db is on its way web is moved to /srv/shop/web, and runs there."""
    session = incoming(_bind(srv / "shop" / "db"))
    (srv / "shop" / "db" / "sent").touch()
    live = _live(srv / "shop" / "web")
    assert _refuse(session, host) == []
    assert live.read_text() == "live"
    assert not (srv / "shop" / "db").exists()


@pytest.mark.parametrize("state", ["running", "created", "exited"])
@pytest.mark.parametrize("mounted", ["srv/shop/db", "srv/shop/db/sub", "srv/shop", "link/shop/db"])
def test_what_another_container_mounts_stays_and_is_reported(
    mounted: str, state: str, incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """A person has restored a backup there and has made a container on it, whether it runs or not."""
    session = incoming(_bind(srv / "shop" / "db"))
    live = _live(srv / "shop" / "db")
    (host.root / "link").symlink_to("srv")
    host.has("web", host.root / mounted, state=state)
    [reported] = _refuse(session, host)
    assert reported == f"{srv}/shop/db was left as it is: container(s) of this host mount it (web)."
    assert live.read_text() == "live"


def test_who_mounts_what_was_there_before_keeps_nothing(
    incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """An agent that looks at all of the host."""
    session = incoming(_bind(srv / "shop" / "db"))
    host.has("agent", "/", RW=False)
    host.has("files", srv, identity="f" * 64)
    assert _refuse(session, host) == []
    assert list(srv.iterdir()) == []


def test_a_directory_that_is_empty_and_mounted_stays_on_the_way(
    incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """It would not start without it."""
    session = incoming(_bind(srv / "shop" / "db"))
    (srv / "shop" / "db").rmdir()
    host.has("web", srv / "shop", state="created")
    assert len(_refuse(session, host)) == 1
    assert (srv / "shop").is_dir()


def test_an_empty_place_that_another_container_uses_is_not_emptied(
    incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    (srv / "web").mkdir()
    session = incoming(_bind(srv / "web"))
    live = _live(srv / "web")
    host.has("web", srv / "web")
    [reported] = _refuse(session, host)
    assert reported.startswith(f"{srv}/web was left as it is: container(s) of this host mount it (web)")
    assert live.exists()


def test_a_volume_that_is_another_name_for_the_directory_counts(
    incoming: Callable[..., Session], host: Host, srv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (srv / "web").mkdir()
    session = incoming(_bind(srv / "web"))
    live = _live(srv / "web")
    bound = {"Mountpoint": "/nowhere", "Options": {"type": "none", "o": "bind", "device": str(srv / "web")}}
    monkeypatch.setattr(host, "find_volume", lambda _name: bound)
    # The engine does not say where it lies as long as the container has not been started.
    host.has("web", "", state="created", Type="volume", Name="bound")
    assert "mount it (web)" in _refuse(session, host)[0]
    assert live.exists()


@pytest.mark.parametrize("why", ["used", "mounted by its path", "made anew"])
def test_a_volume_that_is_somebody_s_stays(why: str, incoming: Callable[..., Session], host: Host) -> None:
    session = incoming(_volume("data"))
    place = host.root / "volumes" / "data" / "_data"
    if why == "used":
        host.has("web", place, state="exited", Type="volume", Name="data")
    elif why == "mounted by its path":
        host.has("web", place)
    else:
        shutil.rmtree(place.parent)
    live = _live(place)
    [reported] = _refuse(session, host)
    assert reported.startswith("Volume data was left as it is")
    assert live.exists()


def test_the_old_copy_of_the_container_itself_keeps_nothing_unless_somebody_has_started_it(
    make_session: MakeSession, incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """It went away from here before, and mounts the same directory."""
    earlier = bring_to(make_session(SOURCE, container=WEB, container_name="one"), "committed")
    for running in (False, True):
        (srv / "web").mkdir()
        session = incoming(_bind(srv / "web"), ancestry=[CONTAINER, WEB])
        (srv / "web" / "sent").touch()
        host.has(f"one-moved-{earlier.id}", srv / "web", state="running" if running else "exited")
        assert bool(_refuse(session, host)) is running
        assert bool(list((srv / "web").iterdir())) is running
        session.close(keep=True)
        host.table.clear()
        shutil.rmtree(srv / "web")


def test_a_directory_that_was_made_anew_stays(incoming: Callable[..., Session], host: Host, srv: Path) -> None:
    """A person makes room for a backup first (rm -rf, tar -x). ext4 gives the new directory the number of the old one."""
    (srv / "empty").mkdir()
    session = incoming(_bind(srv / "db"), _bind(srv / "empty"))
    for place in (srv / "db", srv / "empty"):
        place.rmdir()
        _live(place)
    reported = _refuse(session, host)
    assert [one.partition(" was left as it is: it is not the one")[0] for one in reported] == [
        f"{srv}/empty",
        f"{srv}/db",
    ]
    assert (srv / "db" / "live").exists()
    assert (srv / "empty" / "live").exists()


def test_numbers_that_are_used_again_are_distinguished(disk: Path) -> None:
    """If this fails where the test of the move above does not, the disk of this machine tells no generations."""
    place = disk / "place"
    place.mkdir()
    before, numbers = durable.lasting_identity(str(place)), durable.identity(str(place))
    assert before is not None
    if len(before) == 2:
        pytest.skip("this file system has no third number")
    place.rmdir()
    place.mkdir()
    assert durable.lasting_identity(str(place)) != before
    # What older sessions have noted counts as it did.
    with durable.same_directory(str(place), durable.identity(str(place))):
        pass
    if numbers == durable.identity(str(place)):
        with pytest.raises(OSError, match="another directory"), durable.same_directory(str(place), before):
            pass


def test_a_directory_that_another_session_made_at_the_same_moment_is_not_ours(srv: Path) -> None:
    noted = made_places.missing_directories([_bind(srv / "shop" / "db")])
    live = _live(srv / "shop" / "db")
    made = made_places.make_directories(noted)
    assert made == {}
    others: Any = None
    [reported] = made_places.remove_directories(noted, made, others)
    assert "somebody else's" in reported
    assert live.exists()


def test_a_link_in_the_place_of_a_directory_is_left(incoming: Callable[..., Session], host: Host, srv: Path) -> None:
    """Whose directory it lies in may put one there."""
    elsewhere = srv / "elsewhere"
    live = _live(elsewhere / "db")
    for swapped in ("shop", "shop/db"):
        session = incoming(_bind(srv / "shop" / "db"))
        (srv / swapped).rename(srv / "away")
        (srv / swapped).symlink_to(elsewhere if swapped == "shop" else elsewhere / "db")
        assert _refuse(session, host)
        assert live.exists()
        (srv / swapped).unlink()
        shutil.rmtree(srv / "away")
        shutil.rmtree(srv / "shop", ignore_errors=True)
        session.close(keep=True)


def _in_own_mounts(work: Callable[[], None]) -> None:
    """Do something in a process that has mounts of its own."""

    def child() -> None:
        namespaces.call("unshare", 0x00020000)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.usefixtures("needs_namespaces")
def test_a_volume_is_known_after_a_boot_that_numbers_file_systems_anew(
    incoming: Callable[..., Session], host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = incoming(_volume("data"))
    known = durable.lasting_identity

    def numbered_anew(path: str | int) -> list[int] | None:
        found = known(path)
        return found and [found[0] + 1, *found[1:]]

    monkeypatch.setattr(durable, "lasting_identity", numbered_anew)
    destination.refuse(moved.copy(session, host), "a test")
    assert not (host.root / "volumes" / "data").exists()


@pytest.mark.parametrize("place", ["made", "empty", "volume"])
def test_what_is_mounted_in_a_place_is_not_looked_into(
    place: str, incoming: Callable[..., Session], host: Host, srv: Path
) -> None:
    """A person has mounted the disk with the backup below the directory."""
    backup = _live(srv / "backup")
    if place == "empty":
        (srv / "empty").mkdir()
    session = incoming(_volume("data") if place == "volume" else _bind(srv / place))
    directory = host.root / "volumes" / "data" / "_data" if place == "volume" else srv / place

    def work() -> None:
        (directory / "disk").mkdir()
        subprocess.run(["mount", "--bind", srv / "backup", directory / "disk"], check=True)
        [reported] = _refuse(session, host)
        assert "something is mounted in it" in reported
        assert (directory / "disk" / "live").exists()

    _in_own_mounts(work)
    assert backup.exists()


# -- older sessions ----------------------------------------------------------------------------------------------


def test_of_what_an_older_session_has_noted_only_what_is_empty_goes(
    make_session: MakeSession, host: Host, srv: Path
) -> None:
    """It noted the uppermost directory alone, or, still older, nothing but paths."""
    for content in (False, True):
        session = make_session(DESTINATION, engine="runtime", data_root=str(host.root))
        (srv / "shop").mkdir()
        (srv / "old").mkdir()
        (srv / "old" / "file").touch()
        if content:
            _live(srv / "shop" / "web")
        session.enter(
            "creating",
            name="web",
            volumes=[],
            networks=[],
            made_directories=[{"path": str(srv / "shop"), "around": durable.identity(str(srv))}, str(srv / "old")],
            empty_directories=[str(srv / "old")],
        )
        session.enter("created", container_id=OTHER_CONTAINER)
        assert len(_refuse(session, host)) == content
        assert (srv / "shop").exists() is content
        assert (srv / "old" / "file").exists()
        session.close(keep=True)
        shutil.rmtree(srv / "old")


# -- telling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True])
def test_the_record_of_what_was_left_stays_for_people(
    left: bool, incoming: Callable[..., Session], host: Host, srv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    monkeypatch.setattr(channel_server, "revoke", lambda _session: None)
    session = incoming(_bind(srv / "db"))
    if left:
        host.has("web", srv / "db")
    with session.locked(alive=False):
        destination.settle(moved.copy(session, host.engine))
    # As long as the source has not heard.
    assert ("mount it (web)" in session_stories.story(session)) is left
    for _again in range(1 + left):
        with session.locked(alive=False):
            destination.settle(moved.copy(session, host.engine), source_knows=True)
        assert os.path.exists(session.directory) is left
    if left:
        assert not session_stories.is_unknown_to_source(session), "nobody has to hear it any more"
        reported = session_stories.story(session)
        assert reported.startswith("refused here; the container stayed on beta. ")
        assert "mount it (web)" in reported


def test_a_record_that_was_kept_for_a_source_stays_for_people_when_it_knows(
    incoming: Callable[..., Session], host: Host, srv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "disarm", lambda _session: None)
    monkeypatch.setattr(channel_server, "revoke", lambda _session: None)
    monkeypatch.setattr(channel_server, "KEY_LIFE_SECONDS", -1)
    session = incoming(_bind(srv / "db"))
    host.has("web", srv / "db")
    with session.locked(alive=False):
        destination.settle(moved.copy(session, host.engine))
    assert session_stories.is_unknown_to_source(session)
    for _again in range(2):
        destination.settle(moved.copy(session, host.engine), source_knows=True)
        assert not session_stories.is_unknown_to_source(session)
        assert "mount it (web)" in session_stories.story(session)
