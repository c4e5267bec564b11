# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a step waits for the Docker Engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import CALL_TIMEOUT
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper
from tests.unit.helpers.engine_socket import hanging_engine


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An engine that can be connected."""
    with hanging_engine(tmp_path, monkeypatch, tells_its_version=True):
        yield


def test_a_time_to_connect_is_not_the_time_of_all_calls_after_that() -> None:
    """Else a watchdog could never remove a copy with a large layer."""
    one = keeper.Keeper()
    one.reach(10)
    assert one.engine._client.timeout == CALL_TIMEOUT
    with one.within(3) as engine:
        assert engine._client.timeout == 3
    assert one.engine._client.timeout == CALL_TIMEOUT


def test_a_block_that_connects_has_its_own_time() -> None:
    one = keeper.Keeper()
    with one.within(3) as engine:
        assert engine._client.timeout == 3
    assert one.engine._client.timeout == CALL_TIMEOUT
