# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes container images without any container engine: the tar file that `docker load` reads.

The format is that of `docker save` up to Docker 24, which every later engine still loads: one JSON configuration, one
tar per layer, and `manifest.json`. The image's id is the sha256 of the configuration, so equal content gives an equal
id on every host: files are written in one order, with one time stamp.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCH = 1_700_000_000  # the time stamp of everything the recipes add; any fixed one will do
_CREATED = "2023-11-14T22:13:20Z"  # the same moment, as the configuration spells it
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A layer's tar file, and the words `docker history` shows for it."""

    path: Path
    comment: str

    def digest(self) -> str:
        """The sha256 of the tar, as the configuration wants it (the "diff id")."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


class LayerWriter:
    """Writes one layer: the same calls give the same bytes."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.TarFile(path, "w", format=tarfile.GNU_FORMAT)
        self._directories: set[str] = set()

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._tar.close()

    def _member(self, name: str, mode: int, kind: bytes, owner: tuple[int, int] = (0, 0)) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.mode, member.type, member.mtime = mode, kind, EPOCH
        member.uid, member.gid = owner
        return member

    def directory(self, name: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        """Adds a directory (path without the leading slash), once."""
        if name not in self._directories:
            self._directories.add(name)
            self._tar.addfile(self._member(name, mode, tarfile.DIRTYPE, owner))

    def file(self, name: str, content: bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Adds a file."""
        member = self._member(name, mode, tarfile.REGTYPE, owner)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))

    def symlink(self, name: str, target: str) -> None:
        """Adds a symbolic link."""
        member = self._member(name, 0o777, tarfile.SYMTYPE)
        member.linkname = target
        self._tar.addfile(member)

    def tree(self, source: Path) -> None:
        """Adds the files under SOURCE, owned by root; only the executable bit of their modes counts.

        Directories on the way that the layer does not name itself are left as the layers below have them.
        """
        for path in sorted(source.rglob("*")):
            if path.is_file():
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                self.file(path.relative_to(source).as_posix(), path.read_bytes(), mode)


def write_image(
    target: Path,
    tag: str,
    layers: Sequence[Layer],
    config: Mapping[str, Any],
    architecture: str,
    digests: Sequence[str] | None = None,
) -> str:
    """Writes the image TARGET and returns its id (`sha256:...`).

    CONFIG is the part that `docker inspect` shows as `Config` (Cmd, Entrypoint, Env, Labels, ...). The layer files are
    copied, not moved.
    """
    digests = digests or [layer.digest() for layer in layers]
    document = {
        "architecture": architecture,
        "os": "linux",
        "created": _CREATED,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _CREATED, "created_by": layer.comment} for layer in layers],
    }
    raw = json.dumps(document, sort_keys=True).encode()
    image_id = hashlib.sha256(raw).hexdigest()
    manifest = [
        {
            "Config": f"{image_id}.json",
            "RepoTags": [tag],
            "Layers": [f"{digest}/layer.tar" for digest in digests],
        }
    ]
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in ((f"{image_id}.json", raw), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), EPOCH
            tar.addfile(member, io.BytesIO(content))
        for layer, digest in zip(layers, digests, strict=True):
            member = tarfile.TarInfo(f"{digest}/layer.tar")
            member.size, member.mtime = layer.path.stat().st_size, EPOCH
            with layer.path.open("rb") as stream:
                tar.addfile(member, stream)
    return f"sha256:{image_id}"
