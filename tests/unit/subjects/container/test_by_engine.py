# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container in a session is by the engine of that session: whether it can be held, and which steps it has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.by_engine import ByEngine


@pytest.mark.parametrize(("engine", "held"), [("runtime", True), ("api", False)])
def test_a_step_of_the_other_engine_is_refused(engine: str, held: bool, make_session: Callable[..., Session]) -> None:
    one = ByEngine(make_session(engine=engine))
    assert one.can_be_held is held
    one.require_held(held)
    with pytest.raises(MigrationError, match=engine):
        one.require_held(not held)
