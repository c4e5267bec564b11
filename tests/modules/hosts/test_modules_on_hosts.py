# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules on real hosts: what they answer is held against the word of the host's own programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

COLLECTION = "livemigrate.criu"

# A CRIU that ends by a signal when runc has asked it, as 4.1.1 does over network-lock.
_DIES = """\
#!/bin/sh
[ "$1" != swrk ] || kill -SEGV $$
exec /usr/sbin/criu "$@"
"""
# Directory, cgroup, process and mounts of a try.
_LEFT = """\
ls -d /run/livemigrate/self-test-* /sys/fs/cgroup/system.slice/*self-test* 2>/dev/null
pgrep -f 'listening = sock[e]t.create_server'
grep self-test /proc/self/mounts
true
"""


class Hosts:
    """All hosts of the lab, by pytest-ansible's dispatcher."""

    def __init__(self, adhoc: Any) -> None:
        self._adhoc = adhoc

    def run(self, module: str, pattern: str = "all", **arguments: Any) -> dict[str, dict[str, Any]]:
        """Run a module on the hosts of a pattern; every host's result, failures included."""
        hosts = self._adhoc(host_pattern=pattern)
        assert len(hosts) > 0
        answer = getattr(hosts[pattern], module)(**arguments)
        return {name: dict(answer.contacted[name]) for name in answer.contacted}

    def shell(self, line: str, pattern: str = "all") -> dict[str, str]:
        """What a command prints on every host; a failing command prints nothing."""
        results = self.run("ansible.builtin.shell", pattern, _raw_params=line)
        return {name: result["stdout"].strip() if result["rc"] == 0 else "" for name, result in results.items()}


@pytest.fixture
def hosts(ansible_adhoc: Any) -> Hosts:
    return Hosts(ansible_adhoc)


@pytest.fixture
def gamma_with_criu(hosts: Hosts) -> Iterator[str]:
    """The host that runs no containers, with CRIU and runc of its own distribution: present, whatever else the lab has."""
    names = [name for name in ("criu", "runc") if not hosts.shell(f"command -v {name}", "gamma")["gamma"]]
    installed = hosts.run("ansible.builtin.apt", "gamma", name=["criu", "runc"], update_cache=True)["gamma"]
    assert not installed.get("failed"), installed
    yield "gamma"
    if names:
        hosts.run("ansible.builtin.apt", "gamma", name=names, state="absent", autoremove=True)


def test_all_hosts_answer(hosts: Hosts) -> None:
    results = hosts.run(f"{COLLECTION}.criu_check")
    assert set(results) >= {"alpha", "beta", "gamma"}
    for name, result in results.items():
        assert not result.get("failed"), (name, result)
        assert result["changed"] is False
        # Never a verdict without a reason, never a reason beside a good verdict.
        assert result["usable"] is (result["reasons"] == []), (name, result["reasons"])


def test_kernel_and_python_are_the_hosts_own(hosts: Hosts) -> None:
    results = hosts.run(f"{COLLECTION}.criu_check")
    releases = hosts.shell("uname -r")
    pages = hosts.shell("getconf PAGESIZE")
    pythons = hosts.shell("/usr/bin/python3 -c 'import platform; print(platform.python_version())'")
    for name, result in results.items():
        assert result["kernel"]["release"] == releases[name]
        assert str(result["kernel"]["page_size"]) == pages[name]
        assert result["python"]["version"] == pythons[name]


def test_criu_that_is_there(hosts: Hosts, gamma_with_criu: str) -> None:
    """What it says of itself, and what becomes of it when it is tried.

    The CRIU of Debian 13 (4.1.1) looks good to criu check on every kernel; from 6.16 on it cannot dump a TCP socket.
    """
    result = hosts.run(f"{COLLECTION}.criu_check", gamma_with_criu)[gamma_with_criu]
    assert result["criu"]["present"] is True
    printed = hosts.shell("criu --version", gamma_with_criu)[gamma_with_criu]
    assert printed.splitlines()[0] == f"Version: {result['criu']['version']}"
    assert result["criu"]["path"] == hosts.shell("command -v criu", gamma_with_criu)[gamma_with_criu]
    package = hosts.shell("dpkg-query --show --showformat='${Version}' criu", gamma_with_criu)[gamma_with_criu]
    assert result["criu"]["package"] == "criu"
    assert result["criu"]["package_revision"] == package
    looks_good = hosts.shell("criu check 2>&1 && echo GOOD", gamma_with_criu)[gamma_with_criu].endswith("GOOD")
    assert result["criu"]["check"]["ok"] is looks_good
    tried, version = result["self_test"], result["criu"]["version"]
    kernel = [int(part) for part in result["kernel"]["release"].split(".")[:2]]
    assert tried["ok"] is (version != "4.1.1" or kernel < [6, 16]), tried
    assert result["usable"] is tried["ok"]
    if not tried["ok"]:
        assert "sockets: Can't get 1:16 opt" in tried["error"]
        assert tried["error"] in " ".join(result["reasons"])
    assert hosts.shell(_LEFT, gamma_with_criu)[gamma_with_criu] == ""
    # Another one, that dies.
    hosts.run("ansible.builtin.file", "gamma", path="/opt/dies", state="directory")
    hosts.run("ansible.builtin.copy", "gamma", dest="/opt/dies/criu", content=_DIES, mode="0755")
    died = hosts.run(f"{COLLECTION}.criu_check", "gamma", criu_path="/opt/dies/criu")["gamma"]["self_test"]
    hosts.run("ansible.builtin.file", "gamma", path="/opt/dies", state="absent")
    assert died["ok"] is False
    assert "ended on kernel" in died["error"]
    assert hosts.shell(_LEFT, "gamma")["gamma"] == ""


def test_criu_that_is_not_there(hosts: Hosts) -> None:
    result = hosts.run(f"{COLLECTION}.criu_check", "beta", criu_path="/nowhere/criu")["beta"]
    assert not result.get("failed")
    assert result["criu"]["present"] is False
    assert result["criu"]["version"] is None
    assert result["usable"] is False
    assert result["reasons"]


def test_docker_is_what_the_host_says(hosts: Hosts) -> None:
    results = hosts.run(f"{COLLECTION}.criu_check")
    versions = hosts.shell("docker info 2>/dev/null | sed -n 's/^ *Server Version: //p'")
    for name, result in results.items():
        assert (result["docker"]["version"] or "") == versions[name]
        assert result["docker"]["running"] is bool(versions[name])
        if not result["docker"]["running"]:
            assert result["docker"]["error"]


def test_a_failure_is_reported_for_people_and_for_programs(hosts: Hosts) -> None:
    """gamma has no engine and no docker-py; where somebody gave it both, it still has no such container."""
    result = hosts.run(f"{COLLECTION}.docker_checkpoint", "gamma", container="no-such", checkpoint="one")["gamma"]
    assert result["failed"] is True
    assert result["failure"]["message"] == result["msg"]
    assert isinstance(result["failure"]["details"], dict)
    assert "docker" in result["msg"].lower()
    # "unexpected" is the code of our own defects.
    assert result["failure"]["code"] not in ("", "unexpected")
