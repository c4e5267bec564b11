# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is gathered of a host, of a container without its secrets, and of a destination: the pure parts, and this very machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import mount_users
from ansible_collections.livemigrate.criu.plugins.module_utils._host import machine
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._network import sockets as network_sockets
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import finding
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import container as facts_of_container
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
    destination as facts_of_destination,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Case
from tests.unit.docker.spec import samples
from tests.unit.docker.spec.samples import BY_HAND, CAPTURED, SECRET, load
from tests.unit.preflight.samples import network

# -- hosts --------------------------------------------------------------------------------------------------------


def test_kernel_config() -> None:
    text = "CONFIG_UNIX_DIAG=m\nCONFIG_INET_DIAG=y\n# CONFIG_MEM_SOFT_DIRTY is not set\nCONFIG_UNIX_DIAGX=y\nCONFIG_OTHER=y\n"
    assert machine.parse_config(text) == {
        "CONFIG_UNIX_DIAG": True,
        "CONFIG_INET_DIAG": True,
        "CONFIG_MEM_SOFT_DIRTY": False,
    }


def test_limits_of_a_host(tmp_path: Path) -> None:
    """Numbers only; what a kernel does not have, or tells otherwise, is left out."""
    for name, text in (("vm/max_map_count", "65530\n"), ("fs/nr_open", "many\n"), ("net/core/rmem_max", "212992\n")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.limits(str(tmp_path)) == {"vm.max_map_count": 65530, "net.core.rmem_max": 212992}
    own = machine.limits()
    assert own["vm.max_map_count"] > 0
    assert own["fs.inotify.max_user_watches"] > 0


def test_cpu() -> None:
    text = (
        "model name\t: AMD EPYC\nflags\t\t: fpu sse sse4_2 avx avx512_vnni smep xsave erms abm\n"
        "model name\t: AMD EPYC\nflags\t\t: fpu sse sse4_2 avx smep xsave\n"
    )
    assert machine.parse_cpuinfo(text) == {
        "model": "AMD EPYC",
        "instructions": ["avx", "sse", "sse4_2", "xsave"],
    }
    arm = machine.parse_cpuinfo("Features\t: fp asimd crc32 sve cpuid evtstrm\n")
    assert arm == {"model": "unknown", "instructions": ["asimd", "crc32", "fp", "sve"]}
    assert machine.parse_cpuinfo("")["instructions"] == []


def test_criu_options() -> None:
    text = (
        "# BEGIN\nlog-file=/var/log/x.log\nfile-locks\n--ghost-limit 256M # much\n\ntcp-close\nno-tcp-close\n"
        'network-lock="nftables"\n'
    )
    assert machine.parse_criu_options(text) == {
        "log-file": "/var/log/x.log",
        "file-locks": "",
        "ghost-limit": "256M",
        "network-lock": "nftables",
    }


def test_clock() -> None:
    before = time.time()
    reading = machine.ClockReading(17.0)
    time.sleep(0.2)
    reported = reading.facts()
    assert before <= reported["wall"] < before + 0.2
    assert reported["asked_at"] == 17.0
    assert 0.2 <= reported["age_seconds"] < 5


def test_where_containerd_keeps_its_content() -> None:
    parse = machine.parse_containerd_root
    assert parse('version = 2\nroot = "/srv/containerd"\n[plugins]\n  root = "/x"\n') == "/srv/containerd"
    assert parse("version = 2\n[plugins]\n  root = '/x'\n") is None
    assert parse("") is None


def test_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "admin")
    assert machine.login() == "admin"
    monkeypatch.delenv("SUDO_USER")
    assert machine.login()


@pytest.fixture
def greeter() -> Iterator[Any]:
    """Something that listens, and greets those who come, one after another, with what it is told to."""
    threads = []

    def start(*greetings: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with server:
                for greeting in greetings:
                    connection, _address = server.accept()
                    with connection:
                        connection.sendall(greeting)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return int(server.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(5)


VERSION = b"SSH-2.0-OpenSSH_10\r\n"


@pytest.mark.parametrize("greeting", [VERSION, b"Only for members of staff.\r\n" + VERSION])
def test_a_peer_that_answers(greeter: Any, greeting: bytes) -> None:
    facts = machine.peer_facts(run, "127.0.0.1", greeter(greeting))
    assert facts["error"] is None
    assert 0 <= facts["rtt_seconds"] < 5
    assert facts["device"] == "lo"
    assert facts["speed_mbit"] is None


def test_a_peer_that_is_something_else(greeter: Any) -> None:
    facts = machine.peer_facts(run, "127.0.0.1", greeter(b"HTTP/1.1 400\r\n"))
    assert "no SSH daemon" in facts["error"]
    assert not facts["turned_away"]


TURNED_AWAY = [b"Not allowed at this time\r\n", b"Exceeded MaxStartups\r\n", b""]


@pytest.mark.parametrize("words", TURNED_AWAY)
def test_a_peer_that_turns_us_away_is_asked_again(greeter: Any, words: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH does so for 15 seconds, with a host that has failed to log in a few times."""
    monkeypatch.setattr(machine, "_ASK_AGAIN_SECONDS", 0.01)
    assert machine.peer_facts(run, "127.0.0.1", greeter(words, words, VERSION))["error"] is None


@pytest.mark.parametrize("words", TURNED_AWAY)
def test_a_peer_that_turns_us_away_for_long_is_reported_for_what_it_is(greeter: Any, words: bytes) -> None:
    facts = machine.peer_facts(run, "127.0.0.1", greeter(words), patience=0)
    assert "turns this host's connections away" in facts["error"]
    assert words.decode().strip() in facts["error"]
    assert facts["turned_away"]


def test_a_peer_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "refused" in machine.peer_facts(run, "127.0.0.1", port)["error"].lower()
    assert machine.peer_facts(run, "no-such-host.invalid", 22)["error"]


# -- the container ------------------------------------------------------------------------------------------------


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


# -- the destination ----------------------------------------------------------------------------------------------

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010312C6\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000312C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes() -> None:
    assert facts_of_destination.parse_routes(ROUTES) == ["172.17.0.0/16", "198.18.3.0/24"]


@pytest.mark.parametrize(
    ("subnets", "found"),
    [
        (["172.17.5.0/24"], ["172.17.0.0/16"]),
        (["0.0.0.0/1", "128.0.0.0/1"], ["172.17.0.0/16", "198.18.3.0/24"]),
        (["10.0.0.0/8"], []),
        (["fd00::/64"], []),
        ([], []),
    ],
)
def test_overlaps(subnets: list[str], found: list[str]) -> None:
    assert facts_of_destination.overlapping(subnets, ["172.17.0.0/16", "198.18.3.0/24"]) == found


@pytest.mark.parametrize(
    ("driver", "there", "reported"),
    [
        ("bridge", None, {"app": ["198.18.3.0/24"]}),
        # Its subnet is the wire's, on which both hosts are.
        ("macvlan", None, {}),
        ("ipvlan", None, {}),
        ("bridge", {}, {}),
    ],
)
def test_a_network_on_the_hosts_own_wire_overlaps_nothing(
    driver: str, there: dict[str, Any] | None, reported: dict[str, list[str]]
) -> None:
    wanted = [network("app", driver=driver, subnets=["198.18.3.0/24"])]
    assert facts_of_destination.overlaps(wanted, {"app": there}, ["172.17.0.0/16", "198.18.3.0/24"]) == reported


@pytest.mark.parametrize(
    ("parent", "missing"),
    [
        ("eth0", False),
        ("eth1", True),
        ("", False),
        # The engine makes it.
        ("eth0.50", False),
        ("eth0.4094", False),
        ("eth0.4095", True),
        ("eth0.0", True),
        ("eth1.50", True),
        ("eth0.50.1", True),
        ("eth0.x", True),
        ("lan.7", False),
    ],
)
def test_the_device_of_a_network(parent: str, missing: bool) -> None:
    wanted = [network("app", driver="macvlan", parent=parent)]
    devices = ["lo", "eth0", "lan.7"]
    assert facts_of_destination.missing_parents(wanted, {"app": None}, devices) == [parent] * missing
    assert facts_of_destination.missing_parents(wanted, {"app": {}}, devices) == []


def test_the_devices_of_this_machine() -> None:
    assert "lo" in facts_of_destination._devices()


def _port(port: int = 80, host_ip: str = "", protocol: str = "tcp") -> dict[str, Any]:
    return {"port": f"8080/{protocol}", "host_ip": host_ip, "host_port": port}


def _listener(port: int = 80, address: str = "0.0.0.0", protocol: str = "tcp", **more: str) -> dict[str, Any]:
    return {"protocol": protocol, "address": address, "port": port, **more}


@pytest.mark.parametrize(
    ("port", "listener", "free"),
    [
        (_port(), _listener(), False),
        (_port(), _listener(address="::"), False),
        (_port(), _listener(address="192.0.2.1"), False),
        (_port(host_ip="0.0.0.0"), _listener(address="192.0.2.1"), False),
        (_port(host_ip="192.0.2.1"), _listener(), False),
        (_port(host_ip="192.0.2.1"), _listener(address="192.0.2.1"), False),
        (_port(host_ip="192.0.2.2"), _listener(address="192.0.2.1"), True),
        (_port(), _listener(81), True),
        (_port(), _listener(protocol="udp"), True),
        (_port(protocol="udp"), _listener(protocol="udp"), False),
        (_port(0), _listener(0), True),
    ],
)
def test_taken_ports(port: dict[str, Any], listener: dict[str, Any], free: bool) -> None:
    assert (facts_of_destination.taken([port], [listener]) == []) is free


def test_a_container_that_has_the_port_is_named() -> None:
    found = facts_of_destination.taken([_port()], [_listener(), _listener(container="web"), _listener()])
    assert found == ["tcp port 80 (container web)"]


def test_content(tmp_path: Path) -> None:
    assert not facts_of_destination.has_content(str(tmp_path))
    assert not facts_of_destination.has_content(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    assert facts_of_destination.has_content(str(tmp_path))
    assert facts_of_destination.has_content(str(tmp_path / "file"))


def test_what_lies_at_a_bind_mounts_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    paths = {name: str(tmp_path / name) for name in ("full", "link", "none")}
    entries = [{"kind": "bind", "path": path} for path in paths.values()]
    # Nobody is asked who uses what does not travel.
    unasked: Any = None
    found = facts_of_destination.binds(unasked, entries, {paths["link"]}, ())
    full = {
        "exists": True,
        "is_directory": True,
        "is_file": False,
        "has_content": True,
        "leads_to": "",
        "host_directory": "",
        "reaches_shared": False,
        "used_by": [],
    }
    assert found[paths["full"]] == full
    # What an earlier move has left there is the container's own.
    assert found[paths["link"]] == {**full, "has_content": False, "leads_to": paths["full"]}
    assert found[paths["none"]]["exists"] is False


def test_a_bind_mount_whose_path_leads_to_a_directory_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("/etc")
    paths = {str(tmp_path / "data"): "directory", str(tmp_path / "data" / "passwd"): "file"}
    entries = [{"kind": "bind", "path": path, "form": form} for path, form in paths.items()]
    unasked: Any = None
    found = facts_of_destination.binds(unasked, entries, (), ())
    assert [found[path]["host_directory"] for path in paths] == ["/etc", "/etc"]


class Containers:
    """An engine with containers that mount something; ``running`` ones, and others."""

    def __init__(self, *mounts: tuple[str, dict[str, Any]], running: bool = True) -> None:
        self._found: list[dict[str, Any]] = [
            {"Id": "f" * 64, "Names": [f"/{name}"], "Mounts": [mount]} for name, mount in mounts
        ]
        self._running = running

    def containers(self, _filters: object = None, *, running: bool = False) -> list[dict[str, Any]]:
        return self._found if self._running or not running else []

    def find_volume(self, name: str) -> dict[str, Any]:
        return {"Mountpoint": f"/nowhere/{name}", "Options": {"type": "none", "o": "bind", "device": name}}


def _mounts(source: str | Path, *, writes: bool = True) -> tuple[str, dict[str, Any]]:
    return "other", {"Type": "bind", "Source": str(source), "RW": writes}


def _users_of(path: Path, asks: Any, **more: Any) -> list[str]:
    entry = {"kind": "bind", "path": str(path), "travels": True, **more}
    used: list[str] = facts_of_destination.binds(asks, [entry], (), ["own"])[str(path)]["used_by"]
    return used


@pytest.mark.parametrize(
    ("mounted", "writes", "counts"),
    [
        ("srv/web", True, True),
        ("srv/web", False, True),
        ("srv/web/spool", True, True),
        ("srv/web/spool", False, True),
        ("srv", True, True),
        ("srv", False, False),
        (".", True, True),
        ("srv/webmail", True, False),
        ("srv/other", True, False),
        # What it leads to is what is written.
        ("link/web", True, True),
        ("link", True, True),
        ("link", False, False),
    ],
)
def test_who_uses_a_bind_mounts_path(mounted: str, writes: bool, counts: bool, tmp_path: Path) -> None:
    for name in ("srv/web/spool", "srv/webmail", "srv/other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("srv")
    mount = _mounts(tmp_path / mounted, writes=writes)
    # The path of the container that comes may be the one with the link, and need not be there yet.
    for path in (tmp_path / "srv" / "web", tmp_path / "link" / "web"):
        assert _users_of(path, Containers(mount)) == ["other"] * counts
    (tmp_path / "srv/web/spool").rmdir()
    (tmp_path / "srv/web").rmdir()
    assert _users_of(tmp_path / "link" / "web", Containers(mount)) == ["other"] * counts


def test_who_does_not_count_as_a_user_of_a_path(tmp_path: Path) -> None:
    """One that does not run, the container's own old copy, an agent that reads all of the host, and what is no bind mount."""
    path = tmp_path / "web"
    assert _users_of(path, Containers(_mounts(path), running=False)) == []
    assert _users_of(path, Containers(_mounts("/", writes=False))) == []
    assert _users_of(path, Containers(("other", {"Type": "tmpfs", "Source": "", "Destination": "/x"}))) == []
    own = Containers(_mounts(path))
    own._found[0]["Id"] = "own"
    assert _users_of(path, own) == []
    # What does not travel is not written.
    nobody: Any = None
    assert _users_of(path, nobody, travels=False) == []


def test_who_reads_what_is_the_containers_own_does_not_count(tmp_path: Path) -> None:
    """A collector of logs reads what the container writes; it did so before the container left."""
    path = tmp_path / "logs"
    entry = {"kind": "bind", "path": str(path), "travels": True}

    def users(writes: bool) -> list[str]:
        asks: Any = Containers(_mounts(path, writes=writes))
        found: list[str] = facts_of_destination.binds(asks, [entry], [str(path)], ["own"])[str(path)]["used_by"]
        return found

    assert users(False) == []
    assert users(True) == ["other"]


def test_a_volume_of_a_plugin_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin may be down. It counts by its name."""
    monkeypatch.setattr(Containers, "find_volume", lambda *_arguments: pytest.fail("it was asked for"))
    mount = {"Type": "volume", "Driver": "rexray", "Name": "data", "Source": str(tmp_path / "data"), "RW": True}
    assert _users_of(tmp_path / "data", Containers(("other", mount))) == ["other"]


def test_what_lies_on_another_host_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """That host may be down, and who looks would wait for it."""
    resolve = os.path.realpath

    def realpath(path: str, **options: Any) -> str:
        assert not str(path).startswith("/nas/"), "it was looked at"
        return resolve(path, **options)

    monkeypatch.setattr(mount_users, "_remote_places", lambda: ("/nas/",))
    asks: Any = Containers(_mounts("/nas/share/"))
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "realpath", realpath)
        found = mount_users.uses(asks)
    assert [one.path for one in found] == ["/nas/share"]


def test_a_volume_may_be_another_name_for_a_path(tmp_path: Path) -> None:
    mount = {"Type": "volume", "Name": str(tmp_path / "web"), "Source": "", "RW": True}
    assert _users_of(tmp_path / "web", Containers(("other", mount))) == ["other"]


def test_a_container_of_which_little_is_reported_has_its_id_for_a_name(tmp_path: Path) -> None:
    found = Containers(_mounts(tmp_path))
    found._found[:] = [{"Id": "f" * 64, "Mounts": [{"Source": str(tmp_path)}]}, {"Id": "a" * 64, "Mounts": None}]
    assert _users_of(tmp_path, found) == ["f" * 12]
