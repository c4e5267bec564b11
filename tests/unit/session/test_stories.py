# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person is told of a session, wherever it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    ABORT,
    DECISIONS,
    DESTINATION,
    GO_SENT,
    REFUSED,
    RUN,
    SOURCE,
    TRANSITIONS,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import OTHER_CONTAINER, bring_to

MakeSession = Callable[..., Session]


PLACES = [
    (role, phase, decision)
    for role in TRANSITIONS
    for phase in TRANSITIONS[role]
    for decision in (None, *DECISIONS[role])
]


def _silent(session: Session) -> Session:
    (Path(session.volatile) / "lease").unlink(missing_ok=True)
    return session


@pytest.mark.parametrize(("role", "phase", "decision"), PLACES)
def test_there_is_a_story_for_every_place_in_which_a_session_can_be(
    role: str, phase: str, decision: str | None, make_session: MakeSession
) -> None:
    for peer in ("beta", None):
        session = make_session(role, container=f"{bool(peer):064x}", peer_name=peer)
        if decision:
            session.decide(decision)
        bring_to(session, phase)
        text = session_stories.story(session)
        assert "{" not in text
        assert "None" not in text
        assert len(text.split()) > 2
        if phase == "closed":
            assert "waiting" not in text
            assert "abandoned" not in text
        else:
            assert "at work, or waiting" in text
            assert session_stories.story(_silent(session)).endswith("(abandoned)")


@pytest.mark.parametrize(
    ("role", "phase", "decision", "says", "never"),
    [
        (SOURCE, "prepared", None, ["runs here"], ["frozen"]),
        (SOURCE, "armed", None, ["runs here"], ["handed over"]),
        (SOURCE, "dumped", None, ["frozen here"], ["runs"]),
        (SOURCE, "sent", None, ["frozen here", "not yet handed over"], ["runs here"]),
        (
            SOURCE,
            "sent",
            GO_SENT,
            ["handed over to beta", "frozen here", "recover_destination_lost={session}"],
            ["runs here"],
        ),
        (SOURCE, "sent", ABORT, ["given up"], ["handed over"]),
        (SOURCE, "held", None, ["frozen here", "held on beta", "not yet handed over"], ["runs"]),
        (SOURCE, "held", GO_SENT, ["handed over to beta", "frozen here"], ["runs here", "not yet"]),
        (SOURCE, "held", ABORT, ["given up"], ["handed over"]),
        (SOURCE, "committed", GO_SENT, ["moved to beta"], ["stayed", "not moved"]),
        (SOURCE, "aborted", ABORT, ["not moved", "stayed here"], ["handed over"]),
        (DESTINATION, "created", None, ["not started"], ["runs"]),
        (DESTINATION, "held", None, ["held", "has run nothing"], ["runs here"]),
        (DESTINATION, "run", RUN, ["runs here"], ["refused"]),
        (DESTINATION, "refused", REFUSED, ["refused", "taken away"], ["runs here"]),
    ],
)
def test_the_story_says_where_the_container_runs(
    role: str, phase: str, decision: str | None, says: list[str], never: list[str], make_session: MakeSession
) -> None:
    session = make_session(role)
    if decision:
        session.decide(decision)
    text = session_stories.story(bring_to(session, phase))
    for part in says:
        assert part.format(session=session.id) in text
    for part in never:
        assert part not in text


@pytest.mark.parametrize(
    ("role", "way", "decision", "reported"),
    [
        (SOURCE, "committed", GO_SENT, "moved to beta"),
        (SOURCE, "aborted", ABORT, "not moved to beta; the container stayed here"),
        (DESTINATION, "run", RUN, "moved here from beta"),
        (
            DESTINATION,
            "refused",
            REFUSED,
            "refused here; the container stayed on beta, which may not know that yet (recover.yml, for both hosts)",
        ),
    ],
)
def test_the_end_of_the_story(role: str, way: str, decision: str, reported: str, make_session: MakeSession) -> None:
    session = make_session(role)
    session.decide(decision)
    bring_to(session, way).close(keep=True)
    assert session_stories.story(session) == reported


def test_a_destination_that_was_declared_lost_is_a_warning_for_good(make_session: MakeSession) -> None:
    session = bring_to(make_session(), "sent")
    session.decide(GO_SENT)
    session.enter("aborted", destination_lost=True)
    session.close(keep=True)
    assert "Remove the copy there" in session_stories.story(session)


@pytest.mark.usefixtures("host_roots")
def test_sessions_are_chosen_by_id_or_by_what_a_person_calls_the_container(make_session: MakeSession) -> None:
    web = make_session(container_name="web")
    other = make_session(container=OTHER_CONTAINER, container_name="other")

    def chosen(session: str | None, container: str | None) -> list[str]:
        return [found.id for found in session_stories.chosen(session, container)]

    assert chosen(None, None) == [web.id, other.id]
    assert chosen(other.id, None) == [other.id]
    assert chosen(None, "web") == chosen(None, "/web") == [web.id]
    assert chosen(None, OTHER_CONTAINER) == chosen(None, OTHER_CONTAINER[:12]) == [other.id]
    assert chosen(None, OTHER_CONTAINER[:6]) == []
    assert chosen(None, "nobody") == []
    assert chosen("20261123T999999Z-ffffff", None) == []
    for session, container in (("../x", None), (None, "../x"), (None, "")):
        with pytest.raises(MigrationError):
            session_stories.chosen(session, container)


@pytest.mark.usefixtures("host_roots")
def test_stories_are_summaries_that_can_be_sent(make_session: MakeSession) -> None:
    make_session()
    (reported,) = session_stories.stories()
    assert json.loads(json.dumps(reported)) == reported
    assert reported["phase"] == "opened"
    assert reported["story"].startswith("being prepared; the container runs here untouched")
