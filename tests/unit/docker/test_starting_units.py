# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units that start a container: found by what systemd tells of them, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import starting_units

IDENTITY = "0123456789ab" * 5 + "cdef"

COMPOSE = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.project.working_dir": "/srv/shop",
    "com.docker.compose.project.config_files": "/srv/shop/compose.yml,/srv/shop/more.yml",
}


def _inspect(**labels: str) -> dict[str, Any]:
    return {"Id": IDENTITY, "Name": "/web", "Config": {"Labels": labels or None}}


def _shown(unit: str, *commands: str, directory: str = "", key: str = "ExecStart") -> str:
    """A unit as `systemctl show` of systemd 252 prints it."""
    state = "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0"
    lines = [f"{key}={{ path={one.split()[0]} ; argv[]={one} ; {state} }}" for one in commands]
    return "\n".join([f"WorkingDirectory={directory}", *lines, f"Id={unit}"]) + "\n"


def _answers(text: str, code: int = 0) -> Any:
    def runner(argv: list[str], **_keywords: Any) -> Completed:
        assert argv[:2] == ["systemctl", "show"]
        return Completed(code, text, "")

    return runner


def _found(*units: str, labels: dict[str, str] | None = None) -> list[tuple[str, str]]:
    found = starting_units.of(_inspect(**(labels or {})), _answers("\n".join(units)))
    return [(one["unit"], one["command"]) for one in found]


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        ("/usr/bin/docker start -a web", "docker start"),
        ("/usr/bin/docker --host unix:///run/docker.sock start web", "docker start"),
        ("/usr/bin/docker container restart --time 5 web", "docker restart"),
        (f"/usr/bin/docker start {IDENTITY[:12]}", "docker start"),
        (f"/usr/bin/docker start {IDENTITY}", "docker start"),
        ("/usr/bin/docker run --rm --name web -p 80:80 nginx", "docker run --name"),
        ("/usr/bin/docker run -d --name=web nginx", "docker run --name"),
        ("/usr/bin/docker container create --name web nginx", "docker create --name"),
        ("/bin/sh -c docker rm -f web; exec docker run --name web nginx", "docker run --name"),
        ('/bin/bash -c "docker start web"', "docker start"),
    ],
)
def test_a_unit_that_starts_it_is_found(command: str, verb: str) -> None:
    assert _found(_shown("web.service", command)) == [("web.service", verb)]
    # However it says so.
    for key in ("ExecStartPre", "ExecStartPost", "ExecReload"):
        assert _found(_shown("web.service", command, key=key)) == [("web.service", verb)]


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/docker start web2",
        "/usr/bin/docker start web-moved-20261123T034500Z-3f9a1c",
        "/usr/bin/docker run --name web2 web",
        "/usr/bin/docker run --network web --name other nginx",
        "/usr/bin/docker stop web",
        "/usr/bin/docker rm -f web",
        "/usr/bin/docker logs -f web",
        "/usr/bin/docker exec web start web",
        "/usr/sbin/dockerd -H fd://",
        "/usr/bin/podman start web",
        "/usr/bin/docker start 0123",
        "/usr/bin/docker compose up",
        "/usr/bin/web start",
    ],
)
def test_a_unit_that_does_something_else_is_not(command: str) -> None:
    assert _found(_shown("other.service", command)) == []


def test_of_many_units_those_are_reported_that_start_it() -> None:
    units = [
        _shown("b.service", "/usr/bin/docker pull nginx", "/usr/bin/docker start web"),
        _shown("nothing.service"),
        _shown("a.service", "/usr/bin/docker start web"),
    ]
    assert _found(*units) == [("a.service", "docker start"), ("b.service", "docker start")]


@pytest.mark.parametrize(
    ("command", "directory", "found"),
    [
        ("/usr/bin/docker compose up -d", "/srv/shop", True),
        ("/usr/bin/docker compose up -d", "!/srv/shop", True),
        ("/usr/bin/docker-compose up", "/srv/shop/", True),
        ("/usr/bin/docker compose up -d", "/srv/other", False),
        ("/usr/bin/docker compose up -d", "", False),
        ("/usr/bin/docker compose -f /srv/shop/more.yml up", "", True),
        ("/usr/bin/docker compose --file=/srv/shop/compose.yml up", "", True),
        ("/usr/bin/docker compose --project-directory /srv/shop start", "", True),
        ("/bin/sh -c cd /srv/shop && docker compose up", "", True),
        ("/usr/bin/docker compose -p shop up", "", True),
        ("/usr/bin/docker compose -p other up", "/srv/shop", False),
        ("/usr/bin/docker compose --project-name=shop restart", "", True),
        ("/usr/bin/docker compose down", "/srv/shop", False),
    ],
)
def test_a_unit_of_its_compose_project_starts_it(command: str, directory: str, found: bool) -> None:
    reported = _found(_shown("shop.service", command, directory=directory), labels=COMPOSE)
    assert reported == ([("shop.service", "docker compose")] if found else [])
    assert _found(_shown("shop.service", command, directory=directory)) == [], "no project has made it"


def test_a_script_that_a_unit_runs_is_read(tmp_path: Path) -> None:
    script = tmp_path / "start-web"
    script.write_text("#!/bin/sh\nset -e\nexec docker run \\\n  --name web \\\n  nginx\n")
    assert _found(_shown("web.service", f"{script} --now")) == [("web.service", "docker run --name")]
    script.write_text("docker start web\n")
    assert _found(_shown("web.service", str(script))) == [], "no script"
    for path in (tmp_path, tmp_path / "missing"):
        assert _found(_shown("web.service", str(path))) == []


def test_without_systemd_nothing_is_reported() -> None:
    def missing(*_words: Any, **_keywords: Any) -> Any:
        raise MigrationError("program_missing", "The program systemctl is not installed on this host.")

    assert starting_units.of(_inspect(), missing) == []
    assert starting_units.of(_inspect(), _answers("System has not been booted with systemd", 1)) == []


def test_no_argument_is_reported() -> None:
    """Arguments may be secrets."""
    shown = _shown("web.service", "/usr/bin/docker run --name web --env PASSWORD=hunter2 nginx")
    [reported] = starting_units.of(_inspect(), _answers(shown))
    assert reported == {"unit": "web.service", "command": "docker run --name"}
