# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of a try of CRIU. The try itself is in tests/modules, on real hosts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import self_test, self_test_note

GOOD = """\
step run 1795946423.574175744
ended 0 1795946423.681846138
step dump 1795946423.681946138
ended 0 1795946423.916053601
step restore 1795946423.917053601
ended 0 1795946424.070640951
"""
RAN = "\n".join(GOOD.splitlines()[:3])
# runc 1.1.15 and CRIU 4.1.1 on the lab.
FAILED = f"""\
{RAN}
time="2026-11-29T10:00:25Z" level=error msg="container still running"
time="2026-11-29T10:00:25Z" level=error msg="criu failed: type NOTIFY errno 0\\nlog file: dump/dump.log"
ended 1 1795946424.1
"""
CRASHED = f"""\
{RAN}
time="2026-11-29T10:00:26Z" level=error msg="container still running"
time="2026-11-29T10:00:26Z" level=error msg="read unixpacket @->@: EOF"
ended 1 1795946424.1
"""
LOG = """\
(00.000010) Version: 4.1.1 (gitid 0)
(00.001190) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.106471) Error (criu/sockets.c:628): sockets: Can't get 1:16 opt: Operation not supported
(00.106941) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""
NO_RUN = 'step run 1.0\ntime="x" level=error msg="runc create failed: no such device"\nended 1 2.0\n'


class Host:
    """Answers as systemd-run would; the options that each try was made with are kept."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, str]], str] = lambda _options: GOOD
        self.log = ""
        self.tries: list[dict[str, str]] = []

    def __call__(self, argv: Sequence[str], **_more: object) -> Completed:
        assert argv[0] == "systemd-run"
        place = Path(argv[-1])
        if self.log:
            (place / "dump" / "dump.log").write_text(self.log)
        options = {path.name: path.read_text() for path in place.glob("options.*")}
        self.tries.append(options)
        return Completed(0, self.answer(options), "")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(self_test_note, "DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setattr(self_test, "_NEEDS", ("sh",))
    monkeypatch.setattr(self_test, "_UNIFIED", str(tmp_path))
    criu = tmp_path / "criu"
    criu.write_text("one")
    return Host()


def _ask(host: Host, tmp_path: Path, options: str = "", version: str = "4.1.1") -> dict[str, object]:
    return self_test.of_host(options, str(tmp_path / "criu"), version, host)


def _left(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "run"))


def test_what_works_is_tried_once_until_something_changes(host: Host, tmp_path: Path) -> None:
    reported = _ask(host, tmp_path)
    assert reported["ok"] is True
    assert reported["steps"] == {"run": 0.108, "dump": 0.234, "restore": 0.154}
    assert (reported["error"], reported["refused_options"], reported["from_note"]) == (None, [], False)
    assert _left(tmp_path) == ["self-test.json"]
    assert _ask(host, tmp_path) == {**reported, "from_note": True}
    assert len(host.tries) == 1
    (tmp_path / "criu").write_text("another")
    assert _ask(host, tmp_path)["from_note"] is False
    assert _ask(host, tmp_path, "tcp-close\n")["from_note"] is False
    assert len(host.tries) == 3


def test_it_is_tried_with_the_options_of_a_move(host: Host, tmp_path: Path) -> None:
    _ask(host, tmp_path, "external=mnt[/x]:x\nnetwork-lock=nftables\n")
    options = host.tries[0]
    assert "external=mnt[/x]:x" in options["options.dump"].splitlines()
    assert "network-lock" not in options["options.dump"] + options["options.restore"]
    assert options["options.environment"] == "network-lock=skip\n"
    assert "manage-cgroups=ignore" in options["options.restore"].splitlines()
    _ask(host, tmp_path, version="3.17.1")
    assert host.tries[-1]["options.environment"] == "", "it does not know that option"


def test_a_dump_that_fails_is_reported_by_its_cause_and_noted_nowhere(host: Host, tmp_path: Path) -> None:
    _ask(host, tmp_path)
    (tmp_path / "criu").write_text("another")
    host.answer, host.log = (lambda _options: FAILED), LOG
    reported = _ask(host, tmp_path)
    assert reported["ok"] is False
    assert reported["error"] == (
        "A small container of its own cannot be dumped: sockets: Can't get 1:16 opt: Operation not supported."
    )
    assert reported["steps"] == {"run": 0.108}
    assert _left(tmp_path) == []
    assert _ask(host, tmp_path)["from_note"] is False


def test_an_option_that_can_be_done_without_is_found(host: Host, tmp_path: Path) -> None:
    host.answer = lambda options: CRASHED if options["options.environment"] else GOOD
    reported = _ask(host, tmp_path)
    assert (reported["ok"], reported["error"], reported["refused_options"]) == (True, None, ["network-lock=skip"])
    assert "network-lock=skip" not in str(reported["options"])
    assert (self_test_note.read() or {})["refused_options"] == ["network-lock=skip"]


def test_lines_of_the_host_that_break_every_dump_are_named(host: Host, tmp_path: Path) -> None:
    host.answer, host.log = (lambda options: FAILED if "nonsense" in options["options.dump"] else GOOD), LOG
    reported = _ask(host, tmp_path, "nonsense\ntcp-close\n")
    assert reported["ok"] is False
    assert str(reported["error"]).endswith("It succeeds without these lines of /etc/criu/runc.conf: nonsense.")
    assert reported["host_lines"] == ["nonsense"]


def test_a_file_of_the_host_that_kills_criu_is_reported(host: Host, tmp_path: Path) -> None:
    """With the engine api it is used as it is."""
    host.answer, host.log = (lambda options: CRASHED if "network-lock" in options["options.dump"] else GOOD), LOG[:20]
    reported = _ask(host, tmp_path, "tcp-close\nnetwork-lock nftables\n")
    assert (reported["ok"], reported["error"]) == (True, None)
    assert "crashed or was killed" in str(reported["host_file_error"])
    assert _ask(host, tmp_path, "tcp-close\n")["host_file_error"] is None


def test_a_crash_is_called_one(host: Host, tmp_path: Path) -> None:
    host.answer, host.log = (lambda _options: CRASHED), LOG.splitlines()[0]
    reported = _ask(host, tmp_path)
    assert reported["ok"] is False
    assert f"CRIU 4.1.1 ended on kernel {os.uname().release} while it dumped a small container" in str(
        reported["error"]
    )
    assert "crashed or was killed" in str(reported["error"])


@pytest.mark.parametrize(("seconds", "ok"), [(5.0, None), (0.1, False)], ids=["slow", "hangs"])
def test_what_does_not_end_is_cut_off(host: Host, tmp_path: Path, seconds: float, ok: bool | None) -> None:
    """On a host that hardly gets on nothing is known then; on another one CRIU hangs."""
    host.answer = lambda _options: f"step run 1.0\nended 0 {1 + seconds}\nstep dump {2 + seconds}\n"
    reported = _ask(host, tmp_path)
    assert reported["ok"] is ok
    assert "cannot be dumped: it does not end within" in str(reported["error"])
    assert _left(tmp_path) == []


def test_a_container_that_does_not_run_says_nothing_of_criu(host: Host, tmp_path: Path) -> None:
    host.answer = lambda _options: NO_RUN
    reported = _ask(host, tmp_path)
    assert reported["ok"] is None
    assert "runc create failed: no such device" in str(reported["error"])


def test_without_its_tools_nothing_is_tried(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_NEEDS", ("sh", "no-such-runc"))
    reported = _ask(host, tmp_path)
    assert reported["ok"] is None
    assert "no-such-runc" in str(reported["error"])
    assert host.tries == []


def test_what_was_cut_off_is_swept(host: Host, tmp_path: Path) -> None:
    for name, age in (("self-test-old", 3600), ("self-test-new", 0), ("20261123T000001Z-3f9a1c", 3600)):
        directory = tmp_path / "run" / name
        directory.mkdir(parents=True)
        since = directory.stat().st_mtime - age
        os.utime(directory, (since, since))
    _ask(host, tmp_path)
    assert _left(tmp_path) == ["20261123T000001Z-3f9a1c", "self-test-new", "self-test.json"]
