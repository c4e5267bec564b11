# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where processes have files, by CRIU's images: those are made here as CRIU writes them."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import core_image, file_ids
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.file_ids import Place

_COMMON = 0x54564319
_PSTREE, _IDS, _FDINFO, _MM = 0x50273030, 0x54432030, 0x56213732, 0x57492820


def _image(path: Path, magic: int, *entries: list[Any]) -> None:
    parts = [core_image.build(one) for one in entries]
    path.write_bytes(struct.pack("<II", _COMMON, magic) + b"".join(struct.pack("<I", len(one)) + one for one in parts))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two processes that share a table of descriptors, and have other things mapped."""
    _image(tmp_path / "pstree.img", _PSTREE, [(1, 0, 1), (2, 0, 0)], [(1, 0, 7), (2, 0, 1)])
    for pid in (1, 7):
        _image(tmp_path / f"ids-{pid}.img", _IDS, [(1, 0, 70), (2, 0, 5)])
    _image(tmp_path / "fdinfo-5.img", _FDINFO, [(1, 0, 20), (2, 0, 0), (4, 0, 3)], [(1, 0, 21), (4, 0, 4)])
    mapped = core_image.build([(1, 0, 0x7F0000000000), (2, 0, 0x7F0000002000), (4, 0, 22)])
    nothing = core_image.build([(1, 0, 0x1000), (2, 0, 0x2000)])
    _image(tmp_path / "mm-1.img", _MM, [(12, 0, 23), (14, 2, mapped), (14, 2, nothing)])
    _image(tmp_path / "mm-7.img", _MM, [(12, 0, 24), (14, 2, core_image.build([(1, 0, 16), (2, 0, 32), (4, 0, 20)]))])
    return tmp_path


def test_what_is_open_and_what_is_mapped(images: Path) -> None:
    assert file_ids.places(str(images), [20, 22, 23, 24, 99]) == {
        # It is mapped too, and that is not looked at.
        20: [Place(1, "fd/3"), Place(7, "fd/3")],
        22: [Place(1, "map_files/7f0000000000-7f0000002000")],
        23: [Place(1, "exe")],
        24: [Place(7, "exe")],
        99: [],
    }


def test_maps_are_not_read_where_a_descriptor_has_the_file(images: Path) -> None:
    for pid in (1, 7):
        (images / f"mm-{pid}.img").write_bytes(b"cannot be read")
    assert file_ids.places(str(images), [21]) == {21: [Place(1, "fd/4"), Place(7, "fd/4")]}
    with pytest.raises(ValueError, match=r"mm-1\.img is no such image"):
        file_ids.places(str(images), [22])


def test_an_image_that_is_cut_off_or_of_another_kind_is_an_error(images: Path) -> None:
    place = images / "pstree.img"
    with pytest.raises(ValueError, match="no such image"):
        file_ids.entries(str(images), "pstree.img", _IDS)
    os.truncate(place, place.stat().st_size - 1)
    with pytest.raises(ValueError, match="cut off"):
        file_ids.places(str(images), [20])
    place.unlink()
    assert file_ids.entries(str(images), "pstree.img", _PSTREE) == []
