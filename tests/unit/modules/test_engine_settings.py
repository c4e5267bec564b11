# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role checkpointing asks of the files of a host, and a dockerd that answers as a real one does."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.modules import engine_settings

# As `dockerd --validate` of 26.1 writes it.
REFUSAL = (
    "unable to configure the Docker daemon with file: the following directives don't match any configuration option: x"
)


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that reads the settings of a host whose dockerd refuses what has an x in it: ask(help=) -> result."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def program(name: str, text: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    def read(
        text: str | None,
        *,
        reported: str = "  --validate  Validate daemon configuration",
        exists: bool = True,
        systemctl: str = "echo '{ path=/usr/sbin/dockerd }'",
    ) -> Any:
        if exists:
            program(
                "dockerd",
                f'test "$1" = --help && {{ echo "{reported}"; exit; }}\ngrep -q x "$3" || exit 0\necho "{REFUSAL}" >&2; exit 1',
            )
        program("systemctl", systemctl)
        path = tmp_path / "daemon.json"
        if text is not None:
            path.write_text(text)
            path.chmod(0o640)
        files = {"stamp": str(tmp_path / "stamp.json")}
        params = {"daemon_config": str(path), "criu_config": str(tmp_path / "runc.conf"), "files": files}
        return engine_settings._read(params, False)

    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(
        "ansible_collections.livemigrate.criu.plugins.module_utils._base.command.SYSTEM_PATH", "/nowhere"
    )
    return read


def test_what_is_there_is_reported(ask: Any) -> None:
    reported = ask('{"debug": true}\n')
    assert base64.b64decode(reported["daemon"]["content"]) == b'{"debug": true}\n'
    assert (reported["daemon"]["mode"], reported["daemon"]["exists"], reported["validates"]) == ("0640", True, True)
    assert reported["daemon"]["json_error"] == reported["daemon"]["refused"] == ""
    assert reported["exec_start"] == "{ path=/usr/sbin/dockerd }"
    assert not reported["files"]["stamp"]["exists"]
    assert not reported["criu"]["exists"]


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_no_file_and_an_empty_one_are_no_error(ask: Any, text: str | None) -> None:
    reported = ask(text)
    assert reported["daemon"]["exists"] is (text is not None)
    assert reported["daemon"]["json_error"] == reported["daemon"]["refused"] == ""


def test_where_it_is_broken(ask: Any) -> None:
    assert "line 3 column 3" in ask('{\n  "log-level": "info"\n  "debug": false\n}\n')["daemon"]["json_error"]


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf{"debug": true}', '{"debug": true}'.encode("utf-16"), b"\xff"])
def test_a_text_in_another_encoding_is_broken(ask: Any, tmp_path: Path, content: bytes) -> None:
    # dockerd takes none of them either.
    (tmp_path / "daemon.json").write_bytes(content)
    assert ask(None)["daemon"]["json_error"]


def test_the_line_is_that_of_the_file(ask: Any) -> None:
    assert "line 4 column 2" in ask("\n\n\n{{")["daemon"]["json_error"]


def test_a_systemd_that_does_not_answer(ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a flag on the engine's command line would be overlooked, and the engine not start any more."""
    monkeypatch.setattr(engine_settings, "_SYSTEMD", str(tmp_path))
    with pytest.raises(MigrationError, match="does not tell how the engine is started: Connection timed out"):
        ask("{}", systemctl="echo Connection timed out >&2; exit 1")


def test_what_only_dockerd_refuses(ask: Any) -> None:
    assert ask('{"x": 1}')["daemon"]["refused"] == REFUSAL


def test_a_dockerd_that_cannot_be_asked(ask: Any) -> None:
    reported = ask('{"x": 1}', reported="  --debug")
    assert (reported["validates"], reported["daemon"]["refused"]) == (False, "")


def test_without_an_engine(ask: Any) -> None:
    assert not ask('{"x": 1}', exists=False)["validates"]


def test_a_file_that_cannot_be_read(ask: Any, tmp_path: Path) -> None:
    (tmp_path / "runc.conf").mkdir()
    with pytest.raises(MigrationError, match=r"runc\.conf: Is a directory"):
        ask("{}")
