# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single files that a container mounts: over the wire with the real rsync, into their place on the destination, and away."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import volumes as docker_volumes
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import bound_files
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import transfer
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import made_places, trees
from tests.unit.helpers.wire import Wire

MODE = 0o4640
OWNER = (1234, 4321)


class NoContainers:
    """An engine of a host on which nobody uses the file."""

    def containers(self, *, running: bool = False) -> list[dict[str, Any]]:  # noqa: ARG002
        return []


class Ends:
    """A file on the source, and its place on the destination."""

    def __init__(self, wire: Wire, root: Path) -> None:
        self._wire = wire
        self.source = root / "here" / "app.conf"
        self.place = root / "there" / "etc" / "app.conf"
        self.source.parent.mkdir()
        # What nobody has asked for.
        (self.source.parent / "secret").write_text("secret")

    def prepare(self) -> None:
        """What the destination does when it makes the container."""
        made = not self.place.exists()
        self.arrival = Path(bound_files.arrival(self._wire.destination, 0, str(self.place)))
        around = durable.identity(str(self.place.parent))
        files = [{"path": str(self.place), "arrival": str(self.arrival), "made": made, "around": around}]
        self._wire.destination.enter("creating", files=files, made_directories=[])
        assert bound_files.make_place(self._wire.destination, 0, str(self.place)) == str(self.arrival)
        self.name_place()

    def name_place(self) -> None:
        channel_server.set_targets(self._wire.destination, {"bind/0": str(self.arrival)}, ["bind/0"])

    def send(self, *, running: bool) -> None:
        transfer.send_trees(self._wire.source, [trees.bind_file(0, str(self.source))], running=running)

    def adopt(self) -> None:
        bound_files.adopt(self._wire.destination)

    def discard(self) -> list[str]:
        """What a refusal does; returns what it has left."""
        nobody: Any = NoContainers()
        return made_places.take_away(self._wire.destination, nobody)


@pytest.fixture
def ends(wire: Wire, disk: Path) -> Ends:
    found = Ends(wire, disk)
    found.source.write_text("first")
    os.chown(found.source, *OWNER)
    found.source.chmod(MODE)
    found.place.parent.mkdir(parents=True, mode=0o751)
    return found


def test_a_file_takes_its_place_with_all_that_is_known_of_it(ends: Ends) -> None:
    os.setxattr(ends.source, "user.kept", b"yes")
    os.utime(ends.source, (1_000_000_000, 1_000_000_000))
    around = ends.place.parent.stat()
    ends.prepare()
    ends.send(running=True)
    # The engine makes no container without it; nobody sees what is to come before it is whole.
    assert ends.place.read_text() == ""
    assert ends.place.stat().st_mode & 0o777 == 0o600
    status = ends.source.stat()
    ends.source.write_text("other")
    os.chown(ends.source, *OWNER)
    ends.source.chmod(MODE)
    os.utime(ends.source, ns=(status.st_atime_ns, status.st_mtime_ns))
    ends.send(running=False)
    ends.adopt()
    arrived = ends.place.stat()
    assert ends.place.read_text() == "other"
    assert (arrived.st_uid, arrived.st_gid, arrived.st_mode & 0o7777) == (*OWNER, MODE)
    assert arrived.st_mtime == 1_000_000_000
    assert os.getxattr(ends.place, "user.kept") == b"yes"
    # Nothing else, and nothing of the directory around it.
    assert [path.name for path in ends.place.parent.iterdir()] == ["app.conf"]
    after = ends.place.parent.stat()
    assert (after.st_mode, after.st_uid) == (around.st_mode, around.st_uid)
    ends.adopt()
    assert ends.place.read_text() == "other"


def test_a_file_arrives_in_a_directory_that_travels_too(ends: Ends, wire: Wire) -> None:
    """As in `.:/app` beside `./app.conf:/etc/app.conf`: what the destination has there and the source has not is deleted."""
    ends.place.write_text("of an earlier move")
    (ends.place.parent / "gone").touch()
    ends.prepare()
    targets = {"bind/0": str(ends.arrival), "bind/1": str(ends.place.parent)}
    channel_server.set_targets(wire.destination, targets, ["bind/0"])
    for running in (True, False):
        transfer.send_trees(wire.source, [trees.bind(1, str(ends.source.parent))], running=running)
        assert ends.arrival.is_dir()
        ends.send(running=running)
    ends.adopt()
    assert ends.place.read_text() == "first"
    assert sorted(path.name for path in ends.place.parent.iterdir()) == ["app.conf", "secret"]


def test_a_file_arrives_in_a_directory_that_a_group_shares(ends: Ends) -> None:
    """Directories that are made in one with the set-group-id bit have that bit too."""
    os.chown(ends.place.parent, 0, OWNER[1])
    ends.place.parent.chmod(0o2775)
    ends.prepare()
    ends.send(running=False)
    ends.adopt()
    assert ends.place.read_text() == "first"


def test_a_link_of_the_same_name_is_what_it_leads_to(ends: Ends) -> None:
    real = ends.source.parent / "real" / "app.conf"
    real.parent.mkdir()
    ends.source.rename(real)
    ends.source.symlink_to("real/app.conf")
    ends.prepare()
    ends.send(running=False)
    ends.adopt()
    assert not ends.place.is_symlink()
    assert ends.place.read_text() == "first"


def test_what_is_refused_leaves_nothing(ends: Ends) -> None:
    for adopted in (False, True):
        ends.prepare()
        ends.send(running=True)
        if adopted:
            ends.adopt()
        assert ends.discard() == []
        assert list(ends.place.parent.iterdir()) == []


@pytest.mark.parametrize("adopted", [False, True])
def test_a_file_that_somebody_else_has_put_there_stays_when_it_is_refused(adopted: bool, ends: Ends) -> None:
    """A person restores a backup while the source is silent: it is neither the file that kept the place nor the one that came."""
    ends.prepare()
    ends.send(running=True)
    if adopted:
        ends.adopt()
    restored = ends.place.with_name("restored")
    restored.write_text("of a backup")
    restored.rename(ends.place)
    [reported] = ends.discard()
    assert reported.startswith(f"{ends.place} was left as it is: it is none that this session has made or sent")
    assert ends.place.read_text() == "of a backup"
    assert [path.name for path in ends.place.parent.iterdir()] == ["app.conf"]


def test_a_file_that_was_there_before_stays_when_it_is_refused(ends: Ends) -> None:
    ends.place.write_text("of an earlier move")
    ends.prepare()
    ends.send(running=True)
    ends.discard()
    assert ends.place.read_text() == "of an earlier move"
    assert [path.name for path in ends.place.parent.iterdir()] == ["app.conf"]


def test_only_a_file_takes_the_place(ends: Ends) -> None:
    ends.prepare()
    (ends.arrival / "app.conf").symlink_to("/etc/passwd")
    ends.adopt()
    assert not ends.place.is_symlink()
    assert ends.place.read_text() == ""


@pytest.mark.parametrize("when", ["before it arrives", "before it takes its place"])
def test_who_may_change_the_directory_around_leads_nothing_elsewhere(when: str, ends: Ends, tmp_path: Path) -> None:
    """A file of a user's directory, say: nothing of root's is written or taken through a link in the place of ours."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o755)
    ends.source.write_text("of the container")
    ends.prepare()
    if when == "before it takes its place":
        ends.send(running=False)
        (elsewhere / "app.conf").write_text("of root")
    ends.arrival.rename(tmp_path / "away")
    ends.arrival.symlink_to(elsewhere)
    if when == "before it arrives":
        with pytest.raises(MigrationError):
            ends.send(running=False)
        assert list(elsewhere.iterdir()) == []
    ends.adopt()
    assert ends.place.read_text() == ""
    assert [path.read_text() for path in elsewhere.iterdir()] == ["of root"] * (when == "before it takes its place")


def test_a_link_that_is_there_when_the_place_is_named_is_no_place(ends: Ends, tmp_path: Path) -> None:
    ends.source.write_text("of the container")
    ends.prepare()
    ends.arrival.rmdir()
    ends.arrival.symlink_to(tmp_path)
    ends.name_place()
    with pytest.raises(MigrationError):
        ends.send(running=False)
    assert not (tmp_path / "app.conf").exists()


def test_a_file_stays_in_the_directory_in_which_it_has_arrived(ends: Ends, tmp_path: Path) -> None:
    """Which its owner has given another name, and a link to another one of root's has come in its place."""
    ends.source.write_text("of the container")
    ends.prepare()
    ends.send(running=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "app.conf").write_text("of root")
    ends.place.parent.rename(tmp_path / "away")
    (elsewhere / ends.arrival.name).symlink_to(tmp_path / "away" / ends.arrival.name)
    ends.place.parent.symlink_to(elsewhere)
    ends.adopt()
    assert (elsewhere / "app.conf").read_text() == "of root"


def test_forms(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "same").touch()
    for link, target in {"same": "sub/same", "other": "file", "dir": "sub", "broken": "nowhere"}.items():
        (tmp_path / link).symlink_to(target)
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    forms = {
        "file": docker_volumes.FILE,
        "same": docker_volumes.FILE,
        "sub": docker_volumes.DIRECTORY,
        "dir": docker_volumes.DIRECTORY,
        **dict.fromkeys(("other", "fifo", "socket"), docker_volumes.OTHER),
        **dict.fromkeys(("broken", "none"), docker_volumes.MISSING),
    }
    assert {name: docker_volumes.form_of(str(tmp_path / name)) for name in forms} == forms
    assert docker_volumes.form_of("/dev/null") == docker_volumes.OTHER


def test_a_directory_behind_a_link_is_looked_through(tmp_path: Path) -> None:
    """find(1) does not follow a link that it is given, unless it is told to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    # The kernel's times lag behind its clock by a tick.
    time.sleep(0.1)
    since = time.time()
    tree = trees.bind(0, str(tmp_path / "link"))
    assert not transfer._touched(tree, since)
    time.sleep(0.1)
    (tmp_path / "real" / "file").write_text("x")
    assert transfer._touched(tree, since)
