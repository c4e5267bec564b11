# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watchdog's units as systemd reads them, and the order in which they are put up and taken down."""

from __future__ import annotations

import configparser
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils import _watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._agent import TRY_AGAIN
from ansible_collections.livemigrate.criu.plugins.module_utils._command import Completed
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import LEASE_SECONDS

SESSION = "20261123T034500Z-3f9a1c"
SETTLE = ("/usr/bin/python3", "-I", "-B", f"/var/lib/livemigrate/{SESSION}/agent.pyz", "settle", SESSION)
SERVICE, TIMER = f"livemigrate-{SESSION}.service", f"livemigrate-{SESSION}.timer"


class Systemd:
    """Plays systemctl and remembers what was asked of it, and which unit files lay there at that moment."""

    def __init__(self, units: Path) -> None:
        self.units = units
        self.calls: list[tuple[str, ...]] = []
        self.there: list[set[str]] = []
        self.fails_at: tuple[str, ...] = ()
        self.missing = False
        self.state = "active"

    def __call__(self, argv: Sequence[str], **_keywords: Any) -> Completed:
        if self.missing:
            raise MigrationError("program_missing", "The program systemctl is not installed on this host.")
        assert argv[0] == "systemctl"
        call = tuple(word for word in argv[1:] if word != "--quiet")
        self.calls.append(call)
        self.there.append({path.name for path in self.units.iterdir()})
        if call == ("is-active", TIMER):
            return Completed(0 if self.state == "active" else 3, self.state + "\n", "")
        return Completed(1, "", "Access denied") if call == self.fails_at else Completed(0, "", "")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    units = tmp_path / "units"
    units.mkdir()
    monkeypatch.setattr(_watchdog, "UNIT_DIRECTORY", str(units))
    return Systemd(units)


def _unit(systemd: Systemd, name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((systemd.units / name).read_text())
    return parser


def test_units_are_whole_before_systemd_is_told_and_the_timer_starts_now_and_at_boot(systemd: Systemd) -> None:
    _watchdog.arm(SESSION, SETTLE, systemd)
    assert systemd.calls == [("daemon-reload",), ("enable", TIMER), ("start", TIMER)]
    assert systemd.there == [{SERVICE, TIMER}] * 3
    for path in systemd.units.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_service_settles_once_and_the_timer_tries_again(systemd: Systemd) -> None:
    _watchdog.arm(SESSION, SETTLE, systemd)
    service, timer = _unit(systemd, SERVICE), _unit(systemd, TIMER)
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["ExecStart"] == " ".join(SETTLE)
    assert service["Service"]["SuccessExitStatus"] == str(TRY_AGAIN)
    # systemd before 244 refuses it for oneshot services, and with it the whole unit.
    assert "Restart" not in service["Service"]
    assert "docker.service" in service["Unit"]["After"]
    # Without the other host nothing may be given up, however often it has been tried.
    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    assert "Requires" not in service["Unit"], "it has to run when Docker does not"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert float(timer["Timer"]["OnBootSec"]) <= 5
    interval = float(timer["Timer"]["OnUnitInactiveSec"]) + float(timer["Timer"]["AccuracySec"])
    assert interval == _watchdog.INTERVAL_SECONDS + 1
    assert interval < LEASE_SECONDS, "a service may not stand frozen for much longer than its lease"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", [SERVICE, TIMER])
def test_systemd_itself_finds_nothing_wrong(name: str, systemd: Systemd) -> None:
    # The one thing that a test machine lacks: the agent's own path is only looked at when it runs.
    _watchdog.arm(SESSION, ("/bin/sh", *SETTLE[1:]), systemd)
    done = _verify(systemd.units / name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # And it would find something.
    (systemd.units / name).write_text((systemd.units / name).read_text() + "\n[Service]\nNonsense=1\nTimer\n")
    assert _verify(systemd.units / name).stderr != ""


def _verify(unit: Path) -> subprocess.CompletedProcess[str]:
    # What else this machine has by way of units is no concern of ours.
    environment = {
        **os.environ,
        "SYSTEMD_UNIT_PATH": f"{unit.parent}:/lib/systemd/system",
        "SYSTEMD_LOG_LEVEL": "warning",
    }
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("step", [("daemon-reload",), ("enable", TIMER), ("start", TIMER)])
def test_a_watchdog_that_cannot_be_put_up_is_an_error(step: tuple[str, ...], systemd: Systemd) -> None:
    systemd.fails_at = step
    with pytest.raises(MigrationError) as caught:
        _watchdog.arm(SESSION, SETTLE, systemd)
    assert caught.value.code == "watchdog_failed"
    assert "Access denied" in caught.value.message
    # And what there is of it can be taken down.
    _watchdog.disarm(SESSION, systemd)
    assert list(systemd.units.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "waiting"), [("active", True), ("inactive", False), ("failed", False), ("unknown", False), ("", False)]
)
def test_only_a_watchdog_that_waits_is_relied_on(state: str, waiting: bool, systemd: Systemd) -> None:
    systemd.state = state
    if waiting:
        _watchdog.prove(SESSION, systemd)
        return
    with pytest.raises(MigrationError) as caught:
        _watchdog.prove(SESSION, systemd)
    assert caught.value.code == "watchdog_failed"
    assert TIMER in caught.value.message


def test_taking_it_down_leaves_nothing_and_does_not_stop_the_service_that_may_be_doing_it(systemd: Systemd) -> None:
    (systemd.units / "other.service").write_text("")
    _watchdog.arm(SESSION, SETTLE, systemd)
    systemd.calls.clear()
    _watchdog.disarm(SESSION, systemd)
    assert [path.name for path in systemd.units.iterdir()] == ["other.service"]
    assert ("stop", TIMER) in systemd.calls
    assert ("disable", TIMER) in systemd.calls
    assert systemd.calls.index(("stop", TIMER)) < systemd.calls.index(("daemon-reload",))
    assert ("stop", SERVICE) not in systemd.calls
    systemd.calls.clear()
    _watchdog.disarm(SESSION, systemd)
    assert systemd.calls == [], "a second time there is nothing to do"


def test_taking_it_down_goes_on_without_systemd(systemd: Systemd) -> None:
    _watchdog.arm(SESSION, SETTLE, systemd)
    systemd.missing = True
    _watchdog.disarm(SESSION, systemd)
    assert list(systemd.units.iterdir()) == []
