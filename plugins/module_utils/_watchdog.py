# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A session's watchdog: systemd units that settle it when nobody else does any more.

Each session gets a service that runs the agent's ``settle`` once, and a timer that starts it every few seconds, now and after
every boot, until the session has ended; as long as the session shows signs of life (``Session.renew``) the service does
nothing. They are real unit files and not ``systemd-run`` ones, because what has to act after a reboot must outlive it. The
service has no Restart= of its own: systemd before 244 refuses that for oneshot services, and one way to try again is enough.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _durable
from ansible_collections.livemigrate.criu.plugins.module_utils._command import Runner, run, run_checked
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError

UNIT_DIRECTORY = "/etc/systemd/system"
# How often the watchdog looks, in seconds.
INTERVAL_SECONDS = 5

_SERVICE = """\
# Made by livemigrate.criu for one migration and removed with it; see playbooks/recover.yml.
[Unit]
Description=Settle migration {session}
After=docker.service network-online.target
Wants=network-online.target
# The timer tries again for as long as it takes: an undecided session has to wait for the other host.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart={settle}
# 75: to be tried again. It is not a failure of the host.
SuccessExitStatus=75
"""

_TIMER = """\
# Made by livemigrate.criu for one migration and removed with it; see playbooks/recover.yml.
[Unit]
Description=Watch over migration {session}

[Timer]
OnBootSec=1
OnUnitInactiveSec={interval}
AccuracySec=1

[Install]
WantedBy=timers.target
"""


def _unit(session: str, kind: str) -> str:
    return f"livemigrate-{session}.{kind}"


def _files(session: str) -> list[str]:
    return [os.path.join(UNIT_DIRECTORY, _unit(session, kind)) for kind in ("service", "timer")]


def arm(session: str, settle: t.Sequence[str], runner: Runner = run) -> None:
    """Install and start the watchdog of a session.

    :param settle: the agent's command line for it.
    :raises MigrationError: ``watchdog_failed``.
    """
    values = {
        "session": session,
        "interval": INTERVAL_SECONDS,
        "settle": " ".join(shlex.quote(part) for part in settle),
    }
    for path, template in zip(_files(session), (_SERVICE, _TIMER)):
        _durable.write(path, template.format(**values).encode(), 0o644)
    doing = "arm the watchdog (systemd)"
    run_checked(runner, ["systemctl", "daemon-reload"], "watchdog_failed", doing)
    run_checked(runner, ["systemctl", "--quiet", "enable", _unit(session, "timer")], "watchdog_failed", doing)
    run_checked(runner, ["systemctl", "start", _unit(session, "timer")], "watchdog_failed", doing)


def prove(session: str, runner: Runner = run) -> None:
    """Make sure that the watchdog is really waiting.

    :raises MigrationError: ``watchdog_failed``.
    """
    answer = runner(["systemctl", "is-active", _unit(session, "timer")])
    if answer.stdout.strip() not in ("active", "activating"):
        raise MigrationError(
            "watchdog_failed",
            f"The watchdog {_unit(session, 'timer')} is not active ({answer.output}); nothing may be frozen without it.",
        )


def disarm(session: str, runner: Runner = run) -> None:
    """Take the watchdog away; doing it twice is fine. The service may be the caller: it is left to end by itself."""
    if not any(os.path.exists(path) for path in _files(session)):
        return
    with contextlib.suppress(MigrationError):
        runner(["systemctl", "stop", _unit(session, "timer")])
        runner(["systemctl", "--quiet", "disable", _unit(session, "timer")])
    for path in _files(session):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    _durable.sync_directory(UNIT_DIRECTORY)
    with contextlib.suppress(MigrationError):
        runner(["systemctl", "daemon-reload"])
        runner(["systemctl", "reset-failed", _unit(session, "service")])
