# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running programs, waiting, locking, and naming a process so that it cannot be mistaken for another one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


class LabError(Exception):
    """The lab cannot do what it was asked; the text tells the user why and what to do."""


def note(text: str) -> None:
    """Tell the user what is going on, on standard error: standard output is for answers."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    text_input: str | None = None,
    timeout: float | None = 60,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in the C locale and without a shell.

    timeout is in seconds. With check, a failure or a time-out raises LabError with the program's own words.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=text_input,
            stdin=subprocess.DEVNULL if text_input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no end after {error.timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: not found on this machine") from error
    if check and done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no output")[-2000:]
        raise LabError(f"{' '.join(argv)}: exit code {done.returncode}: {words}")
    return done


def bound(*argv: str) -> list[str]:
    """A command line that dies with us, for programs that would go on filling directories after we were killed."""
    return ["setpriv", "--pdeathsig", "KILL", *argv]


def wait_for(what: str, check: Callable[[], bool], timeout: float, interval: float = 0.1) -> None:
    """Wait until check() is true, at most timeout seconds; then LabError names what was waited for."""
    limit = time.monotonic() + timeout
    while not check():
        if time.monotonic() > limit:
            raise LabError(f"waited {timeout:.0f} s for {what}")
        time.sleep(interval)


@contextlib.contextmanager
def exclusive(path: Path, timeout: float = 900) -> Iterator[None]:
    """Hold the lock file at path. It is removed at the end, so that no trace of the lab stays on the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = time.monotonic() + timeout
    reported = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            if not reported:
                note(f"waiting for process {holder or '?'}, which holds {path}")
                reported = True
            if time.monotonic() > limit:
                raise LabError(f"process {holder or '?'} still holds {path} after {timeout:.0f} s") from None
            time.sleep(0.2)
            continue
        # The one before us may have removed the file between our open and our lock: then we hold a lock on nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                break
        os.close(handle)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(handle)


def mount_points() -> list[Path]:
    """All mount points that this process sees, in the order they were mounted.

    Not os.path.ismount(), which does not notice a bind mount within one file system.
    """
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        found.append(Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), point)))
    return found


def remove_tree(directory: Path) -> None:
    """Unmount whatever is mounted in a directory, and remove it; what is on other file systems is never entered."""
    for point in reversed(mount_points()):
        if point == directory or directory in point.parents:
            run(["umount", str(point)])
    if directory.exists() or directory.is_symlink():
        run(["rm", "-rf", "--one-file-system", str(directory)], timeout=300)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None when it is gone.

    A PID and its start time together name one process for ever; a PID alone may be somebody else's by now.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(identity: Sequence[int] | None) -> bool:
    """Whether the process recorded as [PID, start time] still runs."""
    return identity is not None and start_time(identity[0]) == identity[1]
