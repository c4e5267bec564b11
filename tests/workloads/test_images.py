# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every image can be made; images are the same bytes at every build; the check of the counter's files finds what is missing."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tests.lab.packages import install_missing
from tests.workloads.build import build, image_path
from tests.workloads.counter_files import missing
from tests.workloads.image_tar import Layer, LayerWriter, write_image
from tests.workloads.recipes import RECIPES


@pytest.mark.lab
@pytest.mark.lane("images")
@pytest.mark.parametrize("name", RECIPES)
def test_the_image_is_made(name: str) -> None:
    """Beside the first tests on the hosts: those that need it find it in the cache."""
    install_missing()
    recipe = RECIPES[name]
    with tarfile.open(build(recipe)) as tar:
        stream = tar.extractfile("manifest.json")
        assert stream is not None
        (manifest,) = json.loads(stream.read())
        files = tar.getnames()
    assert manifest["RepoTags"] == [recipe.tag]
    assert {manifest["Config"], *manifest["Layers"]} <= set(files)


def _image(directory: Path, content: bytes) -> tuple[Path, str]:
    directory.mkdir()
    with LayerWriter(directory / "layer.tar") as layer:
        layer.directory("bin")
        layer.file("bin/program", content, 0o755)
        layer.symlink("bin/alias", "program")
    target = directory / "image.tar"
    layers = [Layer(directory / "layer.tar", "a layer")]
    return target, write_image(target, "livemigrate/test:1", layers, {"Cmd": ["/bin/program"]}, "amd64")


def test_equal_content_is_an_equal_image(tmp_path: Path) -> None:
    first, identity = _image(tmp_path / "first", b"one")
    second, same = _image(tmp_path / "second", b"one")
    _dummy, other = _image(tmp_path / "third", b"two")
    assert first.read_bytes() == second.read_bytes()
    assert identity == same != other


def test_an_image_holds_what_its_manifest_says(tmp_path: Path) -> None:
    target, identity = _image(tmp_path / "image", b"one")
    with tarfile.open(target) as tar:

        def read(name: str) -> bytes:
            stream = tar.extractfile(name)
            assert stream is not None
            return stream.read()

        manifest = json.loads(read("manifest.json"))[0]
        raw = read(manifest["Config"])
        layers = [hashlib.sha256(read(name)).hexdigest() for name in manifest["Layers"]]
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == identity
    assert json.loads(raw)["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in layers]
    assert manifest["RepoTags"] == ["livemigrate/test:1"]


def test_every_recipe_has_an_executable_entrypoint() -> None:
    for recipe in RECIPES.values():
        entry = recipe.rootfs / recipe.config["Entrypoint"][0].lstrip("/")
        assert entry.stat().st_mode & 0o100, entry
    assert len({image_path(recipe) for recipe in RECIPES.values()}) == len(RECIPES)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a 1\na 2\na 3\n", ""),
        ("a 1\na 2\na", ""),
        ("a 1\na 3\n", "line 2"),
        ("a 1\na 2\na 2\n", "line 3"),
        ("a 1\nb 2\n", "line 2"),
        ("a 2\n", "line 1"),
        ("\0\0\0\na 2\n", "line 1"),
        ("", "no line"),
    ],
)
def test_a_line_that_is_missing_twice_or_foreign_is_found(text: str, wrong: str) -> None:
    found = missing(text)
    assert bool(found) == bool(wrong)
    assert wrong in "".join(found)
