# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The article's WordPress on Docker 28, which the engine `api` cannot restore: under load, there and back."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import matrix
from tests.moves.host_conditions import containerd_store
from tests.moves.moving_counter import Moving, gap_reported, remove
from tests.moves.pair import Pair
from tests.workloads import database, wordpress_state
from tests.workloads.host import Host
from tests.workloads.probe import Answer
from tests.workloads.recipes import RECIPES
from tests.workloads.watch import Watch
from tests.workloads.wordpress_client import WordPress, WordPressError

pytestmark = pytest.mark.usefixtures("pipelined")

_PORTS = itertools.count(9181)

# How the article starts its container. Without these it is started as one would do it today.
ARTICLE = ["--privileged", "--security-opt", "seccomp:unconfined"]


@dataclass
class Site(Moving):
    """A WordPress that moves between hosts; its count and token are in Apache's shared memory."""

    def url(self, host: Host) -> str:
        """Where it tells its count if it runs there."""
        return f"{self.site(host)}/proof.php"

    def site(self, host: Host) -> str:
        """Its address if it runs there."""
        return f"http://{host.address}:{self.port}"


class Visitors:
    """Read the front page all the time, wherever it may be: PHP, files, and questions to the database."""

    def __init__(self, *sites: str) -> None:
        self._sites = sites
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(site,), daemon=True) for site in sites]
        self.pages = dict.fromkeys(sites, 0)

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    def _read(self, site: str) -> None:
        visitor = WordPress(site, timeout=2)
        while not self._stopping.is_set():
            try:
                visitor.front_page()
                self.pages[site] += 1
            except WordPressError:
                # It is on the other host, or on its way there.
                self._stopping.wait(0.05)


@contextmanager
def running_site(pair: Pair, path: Path, flags: list[str], *, timeout: float = 180) -> Iterator[tuple[Site, str]]:
    """A WordPress on the first host with its database on gamma, and the password of its administrator.

    :param timeout: seconds until it must answer.
    """
    port = next(_PORTS)
    # Both pairs of hosts have their databases on gamma.
    name, base = f"engine-{port}", f"wp_{pair.alpha.name}_{port}"
    services = Host.of_lab("gamma")
    recipe = RECIPES["wordpress"]
    password = secrets.token_hex(12)
    kept = database.create(services, base)
    moving = Site(name, port, path, Answer(0, "", {}), [pair.alpha, pair.beta])
    try:
        arguments = ["-e", f"WORDPRESS_ADMIN_PASSWORD={password}", "-p", f"{port}:80", "--restart", "unless-stopped"]
        pair.alpha.start(name, pair.alpha.load(recipe), [*kept.environment(), *arguments, *flags])
        moving.first = pair.alpha.wait_until_answering(name, recipe, timeout=timeout)
        yield moving, password
    finally:
        remove(moving)
        database.drop(services, base)


def assert_all_there(site: str, noted: dict[str, Any], *, timeout: float = 15) -> None:
    """Everything is there. A worker that has a visitor at the moment is asked again, for so many seconds."""
    deadline = time.monotonic() + timeout
    while wrong := wordpress_state.verify(site, noted):
        assert time.monotonic() < deadline, "\n".join(wrong)


def _moves(pair: Pair, path: Path, flags: list[str], *ways: tuple[Host, Host], engine: str = "runtime") -> None:
    """Post, upload, PHP session, shared memory and every worker process are those from before, on every way, under load."""
    with running_site(pair, path, flags) as (moving, password):
        noted = wordpress_state.fill(moving.site(pair.alpha), "admin", password)
        assert len(noted["workers"]) >= 4, noted["workers"]
        places = [moving.site(host) for host in pair.hosts]
        with (
            Watch([moving.url(host) for host in pair.hosts], token=noted["site"]["token"], timeout=3) as watch,
            Visitors(*places) as visitors,
        ):
            for here, there in ways:
                before = visitors.pages[moving.site(here)]
                output = moving.move(here, there, "-e", f"migrate_engine={engine}").succeed()
                assert f"Engine {engine}" in output
                assert visitors.pages[moving.site(here)] > before, "there was no load"
                moving.assert_runs_on(there)
                assert_all_there(moving.site(there), noted)
                print(f"{here.name} to {there.name}: gap {gap_reported(output):.2f} s")
                matrix.note(here, there, engine=engine, what="WordPress (Apache and PHP), under load")
        report = watch.report()
        assert not report.violations
        assert all(visitors.pages.values()), visitors.pages


def test_as_the_article_starts_it(newer: Pair, tmp_path: Path) -> None:
    """And not back again: extensions/molecule/wordpress does that."""
    here, there = newer.hosts
    _moves(newer, tmp_path, ARTICLE, (here, there))


def test_without_privileges_in_the_containerd_image_store(newer: Pair, tmp_path: Path) -> None:
    here, there = newer.hosts
    with containerd_store(here, there):
        _moves(newer, tmp_path, [], (here, there))


def test_with_the_engine_api_on_docker_26(older: Pair, tmp_path: Path) -> None:
    _moves(older, tmp_path, ARTICLE, older.hosts, engine="api")
