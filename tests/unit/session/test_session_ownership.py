# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may work on a session (locks), and for how long it may be silent (leases)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import bring_to, hold_lock, race, wait_for

MakeSession = Callable[..., Session]


# -- locks -----------------------------------------------------------------------------------------------------------


def test_of_several_processes_one_at_a_time_works_on_a_session(
    make_session: MakeSession, roots: dict[str, str], tmp_path: Path
) -> None:
    session_id = make_session().id
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_number: int) -> None:
        for _turn in range(5):
            with Session(session_id, **roots).locked():
                value = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(value + 1))

    assert race(4, count) == [("ok", None)] * 4
    assert counter.read_text() == "20"


def test_a_lock_goes_with_its_holder_however_that_dies(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = make_session()
    holder = hold_lock(session.id, roots)
    try:
        with pytest.raises(MigrationError) as caught, session.locked(timeout=0.1):
            pass
        assert caught.value.code == "session_locked"
        assert caught.value.details == {"session": session.id, "phase": "opened"}
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    started = time.monotonic()
    with session.locked(timeout=5):
        assert time.monotonic() - started < 1


def test_who_waits_for_a_lock_gets_it_when_it_is_free(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = make_session()
    holder = hold_lock(session.id, roots)
    killer = threading.Timer(0.2, os.kill, (holder, signal.SIGKILL))
    killer.start()
    with session.locked(timeout=5):
        pass
    killer.join()
    os.waitpid(holder, 0)


def test_a_lock_is_free_after_an_error(make_session: MakeSession) -> None:
    session = make_session()
    with pytest.raises(ZeroDivisionError), session.locked():
        _nothing = 1 / 0
    with session.locked(timeout=0):
        pass


def test_a_program_that_was_started_under_a_lock_does_not_hold_it(make_session: MakeSession) -> None:
    from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run

    session = make_session()
    with session.locked():
        pid = int(run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]).stdout)
    try:
        with session.locked(timeout=0):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)


# -- leases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "phase", "seconds"),
    [
        (SOURCE, "opened", sessions.PREPARING_LEASE_SECONDS),
        (SOURCE, "prepared", sessions.PREPARING_LEASE_SECONDS),
        (SOURCE, "arming", sessions.LEASE_SECONDS),
        (SOURCE, "freezing", sessions.LEASE_SECONDS),
        (SOURCE, "sent", sessions.LEASE_SECONDS),
        (SOURCE, "held", sessions.LEASE_SECONDS),
        (DESTINATION, "opened", sessions.PREPARING_LEASE_SECONDS),
        (DESTINATION, "starting", sessions.HELD_LEASE_SECONDS),
        (DESTINATION, "held", sessions.HELD_LEASE_SECONDS),
        # What is decided is tidied up soon, although nobody comes to hear of it.
        (DESTINATION, "run", sessions.LEASE_SECONDS),
        (DESTINATION, "refused", sessions.LEASE_SECONDS),
    ],
)
def test_a_sign_of_life_counts_longer_while_nothing_is_frozen(
    role: str, phase: str, seconds: float, make_session: MakeSession, roots: dict[str, str]
) -> None:
    session = bring_to(make_session(role), phase)
    session.renew()
    # It is stored in thousandths of a second, and this machine may be busy.
    assert seconds - 5 < Session(session.id, **roots).lease_left <= seconds + 0.001


def test_a_lease_runs_out(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.2)
    session = bring_to(make_session(), "arming")
    session.renew()
    assert session.lease_left > 0
    wait_for(lambda: session.lease_left == 0, "the lease is over", 2)
    session.renew()
    assert session.lease_left > 0


def test_no_lease_outlives_a_reboot(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session()
    assert session.lease_left > 0
    kernel, _slash, ticks = boot.boot_identity().rpartition("/")
    for mark in (f"{kernel}/{int(ticks) + 1}", f"00000000-0000-0000-0000-000000000000/{ticks}"):
        with monkeypatch.context() as patch:
            patch.setattr(boot, "boot_identity", lambda mark=mark: mark)
            assert session.lease_left == 0
    assert session.lease_left > 0


@pytest.mark.parametrize("content", [None, "", "x", "one two three"])
def test_what_is_no_lease_is_none(content: str | None, make_session: MakeSession) -> None:
    session = make_session()
    lease = Path(session.volatile) / "lease"
    lease.unlink()
    if content is not None:
        lease.write_text(content)
    assert session.lease_left == 0


def test_who_holds_the_lock_is_alive_until_it_is_given_back(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LEASE_SECONDS", 0.4)
    session = bring_to(make_session(), "freezing")
    with session.locked():
        lowest = 1.0
        deadline = time.monotonic() + 1.0
        wait_for(lambda: 0 < session.lease_left <= 0.4, "the lease of a frozen container", 2)
        while time.monotonic() < deadline:
            lowest = min(lowest, session.lease_left)
            time.sleep(0.02)
        assert lowest > 0
    wait_for(lambda: session.lease_left == 0, "the lease is over", 2)


def test_the_watchdog_s_own_attempts_are_no_sign_of_life(make_session: MakeSession) -> None:
    session = make_session()
    (Path(session.volatile) / "lease").unlink()
    with session.locked(alive=False):
        time.sleep(0.05)
        assert session.lease_left == 0


def test_a_long_sign_of_life_from_before_the_freeze_does_not_outlast_it(make_session: MakeSession) -> None:
    """A step that begins while the container runs and ends with it frozen leaves it to the watchdog within half a minute."""
    session = bring_to(make_session(), "armed")
    session.enter("freezing", at=1.0)
    # It is stored in thousandths of a second.
    assert 0 < session.lease_left <= 30.001
