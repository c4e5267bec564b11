# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A destination's half that has its word, and whose source never comes to hear it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import authorized_keys
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED, RUN
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.copy import Copy
from tests.unit.helpers import moved
from tests.unit.helpers.support import bring_to

MakeSession = Callable[..., Session]

ADMIN = "ssh-ed25519 AAAA admin@example.com\n"


class Half:
    """A half that is refused or runs, its key and its watchdog."""

    def __init__(self, session: Session, keys: Path, units: Path) -> None:
        self.session, self.keys, self.units = session, keys, units
        keys.write_text(f"{ADMIN}restrict,command=x ssh-ed25519 BBBB livemigrate:{session.id}\n")
        watchdog.arm(session.id, ("/bin/true",), lambda *_arguments, **_keywords: Completed(0, "", ""))

    def settle(self, **keywords: Any) -> None:
        """As the watchdog does."""
        with self.session.locked(alive=False):
            destination.settle(moved.copy(self.session), **keywords)

    @property
    def may_come_in(self) -> bool:
        return self.session.id in self.keys.read_text()

    @property
    def is_watched(self) -> bool:
        return any(self.units.iterdir())


@pytest.fixture(params=[REFUSED, RUN])
def half(
    request: pytest.FixtureRequest,
    make_session: MakeSession,
    host_roots: dict[str, str],
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Half:
    (disk / "units").mkdir()
    (disk / "sudoers.d").mkdir()
    keys = disk / "authorized_keys"
    monkeypatch.setattr(watchdog, "UNIT_DIRECTORY", str(disk / "units"))
    monkeypatch.setattr(channel_server, "SUDOERS_DIRECTORY", str(disk / "sudoers.d"))
    monkeypatch.setattr(authorized_keys, "STATE_ROOT", host_roots["state_root"])
    monkeypatch.setattr(authorized_keys, "path_of", lambda *_arguments: str(keys))
    # What is to be done with a copy is tested with copies; here it is about what is left when it has been done.
    monkeypatch.setattr(destination, "_decide", lambda copy, *_arguments: copy.session.decision)
    monkeypatch.setattr(destination, "finish", lambda *_arguments: None)
    monkeypatch.setattr(Copy, "hand_to_keeper", lambda _self: None)
    session = make_session(DESTINATION, channel_user=pwd.getpwuid(os.geteuid()).pw_name)
    bring_to(session, "starting")
    session.decide(request.param)
    session.enter("run" if request.param == RUN else "refused")
    return Half(session, keys, disk / "units")


def test_it_stays_to_be_asked_and_is_seldom_looked_at(half: Half) -> None:
    half.settle()
    assert half.may_come_in
    assert half.is_watched, "nobody would ever close it"
    assert 1000 < half.session.lease_left < 3601
    assert session_stories.story(half.session).endswith(("does not know that yet", "left to tidy up"))
    # After it has been asked the watchdog looks again soon, and then seldom.
    half.session.renew()
    assert half.session.lease_left < 31
    half.settle()
    assert half.session.lease_left > 1000


def test_it_is_looked_at_when_its_key_has_ended(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_server, "KEY_LIFE_SECONDS", 100)
    half.settle()
    assert 90 < half.session.lease_left < 102


def test_after_the_life_of_its_key_nobody_comes_in_and_nothing_looks_and_the_decision_stays(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = half.session.decision
    monkeypatch.setattr(channel_server, "KEY_LIFE_SECONDS", -1)
    half.settle()
    assert half.keys.read_text() == ADMIN
    assert not half.is_watched
    assert half.session.ended
    assert Session(half.session.id).decision == word
    assert sorted(os.listdir(half.session.directory)) == ["decision", "journal", "session.json"]


def test_when_the_source_knows_a_refusal_leaves_nothing_and_what_runs_leaves_its_record(half: Half) -> None:
    half.settle(source_knows=True)
    assert not half.may_come_in
    assert not half.is_watched
    assert os.path.isdir(half.session.directory) == (half.session.decision == RUN)
