# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of captured outputs, and of hosts that have next to nothing."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import socket as docker_socket
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import host as facts_of_host
from ansible_collections.livemigrate.criu.plugins.modules import criu_check

CAPTURED = Path(__file__).parent / "captured"


def captured(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an engine answered to /version and /info."""
    data = json.loads((CAPTURED / f"{name}.json").read_text())
    return data["version"], data["info"]


# --- parsers


def test_criu_version() -> None:
    assert facts_of_host.parse_criu_version("Version: 4.2.1\n") == "4.2.1"
    assert facts_of_host.parse_criu_version("Version: 4.2\nGitID: v4.2-12-gabc\n") == "4.2"
    assert facts_of_host.parse_criu_version("criu: not found") is None


@pytest.mark.parametrize(
    ("rc", "output", "answer"),
    [
        (0, "uffd-noncoop is supported", True),
        (1, "Warn  (criu/cr-check.c:824): Dirty tracking is OFF. Memory snapshot will not work.", False),
        (1, "Error (criu/cr-check.c:1901): Unknown feature nonsense", None),
    ],
)
def test_feature(rc: int, output: str, answer: bool | None) -> None:
    assert facts_of_host.parse_feature(rc, output) is answer


@pytest.mark.parametrize(
    ("output", "owner"),
    [
        ("criu: /usr/sbin/criu\n", "criu"),
        ("libcompel1:amd64: /usr/lib/x\n", "libcompel1"),
        (
            "diversion by lab from: /usr/sbin/criu\ndiversion by lab to: /usr/sbin/criu.real\ncriu: /usr/sbin/criu\n",
            "criu",
        ),
        ("", None),
    ],
)
def test_package_owner(output: str, owner: str | None) -> None:
    assert facts_of_host.parse_package_owner(output) == owner


def test_meminfo() -> None:
    text = "MemTotal:       24683596 kB\nMemFree:         1000000 kB\nMemAvailable:   23802499 kB\n"
    assert facts_of_host.parse_meminfo(text) == {"total_bytes": 24683596 * 1024, "available_bytes": 23802499 * 1024}
    # Kernels before 3.14 have no MemAvailable.
    assert facts_of_host.parse_meminfo("MemTotal: 10 kB\nMemFree: 4 kB\n")["available_bytes"] == 4096


def test_engine_of_debian_13() -> None:
    facts = facts_of_host.parse_engine(*captured("docker_26.1.5"))
    assert facts["version"] == "26.1.5+dfsg1"
    assert facts["api_version"] == "1.45"
    assert facts["containerd_version"] == "1.7.24~ds1"
    assert facts["runc_version"] == "1.1.15+ds1"
    assert facts["experimental"] is True
    assert facts["live_restore"] is False
    assert facts["storage_driver"] == "overlay2"
    assert facts["image_store"] == "graphdriver"
    assert facts["cgroup_driver"] == "systemd"
    assert facts["cgroup_version"] == 2
    assert facts["runtimes"] == ["io.containerd.runc.v2", "runc"]
    assert facts["default_runtime"] == "runc"
    assert facts["security_options"] == ["seccomp", "cgroupns"]
    assert facts["swarm"] == "inactive"
    assert facts["api_engine"]["restores"] == "all"


def test_engine_with_containerds_image_store() -> None:
    facts = facts_of_host.parse_engine(*captured("docker_26.1.5_containerd_store"))
    assert facts["image_store"] == "containerd"
    assert facts["storage_driver"] == "overlayfs"
    assert facts["live_restore"] is True


def test_engine_of_forky() -> None:
    facts = facts_of_host.parse_engine(*captured("docker_28.5.2"))
    assert facts["experimental"] is False
    assert facts["api_engine"]["restores"] == "host_network"


def test_paused_containers_live_too() -> None:
    version, info = captured("docker_26.1.5")
    info.update(ContainersRunning=2, ContainersPaused=1)
    assert facts_of_host.parse_engine(version, info)["containers_running"] == 3


def test_rootless_and_userns() -> None:
    version, info = captured("docker_26.1.5")
    info["SecurityOptions"] = ["name=seccomp,profile=builtin", "name=rootless", "name=userns"]
    facts = facts_of_host.parse_engine(version, info)
    assert (facts["rootless"], facts["userns_remap"]) == (True, True)


# --- hosts


class _Engine(http.server.BaseHTTPRequestHandler):
    """An engine that answers with what a real one was captured to say."""

    def do_GET(self) -> None:
        version, info = captured("docker_26.1.5")
        answers = {"/version": json.dumps(version), "/info": json.dumps(info), "/list": "[]", "/words": "words"}
        body = answers.get(self.path, "no such page").encode()
        self.send_response(200 if self.path in answers else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@pytest.fixture
def engine_socket() -> Iterator[str]:
    # Not tmp_path: the name of a socket has to be short.
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        with socketserver.ThreadingUnixStreamServer(path, _Engine) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield path
            server.shutdown()


def test_an_engine_is_asked_through_its_socket(engine_socket: str) -> None:
    facts = facts_of_host.docker_facts(run, lambda path: docker_socket.engine_get(path, engine_socket))
    assert facts["running"] is True
    assert facts["error"] is None
    assert facts["version"] == "26.1.5+dfsg1"


def test_the_init_program_is_the_one_that_the_engine_names(engine_socket: str) -> None:
    def get(path: str) -> dict[str, Any]:
        return {**docker_socket.engine_get(path, engine_socket), "InitBinary": sys.executable}

    assert facts_of_host.docker_facts(run, get)["init_binary"] == sys.executable


@pytest.mark.parametrize(
    ("page", "reported"), [("/list", "no JSON object"), ("/words", "Expecting value"), ("/none", "404")]
)
def test_what_is_no_engine_is_reported_as_such(engine_socket: str, page: str, reported: str) -> None:
    with pytest.raises(ValueError, match=reported):
        docker_socket.engine_get(page, engine_socket)
    facts = facts_of_host.docker_facts(run, lambda path: docker_socket.engine_get(page, engine_socket))
    assert facts["running"] is False
    assert reported in facts["error"]


def test_a_host_without_an_engine_has_the_same_keys(tmp_path: Path) -> None:
    facts = facts_of_host.docker_facts(run, lambda path: docker_socket.engine_get(path, str(tmp_path / "nothing")))
    own = {"installed", "running", "error", "init_binary", "init_bytes", "containerd_root"}
    full = {*own, *facts_of_host.parse_engine(*captured("docker_26.1.5"))}
    assert set(facts) == full
    assert "socket does not exist" in facts["error"]
    assert facts["containers_running"] == 0
    assert facts["api_engine"]["restores"] == "unknown"


def test_an_engine_that_died_leaves_its_socket() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        with socketserver.UnixStreamServer(path, _Engine):
            pass
        facts = facts_of_host.docker_facts(run, lambda page: docker_socket.engine_get(page, path))
    assert facts["running"] is False
    assert "does not answer" in facts["error"]


def fake_criu(tmp_path: Path, script: str) -> str:
    """A program in CRIU's place."""
    path = tmp_path / "criu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_criu_is_asked_in_its_own_words(tmp_path: Path) -> None:
    criu = fake_criu(
        tmp_path,
        """case "$*" in
        --version) echo "Version: 4.2.1" ;;
        check) echo "Looks good." >&2 ;;
        "check --feature uffd") echo "uffd is supported" ;;
        "check --feature new") echo "Error (criu/cr-check.c:1901): Unknown feature new" >&2; exit 1 ;;
        *) exit 1 ;;
        esac""",
    )
    facts = facts_of_host.criu_facts(run, criu, ["uffd", "new", "old"])
    assert facts["present"] is True
    assert facts["version"] == "4.2.1"
    assert facts["package"] is None
    assert facts["check"] == {"ok": True, "output": "Looks good."}
    assert facts["features"] == {"uffd": True, "new": None, "old": False}


@pytest.mark.parametrize(
    ("script", "present"),
    [
        # As of a program whose library is missing.
        ("echo 'error while loading shared libraries' >&2; exit 127", False),
        ("echo 'Version: 4.2'; [ $1 = --version ]", True),
    ],
)
def test_a_criu_that_does_not_work_is_a_fact(tmp_path: Path, script: str, present: bool) -> None:
    facts = facts_of_host.criu_facts(run, fake_criu(tmp_path, script), [])
    assert facts["present"] is present
    assert facts["check"]["ok"] is (False if present else None)


def test_a_criu_that_is_not_there_is_a_fact(tmp_path: Path) -> None:
    facts = facts_of_host.criu_facts(run, str(tmp_path / "criu"))
    assert facts["present"] is False
    assert "not installed" in facts["check"]["output"]


def test_a_criu_of_another_architecture_is_a_fact(tmp_path: Path) -> None:
    path = tmp_path / "criu"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 100)
    path.chmod(0o755)
    assert facts_of_host.criu_facts(run, str(path))["present"] is False


def test_room_is_that_of_the_nearest_parent(tmp_path: Path) -> None:
    there, not_yet = facts_of_host.disk_facts([str(tmp_path), str(tmp_path / "not" / "yet")])
    assert not_yet["path"].endswith("not/yet")
    assert not_yet["device"] == there["device"]
    assert there["filesystem"]
    assert not_yet["filesystem"] == there["filesystem"]
    assert there["total_bytes"] >= there["free_bytes"] > 0


# --- the module


def test_the_documentation_names_the_defaults_and_all_that_is_returned() -> None:
    options = yaml.safe_load(criu_check.DOCUMENTATION)["options"]
    assert options["features"]["default"] == list(facts_of_host.FEATURES)
    returned = yaml.safe_load(criu_check.RETURN)
    facts = facts_of_host.host_facts(run, features=[])
    # What is returned only where it was asked for is what there is an option for.
    assert set(returned) - {"container", "for_container", "peer", "channel_login"} == set(facts)
    for key in ("criu", "kernel", "docker", "memory", "python", "cpu", "clock"):
        assert set(returned[key]["contains"]) == set(facts[key]), key
    assert set(returned["disk"]["contains"]) == set(facts["disk"][0])
