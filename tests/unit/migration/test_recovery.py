# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What settling a session does, as far as it goes without an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import recovery
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    DESTINATION,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import bring_to

MakeSession = Callable[..., Session]


def _silent(session: Session) -> Session:
    (Path(session.volatile) / "lease").unlink(missing_ok=True)
    return session


def _settle(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "session": None,
        "name": None,
        "role": None,
        "wait": 0.0,
        "ignore_lease": False,
        "other_half_settled": False,
        "destination_lost": None,
        "check_mode": False,
    }
    return recovery.settle(**{**arguments, **changes})


@pytest.mark.usefixtures("host_roots")
def test_a_session_at_work_is_not_settled_over_its_head(make_session: MakeSession) -> None:
    session = bring_to(make_session(), "freezing")
    session.renew()
    with pytest.raises(MigrationError) as caught:
        _settle()
    assert caught.value.code == "session_busy"
    assert session.id in caught.value.message
    assert (session.phase, session.decision) == ("freezing", None)


@pytest.mark.usefixtures("host_roots")
def test_check_mode_says_what_there_is_to_do_and_does_nothing(make_session: MakeSession) -> None:
    session = _silent(bring_to(make_session(), "freezing"))
    answer = _settle(check_mode=True)
    assert answer["changed"] is True
    assert [entry["session"] for entry in answer["sessions"]] == [session.id]
    assert (session.phase, session.decision) == ("freezing", None)


@pytest.mark.usefixtures("host_roots")
def test_nothing_to_settle_is_no_change(make_session: MakeSession) -> None:
    assert _settle() == {"changed": False, "sessions": []}
    session = make_session()
    bring_to(session, "aborted").close(keep=True)
    assert _settle()["changed"] is False
    assert _settle(role=DESTINATION)["changed"] is False
