# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds by name: each is loaded when it is asked for, and has all that the machine asks of it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import FIRST_KIND, Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects import by_kind, subject
from tests.unit.helpers import moved
from tests.unit.helpers.support import PACKAGE, ROOT

MakeSession = Callable[..., Session]


def test_a_record_without_a_kind_is_of_the_first_one(make_session: MakeSession) -> None:
    """All records of the released version are."""
    kind = by_kind.of(make_session())
    assert kind.noun == FIRST_KIND
    assert set(by_kind.all_of_them()) >= {FIRST_KIND}


def test_a_kind_that_this_version_does_not_know_is_reported(roots: dict[str, str]) -> None:
    """A later version may have opened the session."""
    facts = {"kind": "ship", "ship_id": "ship.1"}
    session = Session.open("20261123T034500Z-3f9a1c", "source", facts, **roots)
    with pytest.raises(MigrationError) as caught:
        by_kind.of(session)
    assert caught.value.code == "kind_unknown"
    assert caught.value.message == "This version can move no ship; it can move: container."


def test_a_kind_is_loaded_when_it_is_asked_for_and_no_more_of_it_than_that(roots: dict[str, str]) -> None:
    """Each word through the channel is a start of the agent."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / ".tree")!r})
from {PACKAGE}._subjects import by_kind
def loaded():
    return {{name.partition("container.")[2] for name in sys.modules if "_subjects.container." in name}}
print(sorted(loaded()))
kind = by_kind.named("container")
print(sorted(loaded()))
from {PACKAGE}._base import durable
from {PACKAGE}._session.session import Session
durable._VOLATILE = frozenset()
session = Session.open("20261123T034500Z-3f9a1c", "destination", {{"container_id": "a" * 64}}, **{roots!r})
kind.copy(session)
print(sorted(loaded()))
print("docker" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "['keeper', 'kind']", "['by_engine', 'copy', 'keeper', 'kind']", "False"]


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_") and name != "session"]


@pytest.mark.parametrize(
    ("protocol", "make"),
    [
        (subject.Original, moved.original),
        (subject.Copy, moved.copy),
        (subject.Kind, lambda _session: moved.containers(object())),
    ],
)
def test_the_container_has_every_member_with_the_same_parameters(
    protocol: type, make: Callable[[Session], Any], make_session: MakeSession
) -> None:
    """mypy compares them, too; this is what the interpreter on a host finds."""
    own = type(make(make_session(engine="runtime")))
    assert len(_members(protocol)) > 8
    for name in _members(protocol):
        wanted, actual = getattr(protocol, name), getattr(own, name)
        if inspect.isfunction(wanted):
            assert list(inspect.signature(actual).parameters) == list(inspect.signature(wanted).parameters), name
