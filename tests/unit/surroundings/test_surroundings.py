# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the topics of the surroundings are asked, with topics that note it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import surroundings
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side

# Nothing of it is its own, so no namespace is entered.
SIDE = Side(os.getpid(), TaskGroup("/nowhere"), "/nowhere", own_network=True)


class Topic:
    """A topic that has one value on the source and another on the copy."""

    def __init__(self, name: str, *, of_processes: bool = False, can_be_carried: bool = True) -> None:
        self.NAME = name
        self.OF_PROCESSES = of_processes
        self.can_be_carried = can_be_carried
        self.copy = "the copy's"
        self.taken_with: list[Any] = []
        self.may_be_read = threading.Event()
        self.may_be_read.set()

    def look_ahead(self, side: Side) -> Any:  # noqa: ARG002
        return f"ahead of {self.NAME}"

    def take(self, side: Side, ahead: Any) -> Any:  # noqa: ARG002
        self.may_be_read.wait(10)
        self.taken_with.append(ahead)
        return "the source's"

    def carry(self, side: Side, source: Any) -> None:  # noqa: ARG002
        if self.can_be_carried:
            self.copy = source

    def compare(self, side: Side, source: Any) -> Sequence[str]:  # noqa: ARG002
        return [] if self.copy == source else [f"{self.NAME} is another one"]


class Broken(Topic):
    """One that cannot be read, on whichever host."""

    def look_ahead(self, side: Side) -> Any:  # noqa: ARG002
        raise PermissionError(13, "Permission denied")

    def take(self, side: Side, ahead: Any) -> Any:  # noqa: ARG002
        return self.look_ahead(side)

    def carry(self, side: Side, source: Any) -> None:  # noqa: ARG002
        raise PermissionError(13, "Permission denied")


Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """A function that has these topics asked and no others."""
    return lambda *topics: monkeypatch.setattr(surroundings, "_TOPICS", topics)


def test_processes_are_read_at_once_and_the_rest_beside(use: Use) -> None:
    """CRIU works in the processes as soon as the dump begins, and the dump need not wait for the rest."""
    processes, rest = Topic("processes", of_processes=True), Topic("rest")
    use(rest, processes)
    rest.may_be_read.clear()
    with surroundings.Reading(SIDE, surroundings.look_ahead(SIDE)) as reading:
        assert processes.taken_with == ["ahead of processes"]
        assert rest.taken_with == []
        rest.may_be_read.set()
        assert reading.result() == {"processes": "the source's", "rest": "the source's"}
    assert rest.taken_with == ["ahead of rest"]


@pytest.mark.parametrize("of_processes", [True, False])
def test_what_cannot_be_read_is_no_move(use: Use, of_processes: bool) -> None:
    """Else it would be lost in silence."""
    use(Broken("sysctls", of_processes=of_processes))
    with pytest.raises(MigrationError, match=r"\(sysctls\): .*Permission denied") as caught:  # noqa: SIM117
        with surroundings.Reading(SIDE, surroundings.look_ahead(SIDE)) as reading:
            reading.result()
    assert caught.value.code == "surroundings_unreadable"


def test_what_differs_is_carried_and_what_is_left_is_reported(use: Use) -> None:
    use(carried := Topic("limits"), Topic("owner", can_be_carried=False), Topic("unknown to the source"))
    assert surroundings.bring_over(SIDE, {"limits": "1", "owner": "2"}) == ["owner is another one"]
    assert carried.copy == "1"


def test_all_is_carried_before_anything_is_compared(use: Use) -> None:
    """And what others depend on before them: they look at what it has left."""
    done: list[str] = []

    class Noting(Topic):
        def carry(self, side: Side, source: Any) -> None:
            # Whoever does not wait is done before.
            time.sleep(0.05 if self.NAME in ("cgroup", "sysctls", "slow") else 0)
            done.append(f"carry {self.NAME}")
            super().carry(side, source)

        def compare(self, side: Side, source: Any) -> Sequence[str]:
            done.append(f"compare {self.NAME}")
            return super().compare(side, source)

    names = ("sockets", "quick", "slow", "sysctls", "cgroup")
    use(*(Noting(name) for name in names))
    assert surroundings.bring_over(SIDE, dict.fromkeys(names, "1")) == []
    assert set(done[:2]) == {"carry cgroup", "carry sysctls"}
    # They name addresses and devices that others make.
    assert done[4] == "carry sockets"
    assert set(done[2:4]) == {"carry quick", "carry slow"}


def test_what_cannot_be_compared_counts_as_different(use: Use) -> None:
    use(Broken("mounts"))
    [difference] = surroundings.bring_over(SIDE, {"mounts": "1"})
    assert difference.startswith("mounts cannot be compared")


def test_a_copy_that_is_gone_is_different(use: Use) -> None:
    use(Topic("mounts"))
    gone = Side(2**22 + 1, TaskGroup("/nowhere"), "/nowhere", own_network=True)
    [difference] = surroundings.bring_over(gone, {"mounts": "1"})
    assert difference.startswith("its namespaces cannot be entered")


def test_what_no_source_can_have_found_counts_as_different(use: Use) -> None:
    class Strange(Topic):
        def carry(self, side: Side, source: Any) -> None:  # noqa: ARG002
            raise ValueError("'..' is no descriptor")

    use(Strange("descriptors"))
    assert surroundings.bring_over(SIDE, {"descriptors": "1"}) == [
        "descriptors cannot be compared ('..' is no descriptor)"
    ]


def test_a_message_names_the_first_and_counts_the_others() -> None:
    assert surroundings.sentence(["a"]) == "The copy does not see what the original saw: a."
    assert surroundings.sentence([str(number) for number in range(10)]).endswith("7, and 2 more.")
