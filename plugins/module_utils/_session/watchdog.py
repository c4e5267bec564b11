# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The watchdog of a host: systemd units that settle its sessions when nobody else does.

One timer looks at all sessions of the host every few seconds, now and after every boot, as long as there is a session. Each
time a small shell program reads the leases (``Session.renew``); while all sessions show signs of life it starts no process. For
each session whose lease has run out it starts an instance of a template service. That runs the program which the session has
left for it: the ``settle`` of the agent, in the version that the session began with. So sessions of different versions of this
collection share only

* the names below, and that a file of a session's id in SESSIONS_DIRECTORY is a shell program that settles it;
* what a lease is: ``/run/livemigrate/SESSION/lease`` with the identity of the boot and the CLOCK_BOOTTIME of its end in
  seconds.

Whoever changes one of these has to take other names for the units and the directory, because both versions can be at work side by
side.

The units are real files and not made by ``systemd-run``: they have to act after a reboot, so they must outlive it. The services
have no Restart= of their own: systemd before 244 refuses that for oneshot services, and one way to try again is enough.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shlex
import time
import typing as t

from .._base import durable
from .._base.command import Runner, run, run_checked
from .._base.errors import MigrationError
from .session import AGENT, STATE_ROOT, VOLATILE_ROOT

UNIT_DIRECTORY = "/etc/systemd/system"
WATCHDOG_DIRECTORY = f"{STATE_ROOT}/watchdog"
# How often the watchdog looks, in seconds.
INTERVAL_SECONDS = 5

TIMER = "livemigrate-watchdog.timer"
SERVICE = "livemigrate-watchdog.service"
SETTLE = "livemigrate-settle@.service"

# Seconds that a settling of a session that is over may take to notice that: it waits for the session's lock, and ends.
_SERVICE_ENDS_SECONDS = 5.0

# A session's id; not what a write that was cut off leaves (see _base/durable.py).
_PATTERN = "[0-9]*T[0-9]*Z-??????"
_DOING = "arm the watchdog (systemd)"

_TIMER_TEXT = """\
# Made by livemigrate.criu for the migrations under way, and removed with the last of them; see playbooks/recover.yml.
[Unit]
Description=Watch over the migrations of this host

[Timer]
OnBootSec=1
OnUnitInactiveSec={interval}
AccuracySec=1

[Install]
WantedBy=timers.target
"""

_SERVICE_TEXT = """\
# Made by livemigrate.criu for the migrations under way, and removed with the last of them; see playbooks/recover.yml.
[Unit]
Description=Look which migrations of this host have been abandoned
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh {look}
# It waits for nothing. One that was stopped or hangs must not keep the next from its turn.
TimeoutStartSec=30
TimeoutStopSec=5
# Not a line in the journal for every look; what it does is told by the services that it starts.
LogLevelMax=notice
"""

_SETTLE_TEXT = """\
# Made by livemigrate.criu for the migrations under way, and removed with the last of them; see playbooks/recover.yml.
[Unit]
Description=Settle migration %i
# Not after docker.service: what is frozen may go on without it, and a start of it may take as long as it likes.
After=network-online.target
Wants=network-online.target
# The watchdog tries again for as long as it takes: an undecided session has to wait for the other host.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh {sessions}/%i
# 75: to be tried again. It is not a failure of the host.
SuccessExitStatus=75
# systemd would make a slice for the instances, which stays.
Slice=system.slice
"""

# Skipped is only what has certainly shown a sign of life: whatever cannot be read or compared is left to the agent, which looks
# at the lease itself. The clock is the start of this very shell (proc(5): field 22 of stat, hundredths of a second since the
# boot). Unlike /proc/uptime no container manager replaces that, and reading it starts no process.
_LOOK_TEXT = """\
# One look of livemigrate.criu's watchdog, for all migrations of this host; see livemigrate-watchdog.timer.

start_of() {{
    line=
    read -r line <"/proc/$1/stat"
    # Behind the name, which may hold anything: fields 3 and following.
    set -- ${{line##*) }}
    ticks=${{20}}
}}

read -r boot </proc/sys/kernel/random/boot_id
start_of 1
boot=$boot/$ticks
start_of $$
now=${{ticks%??}} due=
for place in {sessions}/{pattern}; do
    [ -e "$place" ] || continue
    session=${{place##*/}} said='' expires=''
    # There is no line end behind it.
    {{ read -r said expires <"{leases}/$session/lease"; }} 2>/dev/null
    [ "$said" = "$boot" ] && [ "$now" -lt "${{expires%%.*}}" ] 2>/dev/null && continue
    due="$due livemigrate-settle@$session.service"
done
# The names are words: no session's id has a blank.
# shellcheck disable=SC2086
[ -z "$due" ] || exec systemctl --no-block start $due
"""

# A session that was closed has no agent any more: it needs no watchdog, however it came that this is still here.
_SESSION_TEXT = """\
# How livemigrate.criu's watchdog settles this migration.
[ -e {agent} ] || exec rm -f "$0"
exec {settle}
"""


def _sessions() -> str:
    return os.path.join(WATCHDOG_DIRECTORY, "sessions")


def _place(session: str) -> str:
    """The file that is run to settle a session. The watchdog looks after a session when this file is there."""
    return os.path.join(_sessions(), session)


def texts() -> dict[str, str]:
    """The files that all sessions share: their content by their path."""
    look = os.path.join(WATCHDOG_DIRECTORY, "look")
    return {
        look: _LOOK_TEXT.format(sessions=_sessions(), pattern=_PATTERN, leases=VOLATILE_ROOT),
        os.path.join(UNIT_DIRECTORY, SETTLE): _SETTLE_TEXT.format(sessions=_sessions()),
        os.path.join(UNIT_DIRECTORY, SERVICE): _SERVICE_TEXT.format(look=look),
        os.path.join(UNIT_DIRECTORY, TIMER): _TIMER_TEXT.format(interval=INTERVAL_SECONDS),
    }


@contextlib.contextmanager
def _one_at_a_time() -> t.Iterator[None]:
    """The last session removes the units. No other session may begin meanwhile and rely on them."""
    fd = os.open(os.path.join(WATCHDOG_DIRECTORY, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def arm(session: str, settle: t.Sequence[str], runner: Runner = run) -> None:
    """Have the watchdog look after a session, and start it where this is the first one.

    :param settle: the agent's command line for it.
    :raises MigrationError: ``watchdog_failed``.
    """
    durable.make_directory(_sessions())
    agent = os.path.join(STATE_ROOT, session, AGENT)
    text = _SESSION_TEXT.format(agent=shlex.quote(agent), settle=" ".join(shlex.quote(part) for part in settle))
    with _one_at_a_time():
        durable.write(_place(session), text.encode())
        changed = [path for path, content in texts().items() if _read(path) != content]
        for path in changed:
            durable.write(path, texts()[path].encode(), 0o644)
        if changed or not _waits(runner):
            run_checked(runner, ["systemctl", "daemon-reload"], "watchdog_failed", _DOING)
            run_checked(runner, ["systemctl", "--quiet", "enable", TIMER], "watchdog_failed", _DOING)
            run_checked(runner, ["systemctl", "start", TIMER], "watchdog_failed", _DOING)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def _state(runner: Runner) -> dict[str, str]:
    """The state of the timer, from systemd."""
    answer = runner(["systemctl", "show", "--property=ActiveState,UnitFileState", TIMER])
    return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)


def _waits(runner: Runner) -> bool:
    """Whether the timer is at work, and will be after the next boot."""
    state = _state(runner)
    return state.get("ActiveState") == "active" and state.get("UnitFileState") == "enabled"


def prove(session: str, runner: Runner = run) -> None:
    """Make sure that the watchdog is really waiting, for this session too.

    :raises MigrationError: ``watchdog_failed``.
    """
    if not os.path.exists(_place(session)) or not _waits(runner):
        state = _state(runner)
        raise MigrationError(
            "watchdog_failed",
            f"The watchdog {TIMER} is not active and enabled, or does not know session {session} (systemd says: "
            f"{', '.join(filter(None, state.values())) or 'nothing'}); nothing may be frozen without it. Begin the migration "
            "again: that puts the watchdog up anew.",
        )


def disarm(session: str, runner: Runner = run) -> None:
    """Let the watchdog forget a session. With the last session the watchdog is removed. It is no error to do this twice.

    The settling service may be the caller, so it is not stopped: it ends by itself.
    """
    _remove_former(session, runner)
    if not os.path.isdir(_sessions()):
        return
    with _one_at_a_time():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_place(session))
            durable.sync_directory(_sessions())
            with contextlib.suppress(MigrationError):
                _forget_service(SETTLE.replace("@", f"@{session}"), runner)
        if not glob.glob(os.path.join(_sessions(), _PATTERN)):
            there = [path for path in texts() if os.path.exists(path)]
            if there:
                _remove_units(TIMER, there, runner)


def _forget_service(name: str, runner: Runner) -> None:
    """Leave no failed service behind. One that is at work while its unit's file is taken away fails, whatever it answers."""
    deadline = time.monotonic() + _SERVICE_ENDS_SECONDS
    # The caller may be that service itself.
    own = name in (_read("/proc/self/cgroup") or "")
    while not own and time.monotonic() < deadline and _is_at_work(name, runner):
        time.sleep(0.1)
    runner(["systemctl", "reset-failed", name])


def _is_at_work(name: str, runner: Runner) -> bool:
    state = runner(["systemctl", "show", "--property=ActiveState", name]).stdout.partition("=")[2].strip()
    return state in ("activating", "active", "deactivating")


def _remove_units(timer: str, paths: t.Iterable[str], runner: Runner) -> None:
    with contextlib.suppress(MigrationError):
        runner(["systemctl", "stop", timer])
        runner(["systemctl", "--quiet", "disable", timer])
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    durable.sync_directory(UNIT_DIRECTORY)
    with contextlib.suppress(MigrationError):
        runner(["systemctl", "daemon-reload"])


def _remove_former(session: str, runner: Runner) -> None:
    """A session that an earlier version of this collection began has a timer and a service of its own."""
    names = [f"livemigrate-{session}.{kind}" for kind in ("timer", "service")]
    there = [path for path in (os.path.join(UNIT_DIRECTORY, name) for name in names) if os.path.exists(path)]
    if there:
        _remove_units(names[0], there, runner)
