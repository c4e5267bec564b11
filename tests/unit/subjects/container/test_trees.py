# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which directories of a container travel, under which names, and that everything in them arrives: through the real rsync,
into a real overlay."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.tree import Tree
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import directories
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import trees
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER
from tests.unit.helpers.wire import Wire

# From Linux' uapi headers: version 2 capabilities, permitted and effective CAP_NET_BIND_SERVICE (10).
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
# A posix_acl_xattr of version 2: user rwx, user 12345 r--, group r--, mask r--, other ---.
ACL = bytes.fromhex("0200000001000700ffffffff020004003930000004000400ffffffff10000400ffffffff20000000ffffffff")


def _inspect(**changes: Any) -> dict[str, Any]:
    return {
        "Id": CONTAINER,
        "Name": "/web",
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/var/lib/docker/overlay2/x/diff"}},
        "HostConfig": {"LogConfig": {"Type": "json-file"}},
        **changes,
    }


def _attributes(path: Path) -> dict[str, str]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)
    }


def snapshot(root: Path) -> dict[str, Any]:
    """All that a file system knows of a directory's content, but for inode numbers."""
    found: dict[str, Any] = {}
    names: dict[int, list[str]] = {}
    for path in [root, *root.rglob("*")]:
        name = str(path.relative_to(root))
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        entry: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "time": status.st_mtime_ns,
            "attributes": _attributes(path),
        }
        if kind == stat.S_IFREG:
            entry["content"] = hashlib.sha256(path.read_bytes()).hexdigest()
            entry["size"] = status.st_size
            names.setdefault(status.st_ino, []).append(name)
        elif kind == stat.S_IFLNK:
            entry["link"] = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
        found[name] = entry
    for linked in names.values():
        for name in linked:
            found[name]["names"] = sorted(linked)
    return found


# -- which, and where they lie --------------------------------------------------------------------------------------------


def _content(volumes: list[dict[str, Any]]) -> list[Tree]:
    return trees.content(_inspect(HostConfig={"LogConfig": {"Type": "none"}}), "/data", volumes)


@pytest.mark.parametrize("order", ["outer first", "inner first"])
def test_a_bind_mount_that_lies_in_another_one_comes_with_that(order: str, tmp_path: Path) -> None:
    """The numbers of the others stay: by them the destination knows their places."""
    for name in ("app/data", "app-data", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "app" / "conf").touch()
    (tmp_path / "app" / "link").symlink_to(tmp_path / "elsewhere")
    names = ["app", "app/data", "app-data", "app/conf", "app", "app/link"]
    if order == "inner first":
        names[:2] = ["app/data", "app"]
    form = {"app/conf": "file"}
    volumes = [
        {"kind": "bind", "travels": True, "path": str(tmp_path / name), "form": form.get(name, "directory")}
        for name in names
    ]
    found = {tree.target: tree.content for tree in _content(volumes)}
    del found["layer"]
    numbers = {"bind/0" if order == "outer first" else "bind/1": "app", "bind/2": "app-data", "bind/3": "app/conf"}
    numbers["bind/5"] = "app/link"
    assert found == {target: str(tmp_path / name) for target, name in numbers.items()}


def test_both_hosts_count_bind_mounts_in_the_same_way(tmp_path: Path) -> None:
    """A number is all that says which of them a directory is: what does not travel has none, and volumes count apart."""
    kinds = [("volume", True), ("bind", False), ("bind", True), ("volume", False), ("bind", True), ("bind", True)]
    volumes: list[dict[str, Any]] = [
        {
            "kind": kind,
            "name": f"n{number}",
            "path": str(tmp_path / str(number)),
            "travels": travels,
            "form": "directory",
        }
        for number, (kind, travels) in enumerate(kinds)
    ]
    for one in volumes:
        Path(one["path"]).mkdir()
    counted = {one.target: (one.number, one.entry["path"]) for one in trees.travelling(volumes)}
    places = {"volume/n0": (0, "0"), "bind/0": (0, "2"), "bind/1": (1, "4"), "bind/2": (2, "5")}
    assert counted == {target: (number, str(tmp_path / name)) for target, (number, name) in places.items()}
    assert {tree.target: tree.path for tree in _content(volumes)[1:]} == {
        target: path for target, (_number, path) in counted.items()
    }


def test_a_volume_that_is_mounted_at_two_places_is_sent_once() -> None:
    """Two passes at once would each delete what the other is about to write, and share one list of touched files."""
    volume = {"kind": "volume", "name": "data", "path": "/var/lib/docker/volumes/data/_data", "travels": True}
    other = {**volume, "name": "other", "path": "/var/lib/docker/volumes/other/_data"}
    volumes = [{**volume, "destination": "/a"}, {**other, "destination": "/b"}, {**volume, "destination": "/c"}]
    targets = [tree.target for tree in _content(volumes)]
    assert targets == ["layer", "volume/data", "volume/other"]


def _tree(kind: str, path: Path) -> Tree:
    [_layer, tree] = _content([{"kind": kind, "name": "data", "path": str(path), "travels": True, "form": "directory"}])
    return tree


def test_the_writable_layer() -> None:
    assert trees.layer(_inspect())[:2] == ("layer", "/var/lib/docker/overlay2/x/diff")


@pytest.mark.parametrize(
    ("driver", "travels"),
    [("json-file", True), ("local", True), ("journald", False), ("none", False), ("syslog", False)],
)
def test_the_log_travels_where_the_engine_keeps_it_in_files(driver: str, travels: bool) -> None:
    tree = trees.log(_inspect(HostConfig={"LogConfig": {"Type": driver, "Config": {}}}), "/data")
    assert (tree is not None) == travels
    if tree:
        assert tree[:2] == ("log", f"/data/containers/{CONTAINER}")


def test_without_a_log_configuration_there_is_no_log() -> None:
    assert trees.log(_inspect(HostConfig={"LogConfig": None}), "/data") is None


# -- rsync of everything ---------------------------------------------------------------------------------------------


@pytest.fixture
def everything(disk: Path) -> Path:
    """A directory with one of everything that a container may have made."""
    root = disk / "everything"
    (root / "dir" / "deep").mkdir(parents=True)
    (root / "file").write_text("content")
    (root / "dir" / "deep" / "odd na\udcffme\n*").write_bytes(b"\0\xff")
    (root / "empty").write_bytes(b"")
    (root / "hard1").write_text("linked")
    os.link(root / "hard1", root / "dir" / "hard2")
    (root / "soft").symlink_to("/nowhere/ at all")
    (root / "dir" / "updir").symlink_to("..")
    os.mkfifo(root / "pipe", 0o640)
    with (root / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    for number, name in enumerate(("file", "dir", "empty", "soft", "pipe")):
        os.chown(root / name, 100000 + number, 200000 + number, follow_symlinks=False)
    (root / "file").chmod(0o4751)
    (root / "dir").chmod(0o1770)
    os.chmod(root / "empty", 0)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "block", 0o660 | stat.S_IFBLK, os.makedev(7, 9))
    os.setxattr(root / "file", "user.note", b"with\0nul")
    os.setxattr(root / "dir", "trusted.note", b"root's own")
    os.setxattr(root / "hard1", "security.capability", CAPABILITY)
    os.setxattr(root / "dir" / "deep", "system.posix_acl_access", ACL)
    os.setxattr(root / "dir" / "deep", "system.posix_acl_default", ACL)
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(1_234_567_890_123_456_789, 1_234_567_890_987_654_321), follow_symlinks=False)
    return root


@pytest.mark.usefixtures("needs_root")
def test_everything_that_a_file_system_knows_of_a_volume_arrives(everything: Path, wire: Wire) -> None:
    tree = _tree("volume", everything)
    place = wire.prepare(tree.target)
    (place / "file").mkdir()
    (place / "file" / "in the way").write_text("")
    (place / "dir").write_text("in the way")
    (place / "only here").write_text("")
    wire.channel.rsync(tree.path, tree.target, tree.options)
    assert snapshot(place) == snapshot(everything)
    assert (place / "sparse").stat().st_blocks * 512 < 1 << 20, "holes stay holes"


@pytest.mark.usefixtures("needs_root")
def test_a_second_pass_follows_every_change(everything: Path, wire: Wire) -> None:
    tree = _tree("bind", everything)
    place = wire.prepare(tree.target)
    wire.channel.rsync(tree.path, tree.target, tree.options, running=True)
    os.chown(everything / "hard1", 7, 7)  # which drops its capability in the kernel, here and there
    os.setxattr(everything / "hard1", "security.capability", CAPABILITY)
    os.chmod(everything / "file", 0o600)
    (everything / "empty").unlink()
    (everything / "empty").symlink_to("file")
    shutil.rmtree(everything / "dir" / "deep")
    (everything / "pipe").unlink()
    (everything / "pipe").mkdir()
    os.removexattr(everything / "dir", "trusted.note")
    os.link(everything / "file", everything / "file2")
    with (everything / "sparse").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"middle")
    wire.channel.rsync(tree.path, tree.target, tree.options)
    assert snapshot(place) == snapshot(everything)


def test_a_file_written_again_within_the_second_of_the_first_pass_arrives(wire: Wire, disk: Path) -> None:
    source = disk / "data"
    source.mkdir()
    tree = _tree("volume", source)
    place = wire.prepare(tree.target)
    for content, nanoseconds in (("first", 100_000_000), ("later", 900_000_000)):
        (source / "file").write_text(content)
        os.utime(source / "file", ns=(0, 1_795_404_300_000_000_000 + nanoseconds))
        wire.channel.rsync(tree.path, tree.target, tree.options)
        assert (place / "file").read_text() == content


# -- the writable layer ----------------------------------------------------------------------------------------------

NOTES = ("origin", "impure", "uuid", "upper", "nlink")
CONTENT = ("opaque", "redirect", "metacopy", "whiteout")


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("namespace", ["trusted", "user"])
def test_overlay_s_notes_about_its_own_host_stay_and_its_content_travels(
    namespace: str, wire: Wire, disk: Path
) -> None:
    source = disk / "diff"
    source.mkdir()
    (source / "file").write_text("x")
    for path in (source, source / "file"):
        for name in (*NOTES, *CONTENT):
            os.setxattr(path, f"{namespace}.overlay.{name}", b"source")
    tree = trees.layer(_inspect(GraphDriver={"Name": "overlay2", "Data": {"UpperDir": str(source)}}))
    place = wire.prepare("layer")
    (place / "file").write_text("y")
    for path in (place, place / "file"):
        os.setxattr(path, f"{namespace}.overlay.impure", b"destination")
    for running in (True, False):
        wire.channel.rsync(tree.path, tree.target, tree.options, running=running)
        for path in (place, place / "file"):
            arrived = {name: bytes.fromhex(value) for name, value in _attributes(path).items()}
            assert {name for name, value in arrived.items() if value == b"source"} == {
                f"{namespace}.overlay.{name}" for name in CONTENT
            }


# Runs in a mount namespace of its own; prints what a container would see.
_OVERLAY = """
import json, os, shutil, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[2])
from tests.unit.subjects.container.test_trees import snapshot
root, options, change = Path(sys.argv[3]), sys.argv[4], sys.argv[5]
merged = root / "merged"
subprocess.run(["mount", "-t", "overlay", "-o",
    f"{options},lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work", "overlay", str(merged)], check=True)
if change == "change":
    (merged / "etc" / "deleted").unlink()
    shutil.rmtree(merged / "replaced"); (merged / "replaced").mkdir(); (merged / "replaced" / "new").write_text("new")
    shutil.rmtree(merged / "gone")
    with (merged / "etc" / "config").open("a") as file: file.write("changed")
    os.chmod(merged / "etc" / "touched", 0o600)
    os.chown(merged / "owned", 33, 33)
    if "index=off" in options:
        # With an index, names that were linked in the image are kept together by the work directory, which does not travel.
        os.link(merged / "etc" / "hard1", merged / "etc" / "hard3")
        (merged / "etc" / "hard1").write_text("changed through one name")
    if "redirect_dir=on" in options:
        (merged / "moved").rename(merged / "moved away")
    (merged / "new").mkdir(); (merged / "new" / "file").write_text("new")
    (merged / "link").unlink(); (merged / "link").write_text("a file now")
    (merged / "file").unlink(); (merged / "file").mkdir()
os.sync()
print(json.dumps(snapshot(merged)))
"""


def _lower(root: Path) -> None:
    lower = root / "lower"
    for name in ("etc", "replaced", "gone/deep", "moved"):
        (lower / name).mkdir(parents=True)
    for name in (
        "etc/deleted",
        "etc/config",
        "etc/touched",
        "etc/hard1",
        "replaced/old",
        "gone/deep/file",
        "moved/file",
        "owned",
        "file",
    ):
        (lower / name).write_text(name)
    os.link(lower / "etc" / "hard1", lower / "etc" / "hard2")
    (lower / "link").symlink_to("etc/config")
    for name in ("upper", "work", "merged"):
        (root / name).mkdir()


def _mounted(root: Path, options: str, change: str) -> dict[str, Any]:
    checkout = Path(__file__).resolve().parents[4]
    script = [
        "unshare",
        "--mount",
        sys.executable,
        "-c",
        _OVERLAY,
        str(checkout),
        str(checkout / ".tree"),
        str(root),
        options,
        change,
    ]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr and change == "change":
        pytest.skip(f"no overlay can be mounted here: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize(
    "options",
    # Docker's own, and the one where notes about the host do harm.
    ["index=off", "index=on,redirect_dir=on"],
)
def test_a_layer_shows_the_same_files_over_the_same_image_on_another_host(options: str, wire: Wire, disk: Path) -> None:
    here, there = disk / "here", disk / "there"
    for host in (here, there):
        host.mkdir()
        _lower(host)
    before = _mounted(here, options, "change")
    assert "etc/deleted" not in before
    assert "replaced/new" in before
    assert "replaced/old" not in before
    # The other host's engine has had the layer mounted, too, and its image has other times and inodes.
    for path in sorted((there / "lower").rglob("*")):
        status = (here / "lower" / path.relative_to(there / "lower")).lstat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    _mounted(there, options, "look")
    tree = trees.layer(_inspect(GraphDriver={"Name": "overlay2", "Data": {"UpperDir": str(here / "upper")}}))
    channel_server.set_targets(wire.destination, {"layer": str(there / "upper")})
    wire.channel.rsync(tree.path, tree.target, tree.options, running=True)
    wire.channel.rsync(tree.path, tree.target, tree.options)
    after = _mounted(there, options, "look")
    for seen in (before, after):
        # The image's own directories were made by the two tests' hosts, each in its own time.
        for name in ("etc", "moved", "moved away", "."):
            seen.get(name, {}).pop("time", None)
    assert after == before


# -- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def arrived_log(tmp_path: Path) -> Path:
    """A destination's container directory with a log that came from the source."""
    directory = tmp_path / "containers" / OTHER_CONTAINER
    incoming = Path(directories.incoming_log_directory(str(tmp_path), OTHER_CONTAINER))
    incoming.mkdir(parents=True)
    assert incoming.parent == directory
    (directory / "config.v2.json").write_text("the engine's own")
    return incoming


def test_logs_get_the_names_that_the_engine_looks_for(arrived_log: Path, tmp_path: Path) -> None:
    directory = arrived_log.parent
    for suffix in ("", ".1", ".2.gz"):
        (arrived_log / f"{CONTAINER}-json.log{suffix}").write_text(f"source{suffix}")
    (arrived_log / "local-logs").mkdir()
    (arrived_log / "local-logs" / "container.log").write_text("local")
    (directory / f"{OTHER_CONTAINER}-json.log").write_text("empty file of the engine")
    (directory / "local-logs").mkdir()
    (directory / "local-logs" / "old").write_text("")
    directories.adopt_log(str(tmp_path), CONTAINER, OTHER_CONTAINER)
    assert {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()} == {
        f"{OTHER_CONTAINER}-json.log": "source",
        f"{OTHER_CONTAINER}-json.log.1": "source.1",
        f"{OTHER_CONTAINER}-json.log.2.gz": "source.2.gz",
        "local-logs/container.log": "local",
        "config.v2.json": "the engine's own",
    }
    directories.adopt_log(str(tmp_path), CONTAINER, OTHER_CONTAINER)
    assert (directory / f"{OTHER_CONTAINER}-json.log").read_text() == "source", "doing it twice is fine"


def test_nothing_but_logs_is_taken_over(arrived_log: Path, tmp_path: Path) -> None:
    directory = arrived_log.parent
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (arrived_log / "config.v2.json").write_text("another one's")
    (arrived_log / "hostconfig.json").write_text("privileged")
    (arrived_log / f"{OTHER_CONTAINER}-json.log").write_text("not the source's name")
    (arrived_log / f"{CONTAINER}-json.log").symlink_to(outside / "file")
    (arrived_log / f"{CONTAINER}-json.log.1").mkdir()
    (arrived_log / f"{CONTAINER}-json.log.evil").write_text("x")
    (arrived_log / f"x{CONTAINER}-json.log").write_text("x")
    (arrived_log / "local-logs").symlink_to(outside)
    directories.adopt_log(str(tmp_path), CONTAINER, OTHER_CONTAINER)
    assert {path.name: path.read_text() for path in directory.iterdir()} == {"config.v2.json": "the engine's own"}
    assert (outside / "file").read_text() == "kept"


def test_no_log_is_no_error(tmp_path: Path) -> None:
    directories.adopt_log(str(tmp_path), CONTAINER, OTHER_CONTAINER)
    assert list(tmp_path.iterdir()) == []


def test_of_a_container_s_directory_only_the_log_travels(wire: Wire, disk: Path) -> None:
    directory = disk / "docker" / "containers" / CONTAINER
    (directory / "local-logs").mkdir(parents=True)
    (directory / "checkpoints" / "c1").mkdir(parents=True)
    (directory / "mounts").mkdir()
    (directory / "checkpoints" / "c1" / "pages-1.img").write_text("memory")
    for name in ("config.v2.json", "hostconfig.json", "hostname", "resolv.conf"):
        (directory / name).write_text("the engine's own")
    for name in (
        f"{CONTAINER}-json.log",
        f"{CONTAINER}-json.log.1",
        "local-logs/container.log",
        "local-logs/container.log.1.gz",
    ):
        (directory / name).write_text("log")
    tree = trees.log(_inspect(), str(disk / "docker"))
    assert tree is not None
    place = wire.prepare("log")
    wire.channel.rsync(tree.path, tree.target, tree.options)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        f"{CONTAINER}-json.log",
        f"{CONTAINER}-json.log.1",
        "local-logs/container.log",
        "local-logs/container.log.1.gz",
    ]
