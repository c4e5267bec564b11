# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""An image on its way into the engine: what comes through the channel, made anew of the container's image alone.

``docker load`` takes any number of images under any names from a tar archive, and a name that another image had is that one's no
more: whoever holds the channel's key could put an image of his own under the name of a well-known one. So nothing is passed on as
it came. Members that no ``docker save`` writes end the load; blobs and layers are passed on, which are found by their digests;
the two files that say what the archive holds are read, judged and written anew. The engine believes an archive when it has seen
the end of it, so one that breaks off here has loaded nothing.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import select
import tarfile
import typing as t

from .._base.errors import MigrationError

# What holds content: an OCI layout's blobs, and the directories of each layer that engines before 25 write.
_CONTENT = re.compile(
    r"blobs/sha256/[0-9a-f]{64}|[0-9a-f]{64}/(?:layer\.tar|json|VERSION)|[0-9a-f]{64}\.json|oci-layout"
)
_DIRECTORY = re.compile(r"blobs|blobs/sha256|[0-9a-f]{64}")
_MANIFEST, _INDEX = "manifest.json", "index.json"
# Of engines before 1.10; those since read manifest.json.
_LEFT_OUT = "repositories"
_LONGEST_WORD = 4 << 20
_CHUNK = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)

_NAME = "io.containerd.image.name"
_REFERENCE = "org.opencontainers.image.ref.name"
_DESCRIPTOR = ("mediaType", "digest", "size", "platform", "artifactType")

Image = t.Mapping[str, t.Any]


class Stream(t.Protocol):
    """What is read from."""

    def read(self, size: int, /) -> bytes:
        """As of a file."""


class Steady:
    """A stream that has to go on: a source that has lost its power leaves the connection standing for hours.

    :param seconds: without a byte after which it counts as broken.
    """

    def __init__(self, stream: t.BinaryIO, seconds: float) -> None:
        self._fd = stream.fileno()
        self._seconds = seconds

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end.

        :raises MigrationError: ``channel_failed``.
        """
        if not select.select([self._fd], [], [], self._seconds)[0]:
            raise MigrationError("channel_failed", f"Nothing came through the channel for {self._seconds:g} seconds.")
        return os.read(self._fd, size)


def _refuse(why: str) -> MigrationError:
    return MigrationError(
        "image_load_failed", f"What the source sent as the container's image is not taken: {why}. Nothing was loaded."
    )


def full_name(tag: str) -> str:
    """An image's name as containerd has it: with registry and path, which Docker leaves out where they are its own."""
    first, slash, _rest = tag.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"


class _Judge:
    """Reads what an archive says of itself, and says the part of it that is about one image."""

    def __init__(self, image: Image) -> None:
        self._tags = frozenset(image["tags"])
        self._names = frozenset(map(full_name, image["tags"]))
        self._subjects: dict[str, set[str]] = {}

    def _name(self, name: object, names: t.Container[str]) -> str:
        if not isinstance(name, str) or name not in names:
            raise _refuse(f"it has an image called {name!r}, which is no name of the container's image")
        return name

    def _subject(self, where: str, digest: object) -> str:
        if not isinstance(digest, str):
            raise _refuse(f"its {where} is none of docker save")
        subjects = self._subjects.setdefault(where, set())
        subjects.add(digest)
        if len(subjects) > 1:
            raise _refuse("it has more than one image")
        return digest

    def manifest(self, entries: t.Any) -> list[dict[str, t.Any]]:
        """``manifest.json``."""
        made = []
        for entry in entries:
            layers = entry["Layers"]
            if not all(_CONTENT.fullmatch(layer) for layer in layers):
                raise _refuse("its layers are not in it")
            names = [self._name(tag, self._tags) for tag in entry.get("RepoTags") or []]
            made.append({"Config": self._subject(_MANIFEST, entry["Config"]), "RepoTags": names, "Layers": layers})
        return made

    def index(self, index: t.Any) -> dict[str, t.Any]:
        """``index.json``."""
        made = {key: index[key] for key in ("schemaVersion", "mediaType") if key in index}
        return {**made, "manifests": [self._descriptor(entry) for entry in index["manifests"]]}

    def _descriptor(self, entry: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        self._subject(_INDEX, entry.get("digest"))
        made = {key: entry[key] for key in _DESCRIPTOR if key in entry}
        sent = entry.get("annotations") or {}
        annotations = {}
        if _NAME in sent:
            annotations[_NAME] = self._name(sent[_NAME], self._names)
        if _REFERENCE in sent:
            # A whole name, or the tag alone.
            short = {name.rpartition(":")[2] for name in self._names}
            annotations[_REFERENCE] = self._name(sent[_REFERENCE], self._names | short)
        return {**made, "annotations": annotations} if annotations else made


def only(stream: Stream, image: Image) -> t.Iterator[bytes]:
    """An archive with the container's image and nothing else, in pieces; what comes is read as they are asked for.

    :param stream: a tar archive as ``docker save`` writes it.
    :param image: as ``docker_images.describe`` tells of it.
    :raises MigrationError: ``image_load_failed`` for what is no such archive, or holds something else.
    """
    judge = _Judge(image)
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=t.cast("t.IO[bytes]", stream), mode="r|", bufsize=_CHUNK, errorlevel=2) as archive:
            for member in archive:
                name = member.name
                if name in seen and not member.isdir():
                    raise _refuse(f"it has {name!r} twice")
                seen.add(name)
                yield from _member(archive, member, judge)
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise _refuse(f"it is no archive of docker save ({exc})") from None
    if not seen & {_MANIFEST, _INDEX}:
        raise _refuse("it holds no image")
    yield _END
    # What fills the last block, so that the source can write all of it.
    while stream.read(_CHUNK):
        pass


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, judge: _Judge) -> t.Iterator[bytes]:
    name = member.name
    if member.isdir() and _DIRECTORY.fullmatch(name):
        yield _header(name, tarfile.DIRTYPE, 0o755)
    elif member.issym() and _CONTENT.fullmatch(name):
        # A layer that the archive has already.
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        if not _CONTENT.fullmatch(target):
            raise _refuse(f"its link {name!r} leads out of it")
        yield _header(name, tarfile.SYMTYPE, 0o777, link=member.linkname)
    elif member.isreg() and name in (_MANIFEST, _INDEX):
        if member.size > _LONGEST_WORD:
            raise _refuse(f"its {name} is too large")
        sent = json.loads(b"".join(_content(archive, member)))
        data = json.dumps(judge.manifest(sent) if name == _MANIFEST else judge.index(sent)).encode()
        yield _header(name, tarfile.REGTYPE, 0o644, size=len(data)) + data + _padding(len(data))
    elif member.isreg() and _CONTENT.fullmatch(name):
        yield _header(name, tarfile.REGTYPE, 0o644, size=member.size)
        yield from _content(archive, member)
        yield _padding(member.size)
    elif not (member.isreg() and name == _LEFT_OUT):
        raise _refuse(f"it has a member {name!r}, which docker save does not write")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> t.Iterator[bytes]:
    handle = t.cast("t.IO[bytes]", archive.extractfile(member))
    while True:
        data = handle.read(_CHUNK)
        if not data:
            return
        yield data


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, mode: int, *, size: int = 0, link: str = "") -> bytes:
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.size, made.linkname = kind, mode, size, link
    return made.tobuf(tarfile.GNU_FORMAT)
