# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is gathered of a container: enough for the rules, and none of its secrets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._network import sockets as network_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import finding
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Case
from tests.unit.docker.spec import samples
from tests.unit.docker.spec.samples import BY_HAND, CAPTURED, SECRET, load


@pytest.mark.parametrize("name", [BY_HAND, *CAPTURED])
def test_rules_find_the_same_in_what_is_sent_as_in_the_whole(name: str) -> None:
    """Real containers' inspect data, whole and as far as they leave the host."""
    inspect = load(name)["inspect"]
    for extra in (
        {},
        {"AutoRemove": True, "PidMode": "host", "Links": ["/a:/b"], "Devices": [{"PathOnHost": "/dev/fuse"}]},
    ):
        changed = {**inspect, "HostConfig": {**inspect["HostConfig"], **extra}}
        whole = finding.findings(Case(container={"inspect": changed}), (), preflight_judge.rules())
        reported = finding.findings(
            Case(container={"inspect": facts_of_container.decisive(changed)}), (), preflight_judge.rules()
        )
        assert reported == whole


def test_nothing_secret_is_reported() -> None:
    secret = {
        "Env": [f"PASSWORD={SECRET}"],
        "Cmd": ["run", SECRET],
        "Labels": {"com.docker.compose.project": SECRET, "x": SECRET, SECRET: ""},
        "Healthcheck": {"Test": ["CMD", SECRET]},
    }
    host = {
        "LogConfig": {"Type": "syslog", "Config": {"syslog-address": SECRET}},
        "DeviceRequests": [{"Options": {"x": SECRET}}],
        "Annotations": {"org.criu.config": SECRET},
        "Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"o": SECRET}}}}],
        "RestartPolicy": {"Name": "no"},
        "SecurityOpt": [SECRET],
    }
    inspect = samples.container(secret, host, Args=[SECRET], Path=SECRET)
    assert SECRET in json.dumps(inspect)
    assert SECRET not in json.dumps(facts_of_container.decisive(inspect))
    assert SECRET not in facts_of_container.options_digest({"o": f"password={SECRET}"})


def test_options_are_distinguished_without_being_reported() -> None:
    digest = facts_of_container.options_digest
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    assert digest({"a": "1"}) != digest({"a": "2"})
    assert digest(None) == digest({}) == ""


def test_the_size_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/usr")
    counted, complete = facts_of_container.tree_bytes(str(tmp_path), time.monotonic() + 60)
    assert 100_000 <= counted < 200_000
    assert complete
    assert facts_of_container.tree_bytes(str(tmp_path), time.monotonic() - 1) == (0, False)
    assert facts_of_container.tree_bytes(str(tmp_path / "none"), time.monotonic() + 60) == (0, True)


def test_sockets_survive_being_plain() -> None:
    with socket.create_server(("127.0.0.1", 0)), socket.create_server(("::", 0), family=socket.AF_INET6):
        seen = network_sockets.look([os.getpid()])
    reported = json.loads(json.dumps(network_sockets.plain(seen)))
    assert network_sockets.of_plain(reported) == seen
    own = network_sockets.own(seen, [os.getpid()])
    assert own.inet == ()
    assert own.groups == frozenset()


_ON_THE_HOST = """
import os, socket, struct
joined = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
joined.setsockopt(0, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("127.0.0.1"))
# A client of another user, and a TCP connection on which the kernel encrypts, where it can.
server = socket.socket(socket.AF_UNIX)
server.bind("")
server.listen()
client = socket.socket(socket.AF_UNIX)
os.seteuid(1000)
client.connect(server.getsockname())
os.seteuid(0)
accepted = server.accept()[0]
listening = socket.create_server(("127.0.0.1", 0))
encrypted = socket.create_connection(listening.getsockname())
if "tls" in open("/proc/sys/net/ipv4/tcp_available_ulp").read():
    encrypted.setsockopt(6, 31, b"tls")
print(os.fstat(encrypted.fileno()).st_ino, flush=True)
import time
time.sleep(60)
"""


def test_a_container_on_the_hosts_network_answers_for_its_own_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that a program of its has joined is told; that another program of the host listens with MPTCP is not.

    So are its own unix connections, and those of TCP on which the kernel encrypts.
    """
    try:
        other = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    except OSError:
        pytest.skip("this kernel has no MPTCP")
    other.bind(("127.0.0.1", 0))
    other.listen()
    with other, subprocess.Popen([sys.executable, "-c", _ON_THE_HOST], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            encrypted = program.stdout.readline().strip()
            group: Any = SimpleNamespace(
                path="/sys/fs/cgroup", pids=lambda: [program.pid], resident_bytes=0, foreign=lambda _init: []
            )
            monkeypatch.setattr(TaskGroup, "of_container", lambda _inspect: group)
            inspect = samples.container(host={"NetworkMode": "host"})
            inspect["State"]["Pid"] = program.pid
            facts = json.loads(json.dumps(facts_of_container.of_processes(inspect)))
        finally:
            program.kill()
    assert facts["processes"]["protocols"] == {}
    assert facts["sockets"]["groups"] == ["239.1.2.3"]
    [peer] = facts["processes"]["peers"]
    assert peer["name"].startswith("@")
    assert (peer["uid"], peer["gid"]) == (1000, 0)
    # Only a kernel with CONFIG_TLS has it.
    available = Path("/proc/sys/net/ipv4/tcp_available_ulp").read_text().split()
    assert facts["processes"]["upper_protocols"] == ({encrypted: "tls"} if "tls" in available else {})
