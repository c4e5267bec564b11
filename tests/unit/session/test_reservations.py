# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory and disk space that sessions have reserved: what others are told of it, while it is used and after that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from ansible_collections.livemigrate.criu.plugins.module_utils._session import reservations
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import OTHER_CONTAINER

MakeSession = Callable[..., Session]
MIB = 1 << 20


def _seen_by(session: Session, directory: Path) -> tuple[int, int]:
    with reservations.in_turns(session) as reserved:
        return reserved.memory, reserved.disk(str(directory))


def test_what_others_have_reserved_is_reported_and_not_who_has(make_session: MakeSession, disk: Path) -> None:
    one, other = make_session(), make_session(container=OTHER_CONTAINER)
    assert _seen_by(one, disk) == (0, 0)
    with reservations.in_turns(one):
        reservations.reserve(one, memory=5 * MIB, disk=7 * MIB, directory=str(disk))
    assert _seen_by(one, disk) == (0, 0)
    assert _seen_by(other, disk) == (5 * MIB, 7 * MIB)
    # A later one replaces it.
    with reservations.in_turns(one):
        reservations.reserve(one, memory=MIB)
    assert _seen_by(other, disk) == (MIB, 0)
    for _again in range(2):
        reservations.release(one)
        assert _seen_by(other, disk) == (0, 0)


def test_what_is_used_already_is_not_counted_twice(make_session: MakeSession, disk: Path) -> None:
    one, other = make_session(), make_session(container=OTHER_CONTAINER)
    used = disk / "used" / "below"
    used.mkdir(parents=True)
    with reservations.in_turns(one):
        reservations.reserve(one, disk=4 * MIB, directory=str(disk), used_in=[str(disk / "used")])
    (used / "file").write_bytes(os.urandom(MIB))
    os.sync()
    taken = (used / "file").stat().st_blocks * 512
    assert taken >= MIB
    assert _seen_by(other, disk) == (0, 4 * MIB - taken)
    (used / "more").write_bytes(os.urandom(5 * MIB))
    assert _seen_by(other, disk) == (0, 0), "more than was reserved is not less than nothing"


def test_who_looks_meanwhile_waits(make_session: MakeSession, disk: Path) -> None:
    one, other = make_session(), make_session(container=OTHER_CONTAINER)
    seen: list[tuple[int, int]] = []
    with reservations.in_turns(one):
        waiting = threading.Thread(target=lambda: seen.append(_seen_by(other, disk)))
        waiting.start()
        waiting.join(0.2)
        assert seen == []
        reservations.reserve(one, memory=MIB)
    waiting.join(10)
    assert seen == [(MIB, 0)]
