# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether CRIU works on this host, found by trying: a tiny container of its own is run, dumped and restored by runc.

Versions do not tell it. ``criu check`` looks good on hosts where every dump fails, and a CRIU may crash over an option that
its manual page has. So the try goes the very way of a move, with the same options. All of it is in one systemd unit with mounts
of its own, which takes processes, cgroup and mounts with it when it ends, also when who asked for it is gone.

A try that succeeds is noted (``_criu/self_test_note.py``) together with all that it depends on: the running kernel (by its
boot), the programs criu and runc, the options, and the steps themselves. While nothing of that changes it is not repeated. A
failure is not noted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import typing as t

from .._base import durable
from .._base.command import SYSTEM_PATH, Completed, Runner, run
from .._base.errors import MigrationError
from .._host import boot, deleted_files
from . import death as criu_death
from . import log as criu_log
from . import options as criu_options
from . import self_test_bundle, self_test_note

Facts = dict[str, t.Any]

_PREFIX = "self-test-"
# It takes half a second; this is for hosts that hardly get on.
_SECONDS = 120
# A host that takes so long to run the container is slow. On others what does not end hangs.
_SLOW_SECONDS = 3.0
_UNIFIED = "/sys/fs/cgroup/cgroup.controllers"
_NEEDS = ("systemd-run", "runc", "nsenter", "ip")
# What is left of one that was cut off, and not by the end of its unit.
_STALE_SECONDS = 600.0


class Attempt(t.NamedTuple):
    """What became of one try."""

    #: seconds of each step that succeeded: ``run``, ``dump``, ``restore``
    steps: dict[str, float]
    #: the step that failed, if one did
    failed: str
    #: why
    error: str
    #: whether it was cut off because the host is too slow, which says nothing about CRIU
    undecided: bool = False

    @property
    def ok(self) -> bool:
        """Whether the container was dumped and restored."""
        return not self.failed


def not_tried(why: str) -> Facts:
    """What to tell where nothing was tried."""
    return {
        "ok": None,
        "steps": {},
        "seconds": 0.0,
        "options": [],
        "refused_options": [],
        "host_lines": [],
        "host_file_error": None,
        "error": why,
        "from_note": False,
    }


def of_host(host_options: str, criu: str, version: str, runner: Runner = run) -> Facts:
    """Try the CRIU of this host, unless that was done since it last changed.

    :param host_options: the text of the host's own options file.
    :param criu: the path of the program.
    :param version: of it.
    :returns: ``ok`` (None where it could not be tried), ``steps`` and ``seconds``, ``options`` of the dump, ``refused_options``
        that this CRIU cannot take, ``host_lines`` of the host's own file without which it works, ``host_file_error`` where that
        file fails as it is, as the engine ``api`` has it, and ``error`` in words.
    """
    missing = [name for name in _NEEDS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        return not_tried(f"It was not tried, because {' and '.join(missing)} cannot be found.")
    if not os.path.exists(_UNIFIED):
        return not_tried("It was not tried, because this host has cgroup version 1.")
    try:
        durable.make_directory(self_test_note.DIRECTORY)
        _sweep(self_test_note.DIRECTORY)
        key = _key(host_options, criu)
        noted = self_test_note.read(key)
        if noted is not None:
            return {**noted, "from_note": True}
        result = _try(host_options, criu, version, runner)
        if result["ok"]:
            self_test_note.write(key, result)
        else:
            self_test_note.forget()
        return result
    except (MigrationError, OSError) as exc:
        return not_tried(f"It could not be tried: {exc}")


def _key(host_options: str, criu: str) -> str:
    """All that the outcome depends on, as a digest."""
    parts = [boot.boot_id(), os.uname().release, host_options]
    for program in filter(None, (criu, shutil.which("runc", path=SYSTEM_PATH))):
        found = os.stat(program)
        parts.append(f"{os.path.realpath(program)} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}")
    parts += [self_test_bundle.STEPS, json.dumps(_options(host_options, skip_lock=True))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _sweep(directory: str) -> None:
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.startswith(_PREFIX) and os.path.isdir(path):
            with contextlib.suppress(OSError):
                if time.time() - os.path.getmtime(path) > _STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


def _options(host_options: str, *, skip_lock: bool) -> dict[str, str]:
    """The files with options, by name: those of a move, but for the action script, which is about the copy of a move."""
    script = shutil.which("true", path=SYSTEM_PATH) or "/bin/true"
    return {
        "options.restore": "".join(f"{line}\n" for line in criu_options.for_restore(kept=True, action_script=script)),
        "options.dump": criu_options.for_dump(host_options, kept=True, deleted=deleted_files.NOTHING_DELETED),
        "options.environment": criu_options.by_environment(skip_lock=skip_lock),
    }


def _try(host_options: str, criu: str, version: str, runner: Runner) -> Facts:
    """Try with all options, and where that fails find out whether one is to blame that a move can do without."""
    began = time.monotonic()
    skip_lock = criu_options.skips_network_lock(version)

    def once(text: str, skip: bool) -> Attempt:
        return _attempt(_options(text, skip_lock=skip), criu, runner)

    first = attempt = once(host_options, skip_lock)
    refused: list[str] = []
    host_lines: list[str] = []
    error = attempt.error
    if attempt.failed == "dump" and not attempt.undecided:
        own = criu_options.kept_lines(host_options)
        if skip_lock:
            attempt = once(host_options, False)
            if attempt.ok:
                refused, error = [criu_options.SKIP_LOCK], ""
        if not attempt.ok and own and once("", skip_lock).ok:
            host_lines = own
            error = f"{first.error} It succeeds without these lines of {criu_log.CONFIGURATION}: {', '.join(own)}."
    ok: bool | None = attempt.ok
    if first.failed == "run" or first.undecided:
        ok, error = None, f"It could not be tried: {first.error}"
    whole = Attempt({}, "", "")
    if attempt.ok and criu_options.names_network_lock(host_options):
        # What a move by runc leaves out the engine's own checkpoint does not.
        files = {**_options("", skip_lock=False), "options.dump": host_options}
        whole = _attempt(files, criu, runner)
    return {
        "ok": ok,
        "steps": (attempt if attempt.ok else first).steps,
        "seconds": round(time.monotonic() - began, 3),
        "options": _used(host_options, skip_lock=skip_lock and not refused),
        "refused_options": refused,
        "host_lines": host_lines,
        "host_file_error": whole.error or None,
        "error": error or None,
        "from_note": False,
    }


def _used(host_options: str, *, skip_lock: bool) -> list[str]:
    files = _options(host_options, skip_lock=skip_lock)
    return [line for name in ("options.dump", "options.environment") for line in files[name].splitlines()]


def _attempt(options: dict[str, str], criu: str, runner: Runner) -> Attempt:
    place = tempfile.mkdtemp(prefix=_PREFIX, dir=self_test_note.DIRECTORY)
    unit = f"livemigrate-{os.path.basename(place)}.service"
    try:
        files = {
            **options,
            "config.json": json.dumps(self_test_bundle.write(place, unit)),
        }
        for name, text in files.items():
            with open(os.path.join(place, name), "w", encoding="utf-8") as handle:
                handle.write(text)
        began = time.time()
        done = runner(_unit(unit, criu, place), timeout=_SECONDS + 10)
        return _outcome(done, place, began)
    finally:
        _remove_places(os.path.join(place, "restore", "restore.log"))
        shutil.rmtree(place, ignore_errors=True)


def _remove_places(log: str) -> None:
    """A restore that fails leaves the directory in which it gathered mounts; those went with the unit."""
    for place in set(re.findall(r"/tmp/\.criu\.mntns\.\w{6}\b", criu_log.read(log))):  # noqa: S108 - CRIU's own choice
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _unit(unit: str, criu: str, place: str) -> list[str]:
    return [
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}", "--slice=system.slice"),
        # Its end takes everything with it at once: the container's init would ignore SIGTERM.
        *("--property=KillSignal=SIGKILL", f"--property=RuntimeMaxSec={_SECONDS}", "--property=Delegate=yes"),
        *("--property=PrivateMounts=yes", "--property=UMask=0077"),
        f"--setenv=PATH={os.path.dirname(criu)}:{SYSTEM_PATH}",
        *("sh", "-c", self_test_bundle.STEPS, "sh", place),
    ]


def _outcome(done: Completed, place: str, began: float) -> Attempt:
    """What the steps have said, and CRIU's logs."""
    steps: dict[str, float] = {}
    output: list[str] = []
    now, since, complete = "start", 0.0, False
    for line in done.output.splitlines():
        step = re.fullmatch(r"step (\w+) ([0-9.]+)", line)
        ended = re.fullmatch(r"ended (\d+) ([0-9.]+)", line)
        if step:
            now, since, output, complete = step.group(1), float(step.group(2)), [], False
        elif ended:
            complete = True
            if ended.group(1) == "0":
                steps[now] = round(float(ended.group(2)) - since, 3)
        else:
            output.append(line)
    if "restore" in steps:
        return Attempt(steps, "", "")
    failed = "run" if now == "start" else now
    slow = not complete and steps.get("run", _SLOW_SECONDS) >= _SLOW_SECONDS
    return Attempt(steps, failed, _why(failed, "\n".join(output), place, began), undecided=slow)


def _why(step: str, output: str, place: str, began: float) -> str:
    doing = {
        "run": "runc does not run a small container of its own",
        "dump": "A small container of its own cannot be dumped",
        "restore": "A small container of its own is dumped and cannot be restored",
    }[step]
    log = criu_log.read(os.path.join(place, step, f"{step}.log")) if step != "run" else ""
    if step != "run" and criu_death.ended_without_answer(output):
        return criu_death.sentence(
            f"while it {'dumped' if step == 'dump' else 'restored'} a small container", log, began
        )
    cause = criu_log.cause(log) or _runc_error(output) or f"it does not end within {_SECONDS} seconds"
    return f"{doing}: {cause}."


def _runc_error(output: str) -> str:
    """runc's last error, without its frame."""
    found = re.findall(r'level=error msg="((?:[^"\\]|\\.)*)"', output)
    lines = [line for line in output.splitlines() if line.strip()]
    last = found[-1] if found else (lines[-1] if lines else "")
    return re.sub(r"\\n.*", "", last).strip().rstrip(".")
