# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint on its way, through real pipes, and everything that may go wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import checkpoint_stream, messages
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import images as criu_images
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.images import Manifest
from tests.unit.channel.conftest import Pipe
from tests.unit.helpers.support import wait_for

# More than one chunk, more than a pipe holds, and not a multiple of either.
PAGES = (2 << 20) + 4097


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "inventory.img").write_bytes(b"inventory")
    (directory / "empty.img").write_bytes(b"")
    (directory / "pages-1.img").write_bytes(os.urandom(PAGES))
    # What looks like a line of the conversation is the content of a file.
    (directory / "lines.img").write_bytes(b'{"put": "evil.img", "size": 3}\n\n')
    return directory


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    directory = tmp_path / "inbox"
    directory.mkdir()
    return directory


def _take_all(stream: BinaryIO, inbox: Path) -> Manifest:
    received: Manifest = {}
    while True:
        message = messages.receive(stream)
        if message is None or "put" not in message:
            return received
        received[message["put"]] = checkpoint_stream.take(stream, message, str(inbox))


# -- lines -------------------------------------------------------------------------------------------------------------


def test_a_directory_arrives_as_it_left(images: Path, inbox: Path, pipe: Pipe) -> None:
    reported: list[tuple[Manifest, int]] = []

    def send() -> None:
        reported.append(checkpoint_stream.put(pipe.writing, str(images)))
        messages.send(pipe.writing, {"hold": {}})

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    received = _take_all(pipe.reading, inbox)
    sender.join(10)
    [(manifest, total)] = reported
    assert received == json.loads(json.dumps(manifest)), "what arrives is compared with what travelled as JSON"
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == {
        path.name: path.read_bytes() for path in images.iterdir()
    }
    assert total == sum(path.stat().st_size for path in images.iterdir())
    for path in inbox.iterdir():
        content = path.read_bytes()
        assert manifest[path.name] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert path.stat().st_mode & 0o777 == 0o600, "it is the memory of a service"


def test_an_empty_directory_is_nothing(inbox: Path) -> None:
    stream = io.BytesIO()
    assert checkpoint_stream.put(stream, str(inbox)) == ({}, 0)
    assert stream.getvalue() == b""


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["directory", "pipe", "link", "link to nothing", "name", "hidden"])
def test_what_is_none_of_criu_s_is_not_sent(kind: str, images: Path, tmp_path: Path) -> None:
    extra = images / "extra.img"
    if kind == "directory":
        extra.mkdir()
        (extra / ".hidden").write_text("x")
    elif kind == "pipe":
        os.mkfifo(extra)
    elif kind.startswith("link"):
        secret = tmp_path / "secret"
        if kind == "link":
            secret.write_text("secret")
        extra.symlink_to(secret)
    else:
        (images / {"name": "a\nb", "hidden": ".hidden"}[kind]).write_text("x")
    stream = io.BytesIO()
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.put(stream, str(images))
    assert caught.value.code == "checkpoint_incomplete"
    assert b"secret" not in stream.getvalue()


@pytest.fixture
def rounds(images: Path) -> Path:
    """A checkpoint whose memory was sent in two rounds before."""
    for number in (1, 2):
        place = images / "rounds" / str(number)
        place.mkdir(parents=True)
        (place / "pages-1.img").write_bytes(os.urandom(number * 4096))
    (images / "rounds" / "2" / "parent").symlink_to("../1")
    (images / "parent").symlink_to("rounds/2")
    (images / "pstree.img").write_bytes(b"pstree")
    return images


def test_rounds_of_memory_arrive_with_their_parents(rounds: Path, inbox: Path, pipe: Pipe) -> None:
    reported: list[Any] = []

    def send() -> None:
        reported.append(checkpoint_stream.put(pipe.writing, str(rounds)))
        pipe.writing.close()

    thread = threading.Thread(target=send)
    thread.start()
    received = _take_all(pipe.reading, inbox)
    thread.join()
    manifest, _sent = reported[0]
    assert received == manifest == criu_images.manifest(str(rounds))
    criu_images.verify(str(inbox), manifest)
    assert (inbox / "parent" / "parent" / "pages-1.img").stat().st_size == 4096
    assert (inbox / "rounds" / "1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("parent", "/etc"),
        ("parent", ".."),
        ("parent", "../x"),
        ("parent", "rounds/../../x"),
        ("parent", ""),
        ("parent", "."),
        ("parent", None),
        ("parent", "parent"),
        ("rounds/2/parent", "../../../x"),
        ("rounds/2/parent", "../2"),
        ("rounds/2/parent", "../../rounds"),
        ("rounds/2/parent", "../1\0"),
        ("../parent", "rounds"),
    ],
)
def test_a_link_that_leads_elsewhere_is_not_taken(name: str, target: object, inbox: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.take(io.BytesIO(b""), {"put": name, "link": target}, str(inbox))
    assert caught.value.code == "channel_refused"
    assert not [path for path in inbox.rglob("*") if path.is_symlink()]


def test_nothing_is_written_through_a_link(inbox: Path) -> None:
    """One that leads to a place inside: a file that is named twice would be hashed once."""
    (inbox / "rounds").mkdir()
    checkpoint_stream.take(io.BytesIO(b""), {"put": "parent", "link": "rounds"}, str(inbox))
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.take(io.BytesIO(b"x"), {"put": "parent/pages-1.img", "size": 1}, str(inbox))
    assert caught.value.code == "channel_refused"
    assert list((inbox / "rounds").iterdir()) == []


class _Shrinking(io.BytesIO):
    """Cuts a file off as soon as the first of its bytes has been sent."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def write(self, data: Any) -> int:
        if len(data) == 1 << 20:
            os.truncate(self._path, 1 << 20)
        return super().write(data)


def test_a_file_that_becomes_shorter_on_its_way_is_reported(images: Path) -> None:
    with pytest.raises(MigrationError, match=r"pages-1\.img has become shorter") as caught:
        checkpoint_stream.put(_Shrinking(images / "pages-1.img"), str(images))
    assert caught.value.code == "checkpoint_incomplete"


def test_the_other_end_hangs_up_in_the_middle(images: Path, pipe: Pipe) -> None:
    pipe.reading.close()
    with pytest.raises(BrokenPipeError):
        checkpoint_stream.put(pipe.writing, str(images))


NAMES = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../inventory.img",
    "a/",
    "a//b",
    "a/../b",
    "a/./b",
    "a/.hidden",
    "/a/b",
    "a/b/c/d/e",
    "a\0b",
    "a\n",
    ".hidden",
    "-rf",
    "_x",
    "n\u00e4me",
    "\u0660",
    "a b",
    "a" * 202,
    None,
    1,
    True,
    ["inventory.img"],
    {"inventory.img": 1},
]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_not_taken(name: object, inbox: Path) -> None:
    before = sorted(inbox.parent.rglob("*"))
    stream = io.BytesIO(b"content")
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.take(stream, {"put": name, "size": 7}, str(inbox))
    assert caught.value.code == "channel_refused"
    assert sorted(inbox.parent.rglob("*")) == before
    assert stream.tell() == 0


@pytest.mark.parametrize("size", [-1, 1.0, True, "7", None, [7], float("nan")])
def test_a_hostile_size_is_not_taken(size: object, inbox: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.take(io.BytesIO(b"content"), {"put": "inventory.img", "size": size}, str(inbox))
    assert caught.value.code == "channel_refused"
    assert list(inbox.iterdir()) == []


@pytest.mark.parametrize("message", [{"put": "inventory.img"}, {"size": 7}])
def test_half_an_announcement_is_not_taken(message: dict[str, Any], inbox: Path) -> None:
    with pytest.raises(KeyError):
        checkpoint_stream.take(io.BytesIO(b"content"), message, str(inbox))
    assert list(inbox.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, PAGES - 1])
def test_a_file_that_is_cut_off_on_its_way_is_reported(length: int, inbox: Path) -> None:
    with pytest.raises(MigrationError, match=r"in the middle of pages-1\.img") as caught:
        checkpoint_stream.take(io.BytesIO(b"x" * length), {"put": "pages-1.img", "size": PAGES}, str(inbox))
    assert caught.value.code == "checkpoint_corrupt"


def test_a_size_beyond_all_disks_takes_no_more_than_what_comes(inbox: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.take(io.BytesIO(b"x" * 10), {"put": "pages-1.img", "size": 1 << 62}, str(inbox))
    assert caught.value.code == "checkpoint_corrupt"
    assert (inbox / "pages-1.img").stat().st_size == 10


@pytest.mark.parametrize("there", ["file", "link", "link to nothing", "pipe", "directory"])
@pytest.mark.timeout(10)
def test_nothing_that_is_there_already_is_written_to(there: str, inbox: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    path = inbox / "inventory.img"
    if there == "file":
        path.write_text("old")
    elif there == "pipe":
        os.mkfifo(path)
    elif there == "directory":
        path.mkdir()
    else:
        if there == "link":
            outside.write_text("old")
        path.symlink_to(outside)
    with pytest.raises(FileExistsError):
        checkpoint_stream.take(io.BytesIO(b"new"), {"put": "inventory.img", "size": 3}, str(inbox))
    assert not outside.exists() or outside.read_text() == "old"
    if there == "file":
        assert path.read_text() == "old"


def test_a_file_that_does_not_find_its_place_is_an_error_and_no_shorter_file(inbox: Path) -> None:
    """The kernel writes as much as fits, and says so; only the next write would fail."""
    limit = 300_000
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            checkpoint_stream.take(
                io.BytesIO(b"x" * (limit + 1)), {"put": "pages-1.img", "size": limit + 1}, str(inbox)
            )
        except OSError:
            code = 42
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    assert (inbox / "pages-1.img").stat().st_size == limit, "what this test rests on: it was written in part"
    assert os.waitstatus_to_exitcode(status) == 42


# -- a file that is still being written --------------------------------------------------------------------------------


class Following:
    """A Follower at work on a directory, and the other end of its connection."""

    def __init__(self, images: Path, inbox: Path) -> None:
        self.hung_up = threading.Event()
        self._ends = socket.socketpair()
        self._writing = self._ends[0].makefile("wb")
        self._reading = self._ends[1].makefile("rb")
        self.follower = checkpoint_stream.Follower(self._writing, str(images), self.disconnect)
        self.received: Manifest = {}
        self._inbox = inbox
        self.receiver = threading.Thread(target=self._receive, daemon=True)

    def disconnect(self) -> None:
        """What killing ssh does: a write that waits ends, and so does a read."""
        self.hung_up.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> None:
        with contextlib.suppress(MigrationError, ValueError):
            self.received = _take_all(self._reading, self._inbox)

    def finish(self) -> tuple[Manifest, int]:
        reported = self.follower.finish()
        messages.send(self._writing, {"hold": {}})
        self.receiver.join(10)
        return reported

    def close(self) -> None:
        self.disconnect()
        if self.receiver.ident is not None:
            self.receiver.join(10)
        with contextlib.suppress(OSError):
            self._writing.close()
        self._reading.close()
        for end in self._ends:
            end.close()


Follow = Callable[[Path], Following]


@pytest.fixture
def follow(inbox: Path) -> Iterator[Follow]:
    """A function that makes a follower of a directory: follow(images)."""
    made: list[Following] = []

    def make(images: Path) -> Following:
        made.append(Following(images, inbox))
        return made[-1]

    yield make
    for following in made:
        following.close()


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    directory = tmp_path / "growing"
    directory.mkdir()
    return directory


def _arrived(inbox: Path, name: str, size: int) -> None:
    wait_for(lambda: (inbox / name).exists() and (inbox / name).stat().st_size == size, f"{size} bytes of {name}")


def test_pages_leave_while_they_are_written(growing: Path, inbox: Path, follow: Follow) -> None:
    """Every part arrives before the next is written, and nothing else does before the checkpoint is complete."""
    following = follow(growing)
    following.receiver.start()
    with following.follower:
        (growing / "pagemap-1.img").write_bytes(b"map")
        for number in (1, 2, 10):
            name = f"pages-{number}.img"
            (growing / name).touch()
            for part in (b"a" * 5000, os.urandom(PAGES), b"c"):
                with (growing / name).open("ab") as file:
                    file.write(part)
                _arrived(inbox, name, (growing / name).stat().st_size)
        assert {path.name for path in inbox.iterdir()} == {"pages-1.img", "pages-2.img", "pages-10.img"}
        (growing / "inventory.img").write_bytes(b"inventory")
        manifest, total = following.finish()
    assert not following.hung_up.is_set()
    assert following.received == manifest
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == {
        path.name: path.read_bytes() for path in growing.iterdir()
    }
    for path in inbox.iterdir():
        content = path.read_bytes()
        assert manifest[path.name] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert path.stat().st_mode & 0o777 == 0o600, "it is the memory of a service"
    assert total == sum(path.stat().st_size for path in growing.iterdir())


def test_a_checkpoint_that_was_complete_at_once_arrives(images: Path, inbox: Path, follow: Follow) -> None:
    following = follow(images)
    following.receiver.start()
    with following.follower:
        manifest, _total = following.finish()
    assert following.received == manifest
    assert {path.name for path in inbox.iterdir()} == {path.name for path in images.iterdir()}


@pytest.mark.parametrize("how", ["longer", "shorter"])
def test_pages_that_were_written_to_after_they_had_been_sent_are_reported(
    how: str, growing: Path, inbox: Path, follow: Follow
) -> None:
    following = follow(growing)
    following.receiver.start()
    with following.follower:
        (growing / "pages-1.img").write_bytes(b"x" * 5000)
        _arrived(inbox, "pages-1.img", 5000)
        (growing / "pages-2.img").write_bytes(b"y" * 5000)
        _arrived(inbox, "pages-2.img", 5000)
        os.truncate(growing / "pages-1.img", 6000 if how == "longer" else 4000)
        with pytest.raises(MigrationError) as caught:
            following.finish()
    assert caught.value.code == "checkpoint_incomplete"


@pytest.mark.timeout(10)
def test_a_dump_that_failed_ends_it_although_nobody_reads(growing: Path, follow: Follow) -> None:
    """Its thread waits in a write to a pipe that is full: the connection is ended under it."""
    (growing / "pages-1.img").write_bytes(bytes(PAGES))
    following = follow(growing)
    with pytest.raises(RuntimeError, match="the dump failed"), following.follower:
        raise RuntimeError("the dump failed")
    assert following.hung_up.is_set()


def test_a_destination_that_hangs_up_is_reported_when_the_dump_has_ended(growing: Path, follow: Follow) -> None:
    following = follow(growing)
    following.disconnect()
    with following.follower:
        (growing / "pages-1.img").write_bytes(bytes(PAGES))
        with pytest.raises(BrokenPipeError):
            following.finish()


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.timeout(10)
def test_pages_that_are_no_file_are_not_followed(kind: str, growing: Path, inbox: Path, follow: Follow) -> None:
    if kind == "link":
        (growing.parent / "secret").write_text("secret")
        (growing / "pages-1.img").symlink_to(growing.parent / "secret")
    else:
        os.mkfifo(growing / "pages-1.img")
    following = follow(growing)
    following.receiver.start()
    with following.follower, pytest.raises(MigrationError) as caught:
        following.finish()
    assert caught.value.code == "checkpoint_incomplete"
    assert list(inbox.iterdir()) == []


PARTS = {
    "no end": (b'{"part": 3}\nabc', "checkpoint_corrupt"),
    "cut off in a part": (b'{"part": 3}\nab', "checkpoint_corrupt"),
    "cut off in a line": (b'{"part": 3', "checkpoint_corrupt"),
    "less than nothing": (b'{"part": -1}\n', "channel_refused"),
    "no number": (b'{"part": true}\n', "channel_refused"),
    "half a number": (b'{"part": 1.5}\n', "channel_refused"),
    "no message": (b"[]\n", "channel_failed"),
}


@pytest.mark.parametrize("printed", PARTS)
def test_parts_that_make_no_file_are_not_taken(printed: str, inbox: Path) -> None:
    content, code = PARTS[printed]
    with pytest.raises(MigrationError) as caught:
        checkpoint_stream.take(io.BytesIO(content), {"put": "pages-1.img", "parts": True}, str(inbox))
    assert caught.value.code == code


def test_something_else_than_a_part_is_not_taken(inbox: Path) -> None:
    with pytest.raises(KeyError):
        checkpoint_stream.take(io.BytesIO(b'{"run": true}\n'), {"put": "pages-1.img", "parts": True}, str(inbox))


@pytest.mark.parametrize("parts", [1, "true", [True], None])
def test_parts_are_announced_by_nothing_but_true(parts: object, inbox: Path) -> None:
    with pytest.raises(KeyError):
        checkpoint_stream.take(io.BytesIO(b'{"part": 0}\n'), {"put": "pages-1.img", "parts": parts}, str(inbox))
    assert list(inbox.iterdir()) == []
