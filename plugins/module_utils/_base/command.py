# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Programs on this host, run the one way: no shell, C locale, bounded time."""

from __future__ import annotations

import os
import subprocess
import typing as t

from .errors import MigrationError

# Where a service's programs are (systemd's own default). sudo's secure_path, cron's PATH and shells that are no login shells
# leave sbin out on some systems; criu, nft and iptables live there.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Completed(t.NamedTuple):
    """What a program answered; output decoded as UTF-8, undecodable bytes replaced."""

    rc: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, for messages."""
        return "\n".join(part.strip() for part in (self.stdout, self.stderr) if part.strip())


class Runner(t.Protocol):
    """How utils are given their way to run programs."""

    def __call__(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float = ...,
        text: str | None = ...,
        env: t.Mapping[str, str] | None = ...,
    ) -> Completed: ...


def environment(additions: t.Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of programs: ours, with the C locale and with every place in which programs are."""
    full = dict(os.environ, LC_ALL="C", LANGUAGE="C", **(additions or {}))
    # An empty part would mean the working directory.
    parts = [part for part in full.get("PATH", "").split(":") if part]
    return dict(full, PATH=":".join([*parts, SYSTEM_PATH]))


def run(
    argv: t.Sequence[str],
    *,
    timeout: float = 60.0,
    text: str | None = None,
    env: t.Mapping[str, str] | None = None,
) -> Completed:
    """Run a program and return what it answered, whatever its exit code.

    :param argv: the program and its arguments; never passed through a shell.
    :param timeout: seconds after which the program is killed.
    :param text: text for its standard input; without it, standard input is empty.
    :param env: additions to the environment.
    :raises MigrationError: ``program_missing`` or ``program_timeout``.
    """
    try:
        # Not run_command: watchdog and channel run without Ansible, and AnsibleModule's has no time-out.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            list(argv),
            input=text.encode() if text is not None else None,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            timeout=timeout,
            env=environment(env),
            check=False,
        )
    except FileNotFoundError:
        raise missing(argv[0]) from None
    except subprocess.TimeoutExpired:
        raise too_slow(argv[0], timeout) from None
    return Completed(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def missing(program: str) -> MigrationError:
    """What is said of a program that is not there."""
    return MigrationError("program_missing", f"The program {program} is not installed on this host.", program=program)


def too_slow(program: str, timeout: float) -> MigrationError:
    """What is said of a program that was killed because its time was up."""
    return MigrationError(
        "program_timeout",
        f"{program} did not finish within {timeout:g} seconds and was killed.",
        program=program,
        timeout=timeout,
    )


def run_checked(runner: Runner, argv: t.Sequence[str], code: str, doing: str, *, timeout: float = 60.0) -> Completed:
    """Run a program that has to succeed.

    :param code: the error's code when it does not.
    :param doing: what was attempted, for the message: ``Cannot <doing>: <output>``.
    :raises MigrationError: with *code*, or as :func:`run`.
    """
    done = runner(argv, timeout=timeout)
    if done.rc != 0:
        raise MigrationError(code, f"Cannot {doing}: {done.output or 'no output'}", argv=list(argv), rc=done.rc)
    return done
