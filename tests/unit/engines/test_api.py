# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room for a checkpoint of the engine `api`, which lies with the Docker Engine's data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import api as engine_api
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

MIB = 1 << 20


def test_it_is_reserved_before_the_freeze(
    make_session: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine writes it three times. Of two sessions the second finds what the first has left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=700 * MIB))
    first = make_session(engine="api", data_root=str(tmp_path))
    second = make_session(engine="api", data_root=str(tmp_path), container="d" * 64)
    engine_api.reserve_space(first, 100 * MIB)
    engine_api.reserve_space(first, 100 * MIB)
    with pytest.raises(MigrationError) as caught:
        engine_api.reserve_space(second, 200 * MIB)
    assert caught.value.code == "no_space"
    assert caught.value.details == {"free": 400 * MIB, "needed": 600 * MIB}
    for part in (str(tmp_path), "400 MiB left", "300 MiB that other moves", "may take 600 MiB here. Make room."):
        assert part in caught.value.message
    first.enter("aborted")
    first.close(keep=True)
    engine_api.reserve_space(second, 200 * MIB)
