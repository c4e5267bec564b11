# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory gets back what it was, from plain data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import directory_attributes

pytestmark = pytest.mark.usefixtures("needs_root")


def test_what_was_read_is_put_back_and_nothing_stays_beside_it(disk: Path) -> None:
    place = disk / "place"
    place.mkdir()
    os.chown(place, 33, 34)
    place.chmod(0o3711)
    os.setxattr(place, "user.name", b"\0\xff")
    os.utime(place, ns=(1, 2))
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        noted = json.loads(json.dumps(directory_attributes.read(descriptor)))
        assert (noted["uid"], noted["gid"], noted["mode"], noted["mtime_ns"]) == (33, 34, 0o3711, 2)
        os.chown(place, 0, 0)
        place.chmod(0o755)
        os.setxattr(place, "user.name", b"other")
        os.setxattr(place, "trusted.more", b"more")
        for _again in range(2):
            directory_attributes.put_back(descriptor, noted)
            assert directory_attributes.read(descriptor) == noted
    finally:
        os.close(descriptor)
