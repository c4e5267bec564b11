# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule of the preflight, broken on each side and kept; and that the facts it reads are those that are gathered."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils import _facts, _preflight
from ansible_collections.livemigrate.criu.plugins.module_utils._command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._support import criu_verdict

Facts = dict[str, Any]
Change = Callable[[Facts], object]

# What trixie's engine answers, as far as facts are made of it.
VERSION = {
    "Version": "26.1.5+dfsg1",
    "ApiVersion": "1.45",
    "MinAPIVersion": "1.24",
    "Components": [{"Name": "Engine", "Version": "26.1.5"}, {"Name": "containerd", "Version": "1.7.24~ds1"}],
}
INFO = {
    "ExperimentalBuild": True,
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "DockerRootDir": "/var/lib/docker",
    "Runtimes": {"runc": {}},
}


@pytest.fixture(scope="module")
def gathered() -> Facts:
    """What criu_check tells of this very machine: the facts as they really look."""
    return _facts.host_facts(run, features=())


@pytest.fixture
def good(gathered: Facts) -> Facts:
    """A host on which nothing is missing: this machine's facts, with what is to be judged set right."""
    facts = copy.deepcopy(gathered)
    engine = {"installed": True, "running": True, "error": None, "init_binary": "/usr/bin/docker-init"}
    facts["docker"] = {**engine, **_facts.parse_engine(VERSION, INFO)}
    assert set(facts["docker"]) >= set(gathered["docker"]) - {"error"}
    facts["docker"]["shim"] = {"registered": True, "path": "/x", "installed": True, "version": "1"}
    facts["criu"].update(present=True, version="4.2", check={"ok": True, "output": "Looks good."})
    facts["kernel"].update(release="6.12.1", machine="x86_64", cgroup_version=2)
    verdict = criu_verdict("4.2", None, True, "Looks good.", "6.12.1", "x86_64")
    facts.update(usable=not verdict.reasons, reasons=verdict.reasons, remarks=verdict.remarks)
    facts["python"]["docker_py"] = "7.1.0"
    facts["tools"].update(dict.fromkeys(facts["tools"], "/usr/bin/x"))
    for disk in facts["disk"]:
        disk["free_bytes"] = 10 << 30
    return facts


def _engine(**changes: Any) -> Change:
    def change(facts: Facts) -> None:
        # Whether the shim is there is a question to this machine's files, and has a case of its own.
        parsed = {**_facts.parse_engine(VERSION, {**INFO, **changes}), "shim": facts["docker"]["shim"]}
        facts["docker"].update(parsed)

    return change


CONTAINERD_STORE = {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}


def _containerd_without_ctr(facts: Facts) -> None:
    _engine(**CONTAINERD_STORE)(facts)
    facts["tools"]["ctr"] = None


def _no_engine(facts: Facts) -> None:
    def refuse(_path: str) -> Facts:
        raise FileNotFoundError

    facts["docker"] = _facts.docker_facts(run, refuse)
    facts["docker"]["installed"] = False


def _dead_engine(facts: Facts) -> None:
    _no_engine(facts)
    facts["docker"].update(installed=True, error="The engine does not answer: timed out")


def _unusable(facts: Facts) -> None:
    verdict = criu_verdict(None, None, None, "", "6.12.1", "x86_64")
    facts.update(usable=not verdict.reasons, reasons=verdict.reasons)


def _disk(number: int) -> Change:
    return lambda facts: facts["disk"][0].update(path="/tmp", free_bytes=number)


def _set(*path: str, to: Any) -> Change:
    def change(facts: Facts) -> None:
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = to

    return change


# rule, how it is broken, on which sides that counts, what the message has to say
BROKEN: list[tuple[str, Change, tuple[str, ...], str]] = [
    ("docker_present", _no_engine, ("source", "destination"), "is not installed"),
    (
        "docker_present",
        _dead_engine,
        ("source", "destination"),
        "does not answer: The engine does not answer: timed out",
    ),
    ("docker_py_present", _set("python", "docker_py", to=None), ("source", "destination"), "has no docker-py"),
    ("criu_usable", _unusable, ("source", "destination"), "CRIU cannot be used"),
    ("tools_present", _set("tools", "rsync", to=None), ("source", "destination"), "lacks rsync"),
    ("tools_present", _set("tools", "ssh", to=None), ("source", "destination"), "lacks ssh"),
    ("tools_present", _set("tools", "nft", to=None), ("source", "destination"), "lacks nft"),
    ("experimental_on", _engine(ExperimentalBuild=False), ("source", "destination"), "without experimental features"),
    (
        "engine_restores",
        lambda facts: facts["docker"].update(_facts.parse_engine({**VERSION, "Version": "25.0.0"}, INFO)),
        ("destination",),
        "cannot restore",
    ),
    (
        "engine_restores",
        lambda facts: facts["docker"].update(_facts.parse_engine({**VERSION, "Version": "28.5.2"}, INFO)),
        ("destination",),
        "cannot restore",
    ),
    (
        "shim_registered",
        _set("docker", "shim", to={"registered": False}),
        ("destination",),
        "livemigrate is not registered",
    ),
    (
        "shim_registered",
        _set("docker", "shim", to={"registered": True, "version": "0"}),
        ("destination",),
        "is of another version of this collection",
    ),
    ("same_architecture", _set("kernel", "machine", to="aarch64"), ("source", "destination"), "aarch64"),
    ("cgroup_v2", _engine(CgroupVersion="1"), ("source", "destination"), "cgroup version 1"),
    ("cgroup_v2", _engine(CgroupVersion=None), ("source", "destination"), "cgroup version 1"),
    (
        "criu_not_older",
        _set("criu", "version", to="3.19"),
        ("destination",),
        "CRIU 3.19 is older than the source's 4.2",
    ),
    ("criu_not_older", _set("criu", "version", to="4.1.1"), ("destination",), "CRIU 4.1.1 is older"),
    ("criu_not_older", _set("criu", "version", to="4.3"), ("source",), "CRIU 4.2 is older than the source's 4.3"),
    ("storage_known", _engine(Driver="btrfs"), ("source", "destination"), "storage driver btrfs"),
    ("storage_known", _engine(Driver="overlayfs"), ("source", "destination"), "storage driver overlayfs"),
    (
        "storage_known",
        _engine(**{**CONTAINERD_STORE, "Driver": "zfs"}),
        ("source", "destination"),
        "snapshotter zfs",
    ),
    ("storage_known", _containerd_without_ctr, ("source", "destination"), "lacks ctr"),
    ("disk_free", _disk((512 << 20) - 1), ("source", "destination"), "has 511 MiB left"),
    ("disk_free", _disk(0), ("source", "destination"), "/tmp on the"),
]
# What looks odd and is no reason to refuse.
FINE: list[Change] = [
    _set("criu", "version", to="4.2.1"),
    _disk(512 << 20),
    _set("disk", to=[]),
    _engine(CgroupVersion="2", LiveRestoreEnabled=True),
    _engine(**CONTAINERD_STORE),
    _set("tools", "ctr", to=None),
    _set("kernel", "release", to="6.1.0"),
]


def _found(source: Facts, destination: Facts) -> list[_preflight.Finding]:
    """What either engine would meet, each once."""
    told = [_preflight.judge(source, destination, engine).findings for engine in ("api", "runtime")]
    return list(dict.fromkeys(finding for findings in told for finding in findings))


def _judged(good: Facts, side: str, change: Change) -> list[_preflight.Finding]:
    hosts = {"source": good, "destination": copy.deepcopy(good)}
    change(hosts[side])
    return _found(hosts["source"], hosts["destination"])


def test_nothing_is_found_where_nothing_is_missing(good: Facts) -> None:
    assert _found(good, copy.deepcopy(good)) == []


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize(
    "number", range(len(BROKEN)), ids=[f"{rule}-{number}" for number, (rule, *_rest) in enumerate(BROKEN)]
)
def test_what_is_broken_is_found_on_its_side_alone(number: int, side: str, good: Facts) -> None:
    rule, change, sides, told = BROKEN[number]
    found = [finding for finding in _judged(good, side, change) if finding.rule == rule]
    if side not in sides:
        assert found == []
        return
    assert len(found) == 1
    assert told in found[0].message
    assert side in found[0].message
    assert found[0].remedy


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("number", range(len(FINE)))
def test_what_is_fine_is_left_alone(number: int, side: str, good: Facts) -> None:
    assert _judged(good, side, FINE[number]) == []


NO_SHIM = _set("docker", "shim", to={"registered": False, "version": None})


def test_the_shim_is_taken_where_it_is(good: Facts) -> None:
    other = copy.deepcopy(good)
    assert _preflight.choose_engine(good, other)[0] == "runtime"
    NO_SHIM(other)
    engine, reason = _preflight.choose_engine(good, other)
    assert engine == "api"
    assert "has no runtime livemigrate" in reason
    # The source's shim is of no use for this.
    assert _preflight.choose_engine(other, good)[0] == "runtime"


def test_where_neither_engine_works_the_shim_is_asked_for(good: Facts) -> None:
    other = copy.deepcopy(good)
    NO_SHIM(other)
    other["docker"]["api_engine"] = {"restores": "host_network", "reason": "Docker 28"}
    verdict = _preflight.judge(good, other)
    assert verdict.engine == "runtime"
    assert [finding.rule for finding in verdict.findings] == ["shim_registered"]


@pytest.mark.parametrize("engine", ["api", "runtime"])
def test_what_is_asked_for_is_taken(engine: str, good: Facts) -> None:
    assert _preflight.choose_engine(good, copy.deepcopy(good), engine) == (engine, "asked for")


def test_every_rule_is_in_use_and_has_been_broken_here() -> None:
    assert {rule for rule, *_rest in BROKEN} == {rule.__name__ for rule in _preflight.RULES}


def test_everything_is_told_at_once(good: Facts) -> None:
    bad = copy.deepcopy(good)
    changes = [
        _set("python", "docker_py", to=None),
        _unusable,
        _set("tools", "rsync", to=None),
        _set("tools", "ssh", to=None),
        _engine(ExperimentalBuild=False, CgroupVersion="1", Driver="btrfs"),
        _set("kernel", "machine", to="aarch64"),
        _disk(0),
    ]
    for change in changes:
        change(bad)
    both = {
        "docker_py_present",
        "criu_usable",
        "tools_present",
        "experimental_on",
        "cgroup_v2",
        "storage_known",
        "disk_free",
    }
    found = _found(bad, copy.deepcopy(bad))
    assert {finding.rule for finding in found} == both
    assert {rule: sum(finding.rule == rule for finding in found) for rule in both} == dict.fromkeys(both, 2)
    assert {finding.rule for finding in _found(bad, good)} == both | {"same_architecture"}
    assert any("rsync and ssh" in finding.message for finding in found)


def test_a_host_with_nothing_on_it_is_judged_not_stumbled_over(gathered: Facts) -> None:
    """The facts of a machine as they come, whatever it has: no rule reads a key that is not there."""
    for finding in _found(gathered, copy.deepcopy(gathered)):
        assert finding.rule in {rule.__name__ for rule in _preflight.RULES}
        assert finding.message
        assert finding.remedy
    assert [finding.rule for finding in _found(gathered, copy.deepcopy(gathered))] == [
        finding.rule for finding in _found(copy.deepcopy(gathered), gathered)
    ]
