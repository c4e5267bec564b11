# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A systemd unit that is started before the container is frozen, and gets its command afterwards.

systemd takes longer to make a unit (0.03 s, 0.1 s where it is busy) and to notice its end than CRIU to dump a small container.
The unit's shell reads one line from whoever holds it. When that ends without one, the line never comes and the unit ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import subprocess
import time
import typing as t

from .._base.command import Completed, run
from .._base.errors import MigrationError

# The shell reports the end: systemd-run would wait until systemd has tidied up after the unit.
_SHELL = (
    'echo waiting; IFS= read -r line || exit 0; eval "set -- $line"; "$@" </dev/null; rc=$?; echo; echo "ended $rc"'
)
_WAITING = re.compile(rb"^waiting\n", re.MULTILINE)
_ENDED = re.compile(rb"\nended (\d+)\n\Z")
_READY_SECONDS = 30.0


class WaitingUnit:
    """A ``Runner`` (see ``_base/command.py``) for one program that is to run in a unit of its own."""

    def __init__(self, systemd: t.Sequence[str]) -> None:
        """
        :param systemd: systemd-run with its options, ``--wait`` and ``--pipe`` among them.
        :raises MigrationError: ``unit_failed``.
        """
        self._systemd = list(systemd)
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
            [*self._systemd, "sh", "-c", _SHELL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._output = b""
        self._used = False
        try:
            ready = self._wait_for_output(_WAITING, _READY_SECONDS)
        except BaseException:
            self._end()
            raise
        if ready is None:
            self._end()
            output = self._output.decode("utf-8", "replace").strip() or "no output"
            raise MigrationError("unit_failed", f"systemd does not start a unit for the dump: {output}")
        self._output = b""

    def __enter__(self) -> WaitingUnit:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end()

    def _end(self) -> None:
        """Let go of the unit. A unit that got no command ends by that; one that works is not disturbed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        with contextlib.suppress(OSError):
            t.cast("t.IO[bytes]", stdin).close()
        if self._used:
            # Nobody needs systemd-run any more; the unit does not depend on it.
            self._process.terminate()
        try:
            self._process.wait(_READY_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        t.cast("t.IO[bytes]", stdout).close()

    def _wait_for_output(self, what: re.Pattern[bytes], timeout: float) -> re.Match[bytes] | None:
        """Hear the unit out until it has said something; None where it ends without that.

        :raises MigrationError: ``program_timeout``.
        """
        fd = t.cast("t.IO[bytes]", self._process.stdout).fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + timeout
        while True:
            found = what.search(self._output)
            if found:
                return found
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise MigrationError(
                    "program_timeout",
                    f"{self._systemd[0]} did not finish within {timeout:g} seconds.",
                    program=self._systemd[0],
                    timeout=timeout,
                )
            data = os.read(fd, 1 << 16)
            if not data:
                return None
            self._output += data

    def __call__(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float = 60.0,
        text: str | None = None,
        env: t.Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program in the unit, once.

        :param argv: the same arguments of systemd-run, then the program. With other arguments, or a second time, it is run as
            it is.
        :raises MigrationError: as :func:`command.run`.
        """
        border = len(self._systemd)
        arguments = list(argv[border:])
        line = " ".join(shlex.quote(argument) for argument in arguments)
        # What begins with a dash is one more option of systemd-run.
        same = list(argv[:border]) == self._systemd and bool(arguments) and not arguments[0].startswith("-")
        if self._used or not same or text is not None or env or "\n" in line:
            # The unit's name is needed.
            self._end()
            return run(argv, timeout=timeout, text=text, env=env)
        self._used = True
        stdin = t.cast("t.IO[bytes]", self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        ended = self._wait_for_output(_ENDED, timeout)
        if ended is None:
            return Completed(1, self._output.decode("utf-8", "replace"), "")
        return Completed(int(ended.group(1)), self._output[: ended.start()].decode("utf-8", "replace"), "")
