# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers and hosts that really are in a bad state: all of it is told before anything is touched, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

import pytest

from tests.moves.host_snapshot import assert_unchanged, snapshot
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.preflight.ground import (
    IMAGE,
    PREFIX,
    assert_counts,
    count,
    holding,
    look,
    preflight,
    refusals,
    shell,
    wait_until_held,
)
from tests.preflight.scenes import SCENES, Scene, Told

pytestmark = pytest.mark.usefixtures("pipelined")

NAME = f"{PREFIX}c"


def test_the_table_is_as_long_as_it_should_be() -> None:
    """25 rules at least, a third of them about the hosts."""
    rules = {rule for scene in SCENES.values() for rule in (*scene.errors, *scene.api)}
    hosts = {rule for name in ("destination", "hosts", "engine-stopped") for rule in SCENES[name].errors}
    print(f"{len(rules)} rules, {len(hosts)} of them about hosts")
    assert len(rules) >= 25
    assert len(hosts) * 3 >= len(rules)


def _addresses(pair: Pair) -> dict[str, str]:
    """What the scenes write in braces."""
    source, destination = pair.alpha.address, pair.beta.address
    return {"source": source, "destination": destination, "network": source.rpartition(".")[0]}


@contextmanager
def _made(pair: Pair, scene: Scene) -> Iterator[None]:
    """The state, undone at the end however far it came."""
    addresses = _addresses(pair)
    words = (NAME, pair.alpha.address, pair.beta.address)
    with ExitStack() as undo:

        def run(host: int, script: str, undoing: str) -> None:
            if undoing:
                undo.callback(lambda: pair.hosts[host].run(["sh", "-c", f"{undoing}; true", "sh", *words]))
            if script:
                shell(pair.hosts[host], script, *words)

        # Containers go before the devices of their networks.
        run(0, scene.before, scene.undo)
        if scene.exists:
            undo.callback(lambda: pair.alpha.remove(NAME))
            arguments = [argument.format(**addresses) for argument in scene.arguments]
            pair.alpha.start(
                NAME, IMAGE, arguments, holding(*scene.kinds, address=pair.beta.address) if scene.kinds else ()
            )
            wait_until_held(pair.alpha, NAME, *scene.kinds)
        run(0, scene.then, "")
        run(1, scene.there, scene.undo_there)
        yield


@pytest.mark.parametrize("name", SCENES)
def test_all_that_is_bad_is_reported_and_nothing_is_touched(clean: Pair, inventory: str, name: str) -> None:
    scene = SCENES[name]
    with _made(clean, scene):
        traces = [snapshot(host) for host in clean.hosts]
        was = look(clean.alpha, NAME) if scene.exists else {}
        counted = count(clean.alpha, NAME) if scene.exists else 0
        _assert_reported(clean, inventory, scene.errors, "-e", scene.options, warnings=scene.warnings)
        if scene.api:
            errors = {**scene.errors, **scene.api}
            _assert_reported(clean, inventory, errors, "-e", '{"migrate_engine": "api"}', warnings=scene.api_warnings)
        if scene.moved:
            printed = Migration(NAME, ["-e", scene.options], inventory=inventory).fail_with("Nothing has been touched")
            assert refusals(printed) == sorted(scene.errors)
        for host, before in zip(clean.hosts, traces, strict=True):
            assert_unchanged(host, before)
        if scene.exists:
            assert look(clean.alpha, NAME) == was
            assert was["State"]["Status"] == scene.state
        if scene.exists and scene.state == "running":
            assert_counts(clean.alpha, NAME, at_least=counted)


def _assert_reported(
    pair: Pair, inventory: str, expected: Told, *arguments: str, warnings: Mapping[str, str] = MappingProxyType({})
) -> None:
    """These rules and no others say that it cannot move, each of what is really there; these are among those that warn."""
    code, verdict = preflight(NAME, inventory, *arguments)
    warned = verdict.of_severity("warning")
    for rule, text in warnings.items():
        assert text in "\n".join(warned.get(rule, [])), warned
    found = verdict.of_severity("error")
    reported = "\n".join(f"{rule}: {message}" for rule, messages in found.items() for message in messages)
    assert sorted(found) == sorted(expected), reported
    for rule, text in expected.items():
        telling = text.format(**_addresses(pair))
        assert telling in "\n".join(found[rule]), reported
        # As people read it.
        assert f"error     {rule} " in verdict.output
    assert code != 0
