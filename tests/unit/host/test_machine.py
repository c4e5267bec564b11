# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is gathered of a host as a machine, and of the way to the other one: the pure parts, and this very machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._host import machine


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
