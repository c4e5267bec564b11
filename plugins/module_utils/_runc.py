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
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import _criu_log, _criu_stats, _names
from ansible_collections.livemigrate.criu.plugins.module_utils._command import Runner, run
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._waiting_unit import WaitingUnit

# Where dockerd has runc keep its notes about containers: <exec-root>/runtime-runc/<namespace of containerd>.
_ROOTS = "/run/docker/runtime-*/*"


def root_of(container_id: str, roots: str = _ROOTS) -> str:
    """The value of runc's ``--root`` under which it knows a running container.

    :raises MigrationError: ``runc_unknown``, where another runtime runs it, or dockerd has another ``--exec-root``.
    """
    for path in sorted(glob.glob(os.path.join(roots, _names.container_id(container_id), "state.json"))):
        return os.path.dirname(os.path.dirname(path))
    raise MigrationError(
        "runc_unknown",
        f"runc has no notes about container {container_id[:12]} below {roots}: it runs under another runtime, or dockerd has "
        "another --exec-root.",
        container=container_id,
    )


def unit_of(session: str) -> str:
    """The name of the unit in which the dump of a session runs."""
    return f"livemigrate-{session}-dump.service"


def _systemd(session: str) -> list[str]:
    argv = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit_of(session)}"]
    return [*argv, "--property=UMask=0077"]


# Units that wait for the dump of a session, in this process.
_units: dict[str, Runner] = {}


@contextlib.contextmanager
def unit_ready(session: str) -> t.Iterator[None]:
    """Have the unit of a session's dump started and waiting meanwhile, so that the frozen time is not charged for that.

    :raises MigrationError: ``unit_failed``.
    """
    with WaitingUnit(_systemd(session)) as unit:
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
    flags: t.Sequence[str],
    timeout: float,
    runner: Runner | None = None,
) -> dict[str, float | int]:
    """Dump a paused container into a directory; it stays paused.

    :param images: an empty directory for CRIU's images.
    :param work: a directory for CRIU's log and statistics.
    :param flags: runc's own, as ``--file-locks``.
    :param timeout: seconds; after them the dump is given up as failed, but not killed (see :func:`await_end`).
    :returns: CRIU's statistics.
    :raises MigrationError: ``dump_failed`` with CRIU's own words.
    """
    runner = runner or _units.get(session, run)
    argv = [*_systemd(session), "runc", "--root", root_of(container_id), "checkpoint", "--leave-running"]
    argv += ["--image-path", images, "--work-path", work, *flags, container_id]
    done = runner(argv, timeout=timeout)
    if done.rc != 0:
        lines: list[str] = []
        with (
            contextlib.suppress(OSError),
            open(os.path.join(work, "dump.log"), encoding="utf-8", errors="replace") as handle,
        ):
            lines = _criu_log.errors(handle.read())
        said = f" CRIU says: {' / '.join(lines)}" if lines else ""
        raise MigrationError("dump_failed", f"runc cannot dump the container: {done.output}{said}", criu=lines)
    with contextlib.suppress(FileNotFoundError), open(os.path.join(work, "stats-dump"), "rb") as handle:
        return _criu_stats.dump_statistics(handle.read())
    return {}


def await_end(session: str, timeout: float, runner: Runner = run) -> None:
    """Wait for a dump that may still be running; only after its end may the container be thawed.

    :raises MigrationError: ``dump_running`` after *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    # Anything but a plain word that it has ended (a bus that does not answer) is none.
    while runner(["systemctl", "is-active", unit_of(session)]).stdout.strip() not in ("inactive", "failed", "unknown"):
        if time.monotonic() >= deadline:
            raise MigrationError(
                "dump_running",
                f"CRIU is still dumping the container ({unit_of(session)}); nothing may thaw it before that has ended.",
                unit=unit_of(session),
            )
        time.sleep(0.1)
