# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks a workload all the time, wherever it may be, and tells whether it was ever away or ever another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from .probe import Answer, NoAnswerError, ask

_MOST_VIOLATIONS = 20
# Seconds. No move there and back is that quick; two copies that both run answer in turns within a few tenths.
_FASTEST_RETURN = 2.0


@dataclass
class Place:
    """What was heard from one address."""

    url: str
    good: int = 0
    first_count: int | None = None
    last_count: int | None = None
    # Seconds since the watch began.
    first_at: float | None = None
    last_at: float | None = None
    # What was heard instead of an answer, and how often.
    failures: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """What a watch has seen. Times are seconds since it began (began_at, ISO 8601, UTC)."""

    began_at: str
    seconds: float
    good: int
    token: str
    first_count: int
    last_count: int
    # The longest time without a good answer from anywhere, the beginning and the end of the watch included.
    longest_gap: float
    longest_gap_at: float
    answered_last: str
    # When the answers began to come from another place, and from which.
    moves: list[dict[str, Any]]
    places: list[dict[str, Any]]
    violations: list[str]

    @property
    def ok(self) -> bool:
        """One process counted on all the time, in one place at a time."""
        return not self.violations

    def as_json(self) -> dict[str, Any]:
        """Plain data for json.dumps, `ok` included."""
        return {"ok": self.ok, **asdict(self)}


class Watch:
    """Watches the places (URLs) at which a workload may answer.

    Each has a thread of its own, so that a silent one does not hold up the others. Violations are: a count that went
    back, a new token, answers from two places in turns, no answer at all, and a count that stood still for as long as
    it answered.

    `with Watch(urls) as watch: ...` and then `watch.report()`; or start() and stop().
    """

    def __init__(self, urls: Sequence[str], *, interval: float = 0.1, timeout: float = 1.0, token: str = "") -> None:
        self._interval, self._timeout = interval, timeout
        self._token = token
        self._places = [Place(url) for url in urls]
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._began = 0.0
        self._began_at = ""
        self._ended: float | None = None
        self._highest = -1
        self._first_count: int | None = None
        self._good = 0
        self._last_good_at = 0.0
        self._longest: tuple[float, float] = (0.0, 0.0)
        self._answered_last: Place | None = None
        self._moves: list[dict[str, Any]] = []
        self._violations: list[str] = []
        self._strangers: set[str] = set()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to ask."""
        self._began = time.monotonic()
        self._began_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        for place in self._places:
            thread = threading.Thread(target=self._follow, args=(place,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Ends the watch; the answers still on their way count."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=self._timeout * 3 + 1)
        with self._lock:
            if self._ended is None:
                self._ended = self._now()

    def good_answers(self, url: str = "") -> int:
        """How many good answers there were so far, from one place or from all."""
        with self._lock:
            return sum(place.good for place in self._places if url in ("", place.url))

    def report(self) -> Report:
        """What was seen until now, or until stop()."""
        with self._lock:
            now = self._now() if self._ended is None else self._ended
            longest = max(self._longest, (now - self._last_good_at, self._last_good_at))
            violations = list(self._violations)
            if self._first_count is None:
                violations.append("no good answer at all")
            elif self._good > 3 and self._highest == self._first_count:
                violations.append(f"the count stood still at {self._highest} through {self._good} answers")
            return Report(
                began_at=self._began_at,
                seconds=round(now, 3),
                good=self._good,
                token=self._token,
                first_count=-1 if self._first_count is None else self._first_count,
                last_count=self._highest,
                longest_gap=round(longest[0], 3),
                longest_gap_at=round(longest[1], 3),
                answered_last=self._answered_last.url if self._answered_last else "",
                moves=list(self._moves),
                places=[asdict(place) for place in self._places],
                violations=violations,
            )

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _follow(self, place: Place) -> None:
        while not self._stopping.is_set():
            asked_at = time.monotonic()
            with self._lock:
                # Only answers to questions asked later than this must be as high.
                floor, heard_last = self._highest, self._answered_last
            try:
                answer = ask(place.url, self._timeout)
            except NoAnswerError as error:
                with self._lock:
                    words = str(error)[:80]
                    place.failures[words] = place.failures.get(words, 0) + 1
            else:
                with self._lock:
                    self._note(place, answer, floor, heard_last)
            self._stopping.wait(max(0.0, self._interval - (time.monotonic() - asked_at)))

    def _note(self, place: Place, answer: Answer, floor: int, heard_last: Place | None) -> None:
        now = self._now()
        gap = now - self._last_good_at
        self._longest = max(self._longest, (gap, self._last_good_at))
        self._last_good_at = now
        self._good += 1
        if not self._token:
            self._token = answer.token
        if answer.token != self._token:
            if answer.token not in self._strangers:
                self._strangers.add(answer.token)
                self._violate(f"{now:.3f} s: {place.url} has token {answer.token}, not {self._token}: another start")
        elif answer.count < floor:
            self._violate(f"{now:.3f} s: {place.url} counts {answer.count}, after {floor} was seen")
        if heard_last is not None and heard_last is not place:
            self._note_move(now, place)
        if self._first_count is None:
            self._first_count = answer.count
        if answer.token == self._token:
            self._highest = max(self._highest, answer.count)
        if place.first_at is None:
            place.first_count, place.first_at = answer.count, now
        place.last_count, place.last_at = answer.count, now
        place.good += 1
        if self._answered_last is None or heard_last in (None, self._answered_last):
            self._answered_last = place

    def _note_move(self, now: float, place: Place) -> None:
        """PLACE answered a question that was asked after another place had answered."""
        if self._moves and now - self._moves[-1]["at"] < _FASTEST_RETURN:
            self._violate(f"{now:.3f} s: {place.url} answers, {self._moves[-1]['to']} did just now: two are running")
        self._moves.append({"at": round(now, 3), "to": place.url})

    def _violate(self, text: str) -> None:
        if len(self._violations) < _MOST_VIOLATIONS:
            self._violations.append(text)
