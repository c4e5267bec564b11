# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""How a module opens a session, or does a step of an open one: it calls an agent.

The agent has all the code, compiled, in the version that has opened the session. If a module carried that code itself, Ansible
would pack it, send it and compile it again for each step: 0.3 to 0.5 s of a processor on the host and as much on the control
node (measured; a move has nine steps). The module that opens a session gets all of the code as an argument, from the action
plugin, and makes the agent from it, once for all sessions of this version. It runs that code only by the agent, and so finds
out whether the agent works. An agent of the caller's version also settles, decides and cleans sessions.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import typing as t

from .._base.errors import UNEXPECTED, MigrationError
from . import agent_package
from . import session as sessions
from .session import Session


def call(session: Session, name: str, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Do a step of a session.

    The agent goes on when its caller is ended: after half a step there is more to tidy up than after a whole one.

    :param name: see ``_migration/steps.py``.
    :param params: plain data.
    :raises MigrationError: as the step does; ``session_over``; ``step_ended`` when the agent ended without an answer.
    """
    _require_open(session)
    done = _run([*session.agent, "step", session.id, name], params)
    try:
        answer = _answer(done)
    except MigrationError as exc:
        if exc.code == UNEXPECTED:
            # An agent whose file is gone cannot load what it needs.
            _require_open(session)
        raise
    if answer is None:
        # The end of a session takes its agent away.
        _require_open(session)
        raise MigrationError("step_ended", _how_it_ended(f"The step {name}", done), session=session.id)
    return answer


def open_half(params: t.Mapping[str, t.Any], code: str | None, *, check_mode: bool) -> dict[str, t.Any]:
    """Have an agent of the caller's version open a half of a session.

    :param params: plain data, see ``_migration/opening.py``.
    :param code: the caller's code, see ``_session/agent_code.py``.
    :raises MigrationError: ``agent_code_missing``; as ``opening.open_half`` does; ``watchdog_failed`` where the agent does not
        work here.
    """
    path = _agent(code)
    done = _run([*sessions.agent_command(path), "open", *(["--check"] if check_mode else [])], params)
    answer = _answer(done)
    if answer is None:
        _forget(path)
        kind = params.get("kind") or sessions.FIRST_KIND
        raise MigrationError(
            "watchdog_failed",
            f"{_how_it_ended(f'The program that would thaw the {kind} in an emergency', done)} It does not work here, with "
            f"the interpreter {sys.executable}.",
        )
    return answer


def recover(name: str, params: t.Mapping[str, t.Any], code: str | None) -> dict[str, t.Any]:
    """Have an agent of the caller's version settle, decide or clean sessions.

    :param name: see ``_migration/recovery.py``.
    :param params: plain data.
    :param code: the caller's code, see ``_session/agent_code.py``.
    :raises MigrationError: ``agent_code_missing``; as that does; ``step_ended`` when the agent ended without an answer.
    """
    path = _agent(code)
    done = _run([*sessions.agent_command(path), "recover", name], params)
    answer = _answer(done)
    if answer is None:
        _forget(path)
        raise MigrationError("step_ended", _how_it_ended(f"The step {name}", done))
    return answer


def _agent(code: str | None) -> str:
    """The file of an agent of this code."""
    if not code:
        raise MigrationError(
            "agent_code_missing",
            "The module migration_session was run without its action plugin, which brings the code of the migration's agent. "
            "Call it by its full name, livemigrate.criu.migration_session, from a collection that is installed as a whole.",
        )
    return agent_package.keep(os.path.join(sessions.VOLATILE_ROOT, "agents"), code)


def _forget(path: str) -> None:
    """Remove an agent that has not answered: it may be damaged, and the next attempt makes another one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _run(command: t.Sequence[str], params: t.Mapping[str, t.Any]) -> subprocess.CompletedProcess[bytes]:
    # Not run_command: a step may take as long as its memory needs, and its parameters go through its standard input.
    return subprocess.run(  # pylint: disable=ansible-bad-function
        list(command), input=json.dumps(dict(params)).encode(), capture_output=True, check=False
    )


def _answer(done: subprocess.CompletedProcess[bytes]) -> dict[str, t.Any] | None:
    """The agent's answer; None where there is none.

    :raises MigrationError: the failure in the answer.
    """
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return None
    if "failure" in answer:
        raise MigrationError.from_failure(answer["failure"])
    return dict(answer["result"])


def _require_open(session: Session) -> None:
    if session.ended:
        raise MigrationError(
            "session_over", f"Session {session.id} has been brought to its end meanwhile.", session=session.id
        )


def _how_it_ended(who: str, done: subprocess.CompletedProcess[bytes]) -> str:
    output = done.stderr.decode(errors="replace").strip()
    if done.returncode < 0:
        try:
            how = f"was killed by {signal.Signals(-done.returncode).name}"
        except ValueError:
            how = f"was killed by signal {-done.returncode}"
    else:
        how = f"ended with exit code {done.returncode} and no answer"
    return f"{who} {how}.{f' It said: {output}' if output else ''}"
