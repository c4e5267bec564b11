# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint that is not what it was is found out, whatever happened to it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import images as criu_images

# More than one read of the hash at once, and not a multiple of it.
PAGES = (1 << 20) + 4097


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    (directory / "criu.work").mkdir(parents=True)
    (directory / "inventory.img").write_bytes(b"inventory")
    (directory / "pstree.img").write_bytes(b"pstree")
    (directory / "pages-1.img").write_bytes(os.urandom(PAGES))
    (directory / "empty.img").write_bytes(b"")
    (directory / "config.json").write_text("{}")
    (directory / "criu.work" / "stats-dump").write_bytes(b"statistics")
    (directory / "na\udcffme").write_bytes(b"a name that is no UTF-8")
    (directory / "pages-2.img").symlink_to("../elsewhere/pages-2.img")
    (directory / "parent").symlink_to("criu.work")
    return directory


def test_the_manifest_names_every_file_with_its_size(checkpoint: Path) -> None:
    manifest = criu_images.manifest(str(checkpoint))
    files = {
        "inventory.img",
        "pstree.img",
        "pages-1.img",
        "empty.img",
        "config.json",
        "criu.work/stats-dump",
        "na\udcffme",
        "pages-2.img",
    }
    assert files <= set(manifest)
    pages = hashlib.sha256((checkpoint / "pages-1.img").read_bytes()).hexdigest()
    assert manifest["pages-1.img"] == {"size": PAGES, "sha256": pages}
    assert manifest["pages-2.img"] == {"size": 0, "link": "../elsewhere/pages-2.img"}
    # sha256 of nothing, from its definition (FIPS 180-4 examples).
    assert manifest["empty.img"]["sha256"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert criu_images.total_bytes(manifest) == PAGES + 9 + 6 + 0 + 2 + 10 + 23


def test_what_arrived_whole_is_accepted_after_the_manifest_has_travelled(checkpoint: Path, tmp_path: Path) -> None:
    manifest = json.loads(json.dumps(criu_images.manifest(str(checkpoint))))
    shutil.copytree(checkpoint, tmp_path / "arrived", symlinks=True)
    criu_images.verify(str(tmp_path / "arrived"), manifest)


@pytest.mark.parametrize("name", ["inventory.img", "pstree.img"])
def test_a_dump_that_did_not_finish_has_no_manifest(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(MigrationError) as caught:
        criu_images.manifest(str(checkpoint))
    assert caught.value.code == "checkpoint_incomplete"
    assert name in caught.value.message


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def _replace_by_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _replace_by_file(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _copy_and_link(path: Path) -> None:
    shutil.copy(path, path.parent.parent / "copy")
    _replace_by_link(path, "../copy")


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut by a byte": ("pages-1.img", lambda path: os.truncate(path, PAGES - 1)),
    "cut to nothing": ("inventory.img", lambda path: os.truncate(path, 0)),
    "longer by a byte": ("pages-1.img", lambda path: os.truncate(path, PAGES + 1)),
    "first bit": ("pages-1.img", lambda path: _flip(path, 0)),
    "last bit": ("pages-1.img", lambda path: _flip(path, PAGES - 1)),
    "a bit at the end of a read": ("pages-1.img", lambda path: _flip(path, (1 << 20) - 1)),
    "a bit at the start of a read": ("pages-1.img", lambda path: _flip(path, 1 << 20)),
    "missing": ("pstree.img", lambda path: path.unlink()),
    "missing below": ("criu.work/stats-dump", lambda path: path.unlink()),
    "missing empty file": ("empty.img", lambda path: path.unlink()),
    "additional": ("extra.img", lambda path: path.write_bytes(b"")),
    "additional below": ("criu.work/extra", lambda path: path.write_bytes(b"x")),
    "additional link": ("extra.img", lambda path: path.symlink_to("pages-1.img")),
    "additional dangling link": ("extra.img", lambda path: path.symlink_to("nowhere")),
    "additional link to a directory": ("extra", lambda path: path.symlink_to("/etc")),
    "renamed": ("pages-1.img", lambda path: path.rename(path.with_name("pages-9.img"))),
    "link elsewhere": ("pages-2.img", lambda path: _replace_by_link(path, "../elsewhere/pages-3.img")),
    "link to a directory elsewhere": ("parent", lambda path: _replace_by_link(path, "/etc")),
    "link became a file": ("pages-2.img", _replace_by_file),
    "file became a link to its copy": ("pages-1.img", _copy_and_link),
    "file became a dangling link": ("pages-1.img", lambda path: _replace_by_link(path, "nowhere")),
    "file became a directory": ("empty.img", _replace_by_directory),
    "file became a pipe": ("empty.img", _replace_by_pipe),
    "additional pipe": ("extra", _replace_by_pipe),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage: str, checkpoint: Path) -> None:
    manifest = criu_images.manifest(str(checkpoint))
    name, do = DAMAGE[damage]
    do(checkpoint / name)
    with pytest.raises(MigrationError) as caught:
        criu_images.verify(str(checkpoint), manifest)
    assert caught.value.code == "checkpoint_corrupt"
    assert name in caught.value.details["files"]
    assert name in caught.value.message


def test_a_link_to_a_directory_that_is_not_there_yet_is_no_damage(checkpoint: Path, tmp_path: Path) -> None:
    """CRIU's `parent` link leads out of the directory, to something that need not have arrived."""
    manifest = criu_images.manifest(str(checkpoint))
    _replace_by_link(checkpoint / "parent", "../earlier")
    (tmp_path / "earlier").mkdir()
    manifest = criu_images.manifest(str(checkpoint))
    (tmp_path / "earlier").rmdir()
    criu_images.verify(str(checkpoint), manifest)


def test_a_checkpoint_that_is_not_there_is_not_whole(checkpoint: Path, tmp_path: Path) -> None:
    manifest = criu_images.manifest(str(checkpoint))
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(MigrationError) as caught:
            criu_images.verify(str(directory), manifest)
        assert caught.value.code == "checkpoint_corrupt"


def test_nothing_is_not_a_checkpoint(tmp_path: Path) -> None:
    """A manifest that was lost must not make an empty or missing directory a good checkpoint."""
    with pytest.raises(MigrationError):
        criu_images.verify(str(tmp_path / "nowhere"), {})


def test_many_differences_are_summed_up(checkpoint: Path) -> None:
    manifest = criu_images.manifest(str(checkpoint))
    for number in range(60):
        (checkpoint / f"extra-{number:02}").write_bytes(b"")
    with pytest.raises(MigrationError) as caught:
        criu_images.verify(str(checkpoint), manifest)
    assert (
        "60 file(s) differ or are missing (extra-00, extra-01, extra-02, extra-03, extra-04 ...)"
        in caught.value.message
    )
    assert len(caught.value.details["files"]) == 50


# -- what was hashed on its way ----------------------------------------------------------------------------------------

ONE: dict[str, int | str] = {"size": 1, "sha256": "a" * 64}
SENT: criu_images.Manifest = {
    "inventory.img": ONE,
    "pstree.img": ONE,
    "pages-1.img": {"size": 2, "sha256": "b" * 64},
}


def test_what_was_received_as_it_was_sent_is_accepted() -> None:
    criu_images.compare(json.loads(json.dumps(SENT)), SENT)


@pytest.mark.parametrize(
    ("received", "wrong"),
    [
        ({}, sorted(SENT)),
        ({name: SENT[name] for name in ("inventory.img", "pstree.img")}, ["pages-1.img"]),
        ({**SENT, "pages-2.img": ONE}, ["pages-2.img"]),
        ({**SENT, "pages-1.img": {"size": 2, "sha256": "a" * 64}}, ["pages-1.img"]),
        ({**SENT, "pages-1.img": {"size": 3, "sha256": "b" * 64}}, ["pages-1.img"]),
        ({**SENT, "pages-1.img": {"size": 0, "link": "elsewhere"}}, ["pages-1.img"]),
        (
            {"Inventory.img": ONE, **{n: SENT[n] for n in ("pstree.img", "pages-1.img")}},
            ["Inventory.img", "inventory.img"],
        ),
    ],
)
def test_what_was_received_otherwise_is_not(received: criu_images.Manifest, wrong: list[str]) -> None:
    with pytest.raises(MigrationError) as caught:
        criu_images.compare(received, SENT)
    assert caught.value.code == "checkpoint_corrupt"
    assert caught.value.details["files"] == wrong


@pytest.mark.parametrize("name", ["inventory.img", "pstree.img"])
def test_what_was_sent_of_a_dump_that_did_not_finish_is_no_checkpoint(name: str) -> None:
    """Both ends agree on it, and it is not whole all the same."""
    sent = {key: value for key, value in SENT.items() if key != name}
    for content in (sent, {}):
        with pytest.raises(MigrationError) as caught:
            criu_images.compare(dict(content), content)
        assert caught.value.code == "checkpoint_incomplete"


def test_manifest_and_fingerprints_that_have_arrived(tmp_path: Path) -> None:
    contents = {"manifest.json": json.dumps(SENT), "fingerprints.json": '{"1": "f"}'}
    for missing in contents:
        inbox = tmp_path / f"without-{missing}"
        inbox.mkdir()
        for name, content in contents.items():
            if name != missing:
                (inbox / name).write_text(content)
        with pytest.raises(MigrationError) as caught:
            criu_images.arrived(str(inbox))
        assert caught.value.code == "checkpoint_incomplete"
        (inbox / missing).write_text(contents[missing])
        assert criu_images.arrived(str(inbox)) == (SENT, {"1": "f"})


# -- what containerd leaves ------------------------------------------------------------------------------------------


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr(criu_images, "_LEFTOVER_ROOT", str(directory))
    return directory


def _copy(checkpoint: Path, to: Path, mode: int = 0o700) -> Path:
    shutil.copytree(checkpoint, to, symlinks=True)
    to.chmod(mode)
    return to


@pytest.mark.usefixtures("needs_root")
def test_copies_of_this_checkpoint_go_and_everything_else_stays(checkpoint: Path, leftovers: Path) -> None:
    manifest = criu_images.manifest(str(checkpoint))
    _copy(checkpoint, leftovers / "ctrd-checkpoint1")
    # A restore that failed half way: fewer files, one of them cut.
    partial = _copy(checkpoint, leftovers / "ctrd-checkpoint2")
    (partial / "inventory.img").unlink()
    os.truncate(partial / "pstree.img", 3)
    stays = [
        _copy(checkpoint, leftovers / "other-checkpoint"),
        _copy(checkpoint, leftovers / "ctrd-checkpoint3", 0o755),
        _copy(checkpoint, leftovers / "ctrd-checkpoint4"),
        _copy(checkpoint, leftovers / "ctrd-checkpoint5"),
        _copy(checkpoint, leftovers / "ctrd-checkpoint6"),
        leftovers / "ctrd-checkpoint7",
        leftovers / "ctrd-checkpoint8",
        leftovers / "ctrd-checkpoint9",
    ]
    _flip(stays[2] / "pages-1.img", 0)  # another container's memory under the same names
    (stays[3] / "more.img").write_bytes(b"x")
    os.chown(stays[4], 12345, 12345)
    stays[5].mkdir(mode=0o700)  # being filled, nobody knows with what
    stays[6].write_text("a file")
    outside = _copy(checkpoint, leftovers.parent / "outside")
    stays[7].symlink_to(outside)
    criu_images.remove_leftovers(manifest)
    assert sorted(leftovers.iterdir()) == sorted(stays)
    assert criu_images.manifest(str(outside)) == manifest


@pytest.mark.usefixtures("needs_root")
def test_without_a_manifest_nothing_goes(checkpoint: Path, leftovers: Path) -> None:
    _copy(checkpoint, leftovers / "ctrd-checkpoint1")
    criu_images.remove_leftovers({})
    assert (leftovers / "ctrd-checkpoint1" / "inventory.img").exists()
