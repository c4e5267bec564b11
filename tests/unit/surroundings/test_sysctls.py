# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sysctls that were set for one namespace are had by another, on real namespaces of this kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import namespaces
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import sysctls as surroundings_sysctls
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.support import wait_for

pytestmark = pytest.mark.usefixtures("needs_namespaces")

# One of each kind: of the stack, of the engine's own (a user's ports), of one device, of IPC.
SET = {
    "net/core/somaxconn": "333",
    "net/ipv4/ping_group_range": "0\t1000",
    "net/ipv4/conf/eth0/log_martians": "1",
    "kernel/msgmax": "12345",
}
ALL_KINDS = ("net", "ipc", "uts")


def _is_apart(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n" and not namespaces.shares(pid, os.getpid(), "ipc")


@contextmanager
def _container() -> Iterator[Side]:
    """A process with namespaces of its own, and a device as an engine makes one."""
    with subprocess.Popen(["unshare", "--net", "--ipc", "--uts", "sleep", "60"]) as process:
        try:
            wait_for(lambda: _is_apart(process.pid), "a process with namespaces of its own")
            inside = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "ip", "link"]
            subprocess.run([*inside, "add", "eth0", "type", "bridge"], check=True)
            yield Side(process.pid, TaskGroup("/nowhere"), "/nowhere", own_network=True)
        finally:
            process.kill()


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    """The source, on which something has been set, and the copy."""
    with ExitStack() as stack:
        source, copy = stack.enter_context(_container()), stack.enter_context(_container())
        namespaces.inside(source.init, ALL_KINDS, _set_all)
        copy.ahead = {surroundings_sysctls.NAME: surroundings_sysctls.fresh()}
        yield source, copy


def _set_all() -> None:
    for name, value in SET.items():
        Path("/proc/sys", name).write_text(value)


def _get(side: Side, name: str) -> str:
    return namespaces.inside(side.init, ALL_KINDS, lambda: Path("/proc/sys", name).read_text()).rstrip("\n")


def test_what_was_set_is_found_and_nothing_else(sides: tuple[Side, Side]) -> None:
    source, _copy = sides
    data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
    assert data["set"] == sorted(SET)
    assert len(data["values"]) > 100


def test_the_copy_is_missing_it_and_gets_it(sides: tuple[Side, Side]) -> None:
    source, copy = sides
    data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
    missing = surroundings_sysctls.compare(copy, data)
    assert missing == [f"the sysctl {name.replace('/', '.')} is another one" for name in sorted(SET)]
    surroundings_sysctls.carry(copy, data)
    assert copy.sysctls_written
    assert surroundings_sysctls.compare(copy, data) == []
    assert {name: _get(copy, name) for name in SET} == SET


def test_others_need_not_look_again_where_none_was_written(sides: tuple[Side, Side]) -> None:
    source, _copy = sides
    surroundings_sysctls.carry(source, surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source)))
    assert not source.sysctls_written


def test_what_a_kernel_has_otherwise_is_carried_and_not_asked_for(sides: tuple[Side, Side]) -> None:
    """Nobody set it on the source: its kernel has it so, and the copy's kernel has not."""
    source, copy = sides
    data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
    data["values"].update({"net/ipv4/tcp_retries2": "9", "net/ipv4/no_such_thing": "1"})
    surroundings_sysctls.carry(copy, data)
    assert _get(copy, "net/ipv4/tcp_retries2") == "9"
    assert surroundings_sysctls.compare(copy, data) == []


def test_the_host_is_left_alone(sides: tuple[Side, Side]) -> None:
    """A copy in the network of its host: nothing is read of it, nothing written."""
    source, _copy = sides
    data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
    before = Path("/proc/sys/net/core/somaxconn").read_text()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            host = Side(process.pid, TaskGroup("/nowhere"), "/nowhere", own_network=True)
            assert surroundings_sysctls.take(host, None) == {"values": {}, "set": []}
            surroundings_sysctls.carry(host, data)
            assert surroundings_sysctls.compare(host, data) == []
        finally:
            process.kill()
    assert Path("/proc/sys/net/core/somaxconn").read_text() == before


@pytest.mark.parametrize("name", ["net/../kernel/core_pattern", "kernel/core_pattern", "net/core/a b", "/etc/passwd"])
def test_no_other_file_is_written(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Names that come from another host go into paths of root's."""
    _source, copy = sides
    written: list[str] = []
    monkeypatch.setattr(surroundings_sysctls, "_write", lambda where, _value: written.append(where))
    monkeypatch.setattr(surroundings_sysctls, "_read", lambda _name: "before")
    surroundings_sysctls.carry(copy, {"values": {name: "x", "net/core/somaxconn": "1"}, "set": [name]})
    assert written == ["net/core/somaxconn"]
    reported = surroundings_sysctls.compare(copy, {"values": {name: "x"}, "set": [name]})
    assert reported == [f"the sysctl {name!r} cannot be set"]
    assert surroundings_sysctls.for_restore({"values": {name: "x"}, "set": [name]}) == []


def test_what_sockets_need_is_reported_before_they_are_made(sides: tuple[Side, Side]) -> None:
    """Not that of a device: there is none yet. Nothing but the network's: no other namespace is entered there. One line each."""
    source, _copy = sides
    data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
    assert surroundings_sysctls.for_restore(data) == [
        "net/core/somaxconn 333",
        "net/ipv4/ping_group_range 0 1000",
    ]
    data["values"]["net/core/somaxconn"] = "1\nnet/core/x 2"
    assert "net/core/x" not in " ".join(surroundings_sysctls.for_restore(data))


def test_a_long_one_is_carried_whole() -> None:
    """The kernel tells it to one read only, as far as there is room."""
    name, ports = "net/ipv4/ip_local_reserved_ports", ",".join(map(str, range(1, 65536, 2)))
    with _container() as source, _container() as copy:
        namespaces.inside(source.init, ["net"], lambda: surroundings_sysctls._write(name, ports))
        data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
        assert data["values"][name] == ports
        surroundings_sysctls.carry(copy, data)
        assert namespaces.inside(copy.init, ["net"], lambda: surroundings_sysctls._read(name)) == ports
        assert surroundings_sysctls.compare(copy, data) == []


def test_what_a_device_has_by_itself() -> None:
    """By the model that a fresh namespace has of it. The module for MPLS, once it is loaded, gives every device a setting."""
    usual = {
        "net/ipv4/conf/default/arp_filter": "0",
        "net/ipv4/conf/lo/arp_filter": "9",
        "net/ipv4/neigh/lo/proxy_qlen": "64",
        "net/mpls/conf/lo/input": "0",
    }
    same = {
        "net/ipv4/conf/eth0/arp_filter": "0",
        "net/ipv4/neigh/eth0/proxy_qlen": "64",
        "net/mpls/conf/eth0/input": "0",
    }
    assert surroundings_sysctls._unlike(same, usual) == []
    assert surroundings_sysctls._unlike({"net/mpls/conf/eth0/input": "1"}, usual) == ["net/mpls/conf/eth0/input"]
    source = {"values": {"net/mpls/conf/eth1/input": "1"}, "set": ["net/mpls/conf/eth1/input"]}
    assert surroundings_sysctls.renamed(source, {"eth1": "eth0"})["set"] == ["net/mpls/conf/eth0/input"]


@pytest.mark.parametrize("names", [{"eth0": "eth0"}, {"eth0": "eth1"}, {"eth0": "eth0", "br9": ""}])
def test_devices_that_the_network_knows_nothing_of_are_left_out(names: dict[str, str]) -> None:
    """They were made inside and are not heeded, or the kernel makes them by itself where it has a module (tunl0)."""
    others = ["net/ipv4/conf/br9/rp_filter", "net/ipv4/conf/tunl0/rp_filter"]
    kept = ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter", "net/ipv4/conf/lo/rp_filter"]
    own = [f"net/ipv4/conf/{names['eth0']}/rp_filter", "kernel/msgmax"]
    every = [*others, *kept, "net/ipv4/conf/eth0/rp_filter", "kernel/msgmax"]
    found = surroundings_sysctls.renamed({"values": dict.fromkeys(every, "2"), "set": sorted(every)}, names)
    assert set(found["values"]) == {*kept, *own}
    assert found["set"] == sorted([*kept, *own])


# What was done on the source, whose device was there already: a router but not at this device, and new usual values.
PASSED_ON = {
    "net/ipv4/conf/all/rp_filter": "2",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/eth0/forwarding": "0",
    "net/ipv4/conf/default/log_martians": "1",
    "net/ipv4/conf/eth0/log_martians": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}


@pytest.mark.parametrize("made", ["before the sockets", "after them"])
def test_a_device_that_has_what_is_usual_does_not_get_what_others_have(made: str) -> None:
    """On the copy the kernel gives its device what was set for all, or for those to come (Docker 28 makes it after that)."""
    of_device = ("ipv6/conf/eth0/forwarding", "ipv4/conf/eth0/log_martians", "ipv6/conf/eth0/accept_ra")
    with _container() as source, _container() as copy:
        namespaces.inside(source.init, ["net"], lambda: _write_all(PASSED_ON))
        copy.ahead = {surroundings_sysctls.NAME: surroundings_sysctls.fresh()}
        data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
        lines = dict(line.split(" ", 1) for line in surroundings_sysctls.for_restore(data))
        ip = ["nsenter", f"--net=/proc/{copy.init}/ns/net", "ip", "link"]
        if made == "after them":
            subprocess.run([*ip, "delete", "eth0"], check=True)
        namespaces.inside(copy.init, ["net"], lambda: _write_all(lines))
        if made == "after them":
            subprocess.run([*ip, "add", "eth0", "type", "bridge"], check=True)
        reported = surroundings_sysctls.compare(copy, data)
        wrong = [name for name in of_device if _get(copy, f"net/{name}") != _get(source, f"net/{name}")]
        assert wrong
        assert {f"the sysctl net.{name.replace('/', '.')} is another one" for name in wrong} <= set(reported)
        surroundings_sysctls.carry(copy, data)
        assert surroundings_sysctls.compare(copy, data) == []
        assert [_get(copy, f"net/{name}") for name in of_device] == ["0", "0", "1"]


def _write_all(values: dict[str, str]) -> None:
    for name, value in values.items():
        Path("/proc/sys", name).write_text(value)


OFF = "net/ipv6/conf/eth0/disable_ipv6"


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        (OFF, "1", False),
        ("net/ipv6/conf/all/disable_ipv6", "1", False),
        # It was on, or it was another setting: whoever chose that does not find it there.
        (OFF, "0", True),
        ("net/ipv6/conf/eth0/forwarding", "1", True),
        ("net/ipv4/conf/eth0/disable_policy", "1", True),
    ],
)
def test_a_kernel_without_ipv6_has_it_off(name: str, value: str, reported: bool) -> None:
    """One that was booted with ipv6.disable=1 has no file for it. Docker writes the setting for every network without IPv6."""
    found = surroundings_sysctls.differences([name], {name: value}, {})
    assert found == ([f"the sysctl {name.replace('/', '.')} is another one"] if reported else [])


def test_a_kernel_with_ipv6_is_asked_for_it() -> None:
    assert surroundings_sysctls.differences([OFF], {OFF: "1"}, {OFF: "0"})


def test_what_docker_sets_is_no_difference_on_a_kernel_without_ipv6(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker up to 25 switches IPv6 off in the namespace, and so at every device; newer ones at the device alone."""
    source, copy = sides
    for where in ("eth0", "all"):
        namespaces.inside(source.init, ["net"], lambda: _write_all({f"net/ipv6/conf/{where}/disable_ipv6": "1"}))  # noqa: B023
        data = surroundings_sysctls.take(source, surroundings_sysctls.look_ahead(source))
        assert f"net/ipv6/conf/{where}/disable_ipv6" in data["set"]
        with monkeypatch.context() as without:
            read = surroundings_sysctls._read
            without.setattr(surroundings_sysctls, "_read", lambda name: None if "/ipv6/" in name else read(name))  # noqa: B023
            surroundings_sysctls.carry(copy, data)
            assert surroundings_sysctls.compare(copy, data) == []
