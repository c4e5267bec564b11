# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch must see what a bad migration does, and nothing where all is well: it judges the other tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.workloads.watch import Report, Watch


class Process:
    """Stands for a counting container: a count that goes up with time, or a frozen one."""

    def __init__(self, name: str = "one", start: int = 0) -> None:
        self.token, self._start, self._began = name, start, time.monotonic()
        self.frozen = False

    def answer(self) -> str:
        count = self._start + (0 if self.frozen else int((time.monotonic() - self._began) * 100))
        return f'{{"count": {count}, "token": "{self.token}"}}'


class Place:
    """An address at which a process may be running, or none."""

    def __init__(self) -> None:
        self.process: Process | None = None
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                process = place.process
                self.send_response(503 if process is None else 200)
                self.end_headers()
                self.wfile.write(b"nobody" if process is None else process.answer().encode())

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """Two addresses, nobody at either."""
    both = (Place(), Place())
    yield both
    for place in both:
        place.server.shutdown()
        place.server.server_close()


def _watched(places: tuple[Place, Place], happening: Callable[[], None], expected: str = "") -> Report:
    with Watch([place.url for place in places], interval=0.02, timeout=0.5, token=expected) as watch:
        time.sleep(0.3)
        happening()
        time.sleep(0.3)
    return watch.report()


def test_a_good_move_is_ok_and_its_gap_is_reported(places: tuple[Place, Place]) -> None:
    here, there = places
    moving = here.process = Process()

    def move() -> None:
        here.process = None
        time.sleep(0.4)
        there.process = moving

    report = _watched(places, move)
    assert report.violations == []
    assert 0.35 < report.longest_gap < 0.9
    assert 0.1 < report.longest_gap_at < 0.5
    assert [entry["to"] for entry in report.moves] == [there.url]
    assert report.answered_last == there.url
    assert report.last_count > report.first_count


def test_silence_at_the_end_counts_as_a_gap(places: tuple[Place, Place]) -> None:
    places[0].process = Process()

    def die() -> None:
        places[0].process = None
        time.sleep(0.5)

    report = _watched(places, die)
    assert report.ok
    assert report.longest_gap > 0.7


def test_a_fresh_start_is_seen(places: tuple[Place, Place]) -> None:
    here, there = places
    here.process = Process()

    def restart_there() -> None:
        here.process = None
        there.process = Process("two", start=100_000)

    report = _watched(places, restart_there)
    assert len(report.violations) == 1
    assert "token two, not one" in report.violations[0]


def test_another_token_than_the_expected_one_is_seen(places: tuple[Place, Place]) -> None:
    places[0].process = Process()
    report = _watched(places, lambda: None, expected="other")
    assert "token one, not other" in report.violations[0]


def test_a_count_that_goes_back_is_seen(places: tuple[Place, Place]) -> None:
    here, there = places
    here.process = Process(start=5000)

    def restore_an_old_state() -> None:
        here.process = None
        there.process = Process(start=4000)

    report = _watched(places, restore_an_old_state)
    assert "after 50" in report.violations[0]


def test_two_that_run_at_once_are_seen(places: tuple[Place, Place]) -> None:
    places[0].process = Process()

    def fork() -> None:
        places[1].process = places[0].process

    report = _watched(places, fork)
    assert "two are running" in report.violations[0]


def test_a_count_that_stands_still_is_seen(places: tuple[Place, Place]) -> None:
    places[0].process = Process(start=7)
    places[0].process.frozen = True
    report = _watched(places, lambda: None)
    assert len(report.violations) == 1
    assert "stood still at 7" in report.violations[0]


def test_no_answer_at_all_is_no_success(places: tuple[Place, Place]) -> None:
    report = _watched(places, lambda: None)
    assert report.violations == ["no good answer at all"]
    assert "HTTP status 503" in report.places[0]["failures"]
