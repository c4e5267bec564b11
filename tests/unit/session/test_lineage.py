# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a thing was called before it came here, and which sessions have moved it away from here earlier."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session import lineage
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, SOURCE
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, bring_to

MakeSession = Callable[..., Session]
OLDEST = "e" * 64


@pytest.mark.usefixtures("host_roots")
def test_its_earlier_ids_are_known_where_it_has_arrived(make_session: MakeSession) -> None:
    assert lineage.ancestry(OTHER_CONTAINER) == []
    session = make_session(DESTINATION, container=CONTAINER, ancestry=[OLDEST])
    session.enter("creating")
    session.enter("created", container_id=OTHER_CONTAINER)
    assert lineage.ancestry(OTHER_CONTAINER) == [], "it does not run here before RUN"
    session.enter("starting")
    session.enter("run", container_id=OTHER_CONTAINER)
    assert lineage.ancestry(OTHER_CONTAINER) == [CONTAINER, OLDEST]
    assert lineage.ancestry(CONTAINER) == []


@pytest.mark.usefixtures("host_roots")
def test_what_it_has_left_here_is_that_of_moves_that_were_made(make_session: MakeSession) -> None:
    left = bring_to(make_session(SOURCE, container=CONTAINER), "committed")
    bring_to(make_session(SOURCE, container=OLDEST), "aborted")
    make_session(DESTINATION, container=OTHER_CONTAINER)
    assert [one.id for one in lineage.past_of([CONTAINER, OLDEST, OTHER_CONTAINER])] == [left.id]
    assert lineage.past_of([OTHER_CONTAINER]) == []
