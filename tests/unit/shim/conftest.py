# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host for the shim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.shim.support import SHELLS, Shim


@pytest.fixture(params=SHELLS)
def shim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shim]:
    """The programs with every shell that may be a host's /bin/sh."""
    place = tmp_path / "host"
    place.mkdir()
    made = Shim(place, request.param)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()
