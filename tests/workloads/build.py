# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the images on this machine, without a container engine, and keeps them in the lab's cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from . import machine
from .image_tar import EPOCH, Layer, LayerWriter, write_image
from .recipes import HERE, SUITE, Recipe

# Their text belongs to the recipe: an image made by an older builder is another image.
_BUILDER_SOURCES = ("build.py", "image_tar.py")
_HASH_DIGITS = 12


class BuildError(Exception):
    """An image could not be built; the text says why."""


def image_path(recipe: Recipe) -> Path:
    """Where the image lies, or will lie, in the cache.

    The name changes with anything that goes into the image, except Debian's own updates.
    """
    return _directory() / f"{recipe.name}-{_image_hash(recipe)}.tar"


def build(recipe: Recipe) -> Path:
    """Builds the image unless the cache has it, and returns the path of its tar file.

    Raises BuildError. Several processes may call it at once: one builds, the others wait for it.
    """
    return _cached(image_path(recipe), lambda scratch: _make_image(recipe, scratch))


def _base_layer(recipe: Recipe) -> Path:
    """The base layer's tar: the slow part, kept on its own so that a change of our few files costs a second."""
    make = {"busybox": _busybox_layer, "debian": _debian_layer}[recipe.base]
    return _cached(
        _directory() / f"{recipe.source}-base-{_base_hash(recipe)}.tar", lambda scratch: make(recipe, scratch)
    )


def _directory() -> Path:
    return machine.cache_directory() / "images"


def _base_hash(recipe: Recipe) -> str:
    digest = hashlib.sha256(json.dumps([recipe.base, recipe.packages, recipe.customize, SUITE]).encode())
    for name in _BUILDER_SOURCES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:_HASH_DIGITS]


def _image_hash(recipe: Recipe) -> str:
    described = json.dumps([asdict(recipe), _base_hash(recipe)], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    for path in sorted(path for path in recipe.rootfs.rglob("*") if path.is_file()):
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"\0{path.relative_to(HERE)}\0{executable}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:_HASH_DIGITS]


def _cached(target: Path, make: Callable[[Path], Path]) -> Path:
    """TARGET, made by MAKE in a scratch directory where the cache lacks it; then older ones of its name go."""
    target.parent.mkdir(parents=True, exist_ok=True)
    name = target.stem.rpartition("-")[0]
    with (target.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            # In the cache itself: the system's temporary directory may be a small tmpfs.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
                make(Path(scratch)).rename(target)
            for outdated in target.parent.glob(f"{name}-{'[0-9a-f]' * _HASH_DIGITS}.tar"):
                if outdated != target:
                    outdated.unlink(missing_ok=True)
    return target


def _make_image(recipe: Recipe, scratch: Path) -> Path:
    files = scratch / "files.tar"
    with LayerWriter(files) as layer:
        layer.tree(recipe.rootfs)
    layers = [
        Layer(_base_layer(recipe), f"{recipe.base} base: {' '.join(recipe.packages)}"),
        Layer(files, f"the files of {recipe.source}/rootfs"),
    ]
    image = scratch / "image.tar"
    write_image(image, recipe.tag, layers, recipe.config, _architecture())
    return image


def _architecture() -> str:
    """The machine's architecture; Debian and the image format use the same words for those the lab runs on."""
    return _run(["dpkg", "--print-architecture"]).strip()


def _run(argv: list[str], **environment: str) -> str:
    completed = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if completed.returncode != 0:
        raise BuildError(f"{argv[0]} failed ({completed.returncode}):\n{completed.stderr[-4000:]}")
    return completed.stdout


def _mmdebstrap(recipe: Recipe, variant: str, target: Path, extra: list[str]) -> None:
    argv = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--include={','.join(recipe.packages)}", *extra]
    uri, options = machine.debian_archive(SUITE)
    argv += [f"--aptopt={option}" for option in options]
    argv += [SUITE, str(target), uri]
    _run(argv, SOURCE_DATE_EPOCH=str(EPOCH))


def _debian_layer(recipe: Recipe, scratch: Path) -> Path:
    target = scratch / "debian.tar"
    leave_out = ("usr/share/doc/*", "usr/share/man/*", "usr/share/info/*", "usr/share/locale/*")
    extra = ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/{pattern}" for pattern in leave_out)]
    extra += [f"--customize-hook={command}" for command in recipe.customize]
    _mmdebstrap(recipe, "minbase", target, extra)
    return target


def _busybox_layer(recipe: Recipe, scratch: Path) -> Path:
    unpacked = scratch / "packages.tar"
    _mmdebstrap(recipe, "extract", unpacked, [])
    with tarfile.open(unpacked) as tar:
        stream = tar.extractfile("./usr/bin/busybox")
        if stream is None:
            raise BuildError("the package has no file usr/bin/busybox")
        program = stream.read()
    executable = scratch / "busybox"
    executable.write_bytes(program)
    executable.chmod(0o755)
    applets = _run([str(executable), "--list"]).split()
    target = scratch / "busybox.tar"
    with LayerWriter(target) as layer:
        for directory in ("dev", "etc", "proc", "root", "run", "sys", "usr", "usr/bin", "usr/lib", "usr/sbin", "var"):
            layer.directory(directory)
        # As in every Debian, Ubuntu and Fedora of today: a mount at /sbin/docker-init or /lib/x is elsewhere than it says.
        for name in ("bin", "lib", "sbin"):
            layer.symlink(name, f"usr/{name}")
        for directory in ("usr/local", "usr/local/bin", "var/lib"):
            layer.directory(directory)
        layer.directory("tmp", 0o1777)
        layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        layer.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
        layer.file("usr/bin/busybox", program, 0o755)
        for applet in applets:
            if applet != "busybox":
                layer.symlink(f"usr/bin/{applet}", "busybox")
    return target
