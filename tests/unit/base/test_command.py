# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real programs, run the one way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed, run, run_checked
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from tests.unit.helpers.support import wait_for


def test_answers_with_both_streams_and_the_exit_code_whatever_it_is() -> None:
    assert run(["sh", "-c", "echo out; echo err >&2; exit 7"]) == Completed(7, "out\n", "err\n")


def test_no_shell_sees_the_words(tmp_path: Path) -> None:
    words = ["a b", "$(touch pwned)", "; touch pwned", "*", "", "-n"]
    assert run(["printf", "<%s>", *words]).stdout == "".join(f"<{word}>" for word in words)
    assert list(tmp_path.iterdir()) == []


def test_input_reaches_the_program_and_without_it_there_is_none() -> None:
    assert run(["cat"], text="zwölf\n").stdout == "zwölf\n"
    assert run(["cat"], timeout=5).stdout == ""


def test_undecodable_output_is_replaced() -> None:
    assert run(["printf", r"a\377b"]).stdout == "a\ufffdb"


def test_messages_come_in_english_with_additions_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("KEPT", "1")
    seen = run(["env"], env={"ADDED": "2"}).stdout.splitlines()
    assert {"LC_ALL=C", "LANGUAGE=C", "KEPT=1", "ADDED=2"} <= set(seen)


def test_programs_in_sbin_are_found_when_path_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["sh", "-c", "echo $PATH"]).stdout.strip().split(":") == [
        str(tmp_path),
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]


@pytest.mark.parametrize("path", [None, ""])
def test_the_working_directory_is_never_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    planted = tmp_path / "uname"
    planted.write_text("#!/bin/sh\necho planted\n")
    planted.chmod(0o755)
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    assert run(["uname"]).stdout == "Linux\n"


def test_a_missing_program_is_named() -> None:
    with pytest.raises(MigrationError) as caught:
        run(["livemigrate-no-such-program"])
    assert caught.value.code == "program_missing"
    assert "livemigrate-no-such-program" in caught.value.message


def test_a_program_that_takes_too_long_is_killed() -> None:
    started = time.monotonic()
    with pytest.raises(MigrationError) as caught:
        run(["sh", "-c", "echo $$ > pid; exec sleep 60"], timeout=0.3)
    assert time.monotonic() - started < 5
    assert caught.value.code == "program_timeout"
    assert caught.value.as_failure()["details"] == {"program": "sh", "timeout": 0.3}
    pid = int(Path("pid").read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the program is gone")


def test_a_grandchild_that_keeps_the_streams_open_does_not_keep_us() -> None:
    started = time.monotonic()
    with pytest.raises(MigrationError) as caught:
        run(["sh", "-c", "sleep 8 & sleep 60"], timeout=0.3)
    assert caught.value.code == "program_timeout"
    assert time.monotonic() - started < 5


def test_run_checked_returns_the_answer_of_success_and_tells_failure() -> None:
    assert run_checked(run, ["echo", "fine"], "some_code", "do it").stdout == "fine\n"
    with pytest.raises(MigrationError) as caught:
        run_checked(run, ["sh", "-c", "echo because >&2; exit 3"], "some_code", "do it")
    assert caught.value.as_failure() == {
        "code": "some_code",
        "message": "Cannot do it: because",
        "details": {"argv": ["sh", "-c", "echo because >&2; exit 3"], "rc": 3},
    }
    with pytest.raises(MigrationError, match="Cannot do it: no output"):
        run_checked(run, ["false"], "some_code", "do it")


def test_run_checked_passes_the_time_limit_on() -> None:
    with pytest.raises(MigrationError) as caught:
        run_checked(run, ["sleep", "30"], "some_code", "do it", timeout=0.2)
    assert caught.value.code == "program_timeout"
