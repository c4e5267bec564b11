# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A decision on a disk that takes no change: the presumed one counts in memory, the other has to be on the disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    DECISIONS,
    DESTINATION,
    GO_SENT,
    PRESUMED,
    RUN,
    SOURCE,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.disks import with_read_only
from tests.unit.helpers.support import bring_to

MakeSession = Callable[..., Session]

ROLES = (SOURCE, DESTINATION)


@pytest.fixture(params=ROLES)
def used(request: pytest.FixtureRequest, make_session: MakeSession) -> Session:
    """A session of which a step has been done."""
    session = make_session(request.param)
    with session.locked():
        pass
    return session


def _decide_read_only(session: Session, *decisions: str, locked: bool = True) -> list[str]:
    """What comes of decisions on a file system that is read-only."""

    def work() -> list[str]:
        outcomes = []
        for decision in decisions:
            try:
                if locked:
                    with session.locked(alive=False):
                        outcomes.append(session.decide(decision))
                else:
                    outcomes.append(session.decide(decision))
            except OSError as exc:
                outcomes.append(errno.errorcode[exc.errno or 0])
        return outcomes

    return with_read_only(session.directory, work)


@pytest.mark.usefixtures("needs_namespaces")
def test_only_the_presumed_one_is_made_where_nothing_can_be_written(used: Session, roots: dict[str, str]) -> None:
    lasting, presumed = DECISIONS[used.role]
    assert presumed == PRESUMED[used.role]
    assert _decide_read_only(used, lasting, presumed, lasting) == ["EROFS", presumed, presumed]
    assert Session(used.id, **roots).decision == presumed
    assert not os.path.exists(used.path("decision"))


@pytest.mark.usefixtures("needs_namespaces")
def test_who_does_not_hold_the_lock_decides_nothing_in_memory(used: Session) -> None:
    assert _decide_read_only(used, PRESUMED[used.role], locked=False) == ["EROFS"]
    assert used.decision is None


@pytest.mark.usefixtures("needs_namespaces")
def test_what_is_decided_is_found_where_nothing_can_be_written(used: Session) -> None:
    lasting, presumed = DECISIONS[used.role]
    used.decide(lasting)
    assert _decide_read_only(used, presumed, lasting) == [lasting, lasting]


@pytest.mark.usefixtures("needs_namespaces")
def test_one_in_memory_counts_until_the_host_goes_down(used: Session, roots: dict[str, str]) -> None:
    _decide_read_only(used, PRESUMED[used.role])
    shutil.rmtree(used.volatile)
    again = Session(used.id, **roots)
    assert again.decision is None
    assert again.decide(PRESUMED[used.role]) == PRESUMED[used.role]


@pytest.mark.usefixtures("needs_namespaces")
def test_one_in_memory_gets_into_the_record(used: Session, roots: dict[str, str]) -> None:
    presumed = PRESUMED[used.role]
    _decide_read_only(used, presumed)
    bring_to(used, "aborted" if used.role == SOURCE else "refused")
    with used.locked():
        used.close(keep=True)
    assert not os.path.exists(used.volatile)
    assert Session(used.id, **roots).decision == presumed


def _fails_to_flush(patch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    patch.setattr(durable, "sync_directory", fails)


def test_what_may_not_be_on_the_disk_is_not_made_a_decision_to_act_on(used: Session, roots: dict[str, str]) -> None:
    """link() has shown it, and a power cut might take it back."""
    lasting, presumed = DECISIONS[used.role]
    with pytest.MonkeyPatch.context() as patch, used.locked():
        _fails_to_flush(patch)
        for _attempt in range(2):
            with pytest.raises(MigrationError) as caught:
                used.decide(lasting)
            assert caught.value.code == "decision_not_durable"
        reader = Session(used.id, **roots)
        if lasting == GO_SENT:
            # It has the destination asked, which is what is to be done in any case.
            assert reader.decide(presumed) == reader.decision == GO_SENT
        else:
            # It may be there after a power cut, and it may be not: neither is given out.
            for ask in (lambda: reader.decision, lambda: reader.decide(presumed)):
                with pytest.raises(MigrationError, match=f"^{RUN} has been decided"):
                    ask()
    assert Session(used.id, **roots).decision == lasting


def test_what_was_acted_on_was_on_the_disk(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = make_session(DESTINATION)
    session.decide(RUN)
    bring_to(session, "run")
    with pytest.MonkeyPatch.context() as patch:
        _fails_to_flush(patch)
        assert Session(session.id, **roots).decision == RUN


def test_the_presumed_one_counts_though_it_cannot_be_flushed(used: Session, roots: dict[str, str]) -> None:
    presumed = PRESUMED[used.role]
    with pytest.MonkeyPatch.context() as patch, used.locked():
        _fails_to_flush(patch)
        assert used.decide(presumed) == presumed
        assert Session(used.id, **roots).decision == presumed


def test_a_session_of_an_earlier_version_has_laid_nothing_down(used: Session) -> None:
    for path in Path(used.directory).glob("ready.*"):
        path.unlink()
    assert used.decide(DECISIONS[used.role][0]) == DECISIONS[used.role][0]


def test_a_session_that_is_gone_decides_nothing(used: Session) -> None:
    with used.locked():
        shutil.rmtree(used.directory)
        with pytest.raises(FileNotFoundError):
            used.decide(PRESUMED[used.role])
