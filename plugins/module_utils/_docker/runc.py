# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""runc, asked directly for what the Docker engine cannot do: a dump of a paused container, with options of its own.

CRIU runs in a systemd unit of its own. It thaws the paused container while it works and has its tasks in its hand; were it
killed together with an Ansible task, they would be left in the middle of that.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import time
import typing as t

from .._base import valid_names
from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._base.versions import parse_version
from .._criu import failure as criu_failure
from .._criu import log as criu_log
from .._criu import statistics as criu_statistics
from .._host import procfs
from .._host.tasks import TaskGroup
from .._host.waiting_unit import WaitingUnit

# Where dockerd has runc keep its notes about containers: <exec-root>/runtime-runc/<namespace of containerd>.
_ROOTS = "/run/docker/runtime-*/*"
# Where systemd has the cgroups of the units that systemd-run makes.
_UNITS = "/sys/fs/cgroup/system.slice"
# Seconds that systemd has to answer.
_SYSTEMD_SECONDS = 10.0


def root_of(container_id: str, roots: str = _ROOTS) -> str:
    """The value of runc's ``--root`` under which it knows a running container.

    :raises MigrationError: ``runc_unknown``, where another runtime runs it, or dockerd has another ``--exec-root``.
    """
    for path in sorted(glob.glob(os.path.join(roots, valid_names.container_id(container_id), "state.json"))):
        return os.path.dirname(os.path.dirname(path))
    raise MigrationError(
        "runc_unknown",
        f"runc has no notes about container {container_id[:12]} below {roots}: it runs under another runtime, or dockerd has "
        "another --exec-root.",
        container=container_id,
    )


def criu_version(runner: Runner = run) -> str:
    """The version of the CRIU that runc finds, as ``4.2.1``; empty where there is none."""
    with contextlib.suppress(MigrationError):
        return ".".join(map(str, parse_version(runner(["criu", "--version"]).stdout)))
    return ""


def host_options() -> str:
    """The text of the options that runc has CRIU read for every container of this host; empty where there are none."""
    with contextlib.suppress(OSError), open(criu_log.CONFIGURATION, encoding="utf-8", errors="replace") as handle:
        return handle.read()
    return ""


def unit_of(session: str) -> str:
    """The name of the unit in which the dump of a session runs."""
    return f"livemigrate-{session}-dump.service"


def by_environment(options: str) -> str:
    """The file with those options that CRIU is given through its environment, beside the file for :func:`dump`."""
    return f"{options}.environment"


def _systemd(session: str, options: str) -> list[str]:
    return [
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit_of(session)}"),
        *("--property=UMask=0077", f"--property=BindReadOnlyPaths={options}:{criu_log.CONFIGURATION}"),
        f"--setenv=CRIU_CONFIG_FILE={by_environment(options)}",
    ]


# Units that wait for the dump of a session, in this process.
_units: dict[str, Runner] = {}


@contextlib.contextmanager
def unit_ready(session: str, options: str) -> t.Iterator[None]:
    """Have the unit of a session's dump started and waiting meanwhile, so that the frozen time is not charged for that.

    :param options: the file for :func:`dump`. It may be written as late as before that, but in place.
    :raises MigrationError: ``unit_failed``.
    """
    for path in (options, by_environment(options)):
        with open(path, "a", encoding="utf-8"):
            pass
    with WaitingUnit(_systemd(session, options)) as unit:
        _units[session] = unit
        try:
            yield
        finally:
            del _units[session]


def dump(
    session: str,
    container_id: str,
    images: str,
    work: str,
    *,
    options: str,
    timeout: float,
    runner: Runner | None = None,
) -> dict[str, float | int]:
    """Dump a paused container into a directory; it stays paused.

    :param images: an empty directory for CRIU's images.
    :param work: a directory for CRIU's log and statistics.
    :param options: a file with CRIU's options for this dump. It lies in the place of the host's own for this one unit, because
        what stands there overrides the flags of runc. Beside it :func:`by_environment`.
    :param timeout: seconds; after them the dump is given up as failed, but not killed (see :func:`await_end`).
    :returns: CRIU's statistics.
    :raises MigrationError: ``dump_failed`` with CRIU's own errors.
    """
    runner = runner or _units.get(session, run)
    argv = [*_systemd(session, options), "runc", "--root", root_of(container_id), "checkpoint", "--leave-running"]
    argv += ["--image-path", images, "--work-path", work, container_id]
    began = time.time()
    done = runner(argv, timeout=timeout)
    statistics: bytes | None = None
    with contextlib.suppress(FileNotFoundError), open(os.path.join(work, "stats-dump"), "rb") as handle:
        statistics = handle.read()
    # The last that CRIU writes. systemd calls it a success when a program gets SIGTERM (`systemctl stop`) and ends.
    if done.rc != 0 or statistics is None:
        log = criu_log.text(work, began)
        output = _own_output(done.output) or "it was ended before it was through"
        raise MigrationError(
            "dump_failed",
            criu_failure.explain(criu_failure.DUMP, output, log, began) + _loss(log),
            criu=criu_log.errors(log),
        )
    return criu_statistics.dump_statistics(statistics)


def _own_output(output: str) -> str:
    """runc's last error without its frame, or all that was said where there is none."""
    found = re.findall(r'level=error msg="((?:[^"\\]|\\.)*)"', output)
    return re.sub(r"\\n.*", "", found[-1]) if found else output


def _loss(log: str) -> str:
    """What to tell where CRIU was killed at the moment in which it made a process run code of its own: that process has ended."""
    task = criu_log.task_in_hand(log)
    if task is None:
        return ""
    with contextlib.suppress(OSError):
        # One that its parent has not looked after yet has ended all the same.
        if procfs.stat_fields(task[0])[procfs.STATE] not in ("Z", "X"):
            return ""
    return (
        f" CRIU was cut off while it had the process {task[1]} ({task[0]}) in its hand, and that has ended with it. Restart the "
        "container unless the process comes and goes by itself."
    )


def _processes(session: str) -> TaskGroup:
    """Those of the unit in which the dump of a session runs."""
    return TaskGroup(os.path.join(_UNITS, unit_of(session)))


def _has_ended(session: str, runner: Runner) -> bool:
    state = ""
    with contextlib.suppress(MigrationError):
        state = runner(["systemctl", "is-active", unit_of(session)], timeout=_SYSTEMD_SECONDS).stdout.strip()
    # Where systemd does not answer, the kernel knows.
    return state in ("inactive", "failed", "unknown") or not (state or _processes(session).populated)


def await_end(session: str, timeout: float, runner: Runner = run) -> None:
    """Wait for a dump that may still be running; only after its end may the container be thawed.

    :raises MigrationError: ``dump_running`` after *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while not _has_ended(session, runner):
        if time.monotonic() >= deadline:
            raise MigrationError(
                "dump_running",
                f"CRIU is still dumping the container ({unit_of(session)}); nothing may thaw it before that has ended.",
                unit=unit_of(session),
            )
        time.sleep(0.1)


def end_dump(session: str, runner: Runner = run) -> None:
    """Kill a dump that hangs, and wait for its end. The tasks that CRIU had in its hand may lose one of them (decision 0052).

    :raises MigrationError: ``dump_running`` where the kernel keeps one of its processes waiting, so that it cannot be killed.
    """
    try:
        _processes(session).kill()
    except MigrationError as exc:
        raise MigrationError(
            "dump_running",
            f"CRIU ({unit_of(session)}) hangs and cannot be killed: the kernel keeps it waiting, for a disk or a network file "
            "system that does not answer. The container is thawed as soon as it ends.",
            unit=unit_of(session),
        ) from exc
    await_end(session, _SYSTEMD_SECONDS, runner)
