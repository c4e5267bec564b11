# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""How a module has a step of an open session done: by the session's own agent.

The agent has all the code, compiled, and the version of it that has opened the session. A module that carried that code itself
would be packed by Ansible, sent and compiled again for each step: 0.3 to 0.5 s of a processor on the host and as much on the
control node (measured; ten steps are a move).
"""

from __future__ import annotations

import json
import signal
import subprocess
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import Session


def call(session: Session, name: str, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Do a step of a session.

    The agent goes on when its caller is ended: half a step is harder to tidy up than a whole one.

    :param name: see ``_steps.py``.
    :param params: plain data.
    :raises MigrationError: as the step does; ``session_over``; ``step_ended`` when the agent ended without an answer.
    """
    _require_open(session)
    # Not run_command: a step may take as long as its memory needs, and its parameters go through its standard input.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        [*session.agent, "step", session.id, name],
        input=json.dumps(dict(params)).encode(),
        capture_output=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        # The end of a session takes its agent away.
        _require_open(session)
        raise MigrationError("step_ended", _how_it_ended(name, done), session=session.id) from None
    if "failure" in answer:
        raise MigrationError.from_failure(answer["failure"])
    return dict(answer["result"])


def _require_open(session: Session) -> None:
    if session.ended:
        raise MigrationError(
            "session_over", f"Session {session.id} has been brought to its end meanwhile.", session=session.id
        )


def _how_it_ended(name: str, done: subprocess.CompletedProcess[bytes]) -> str:
    words = done.stderr.decode(errors="replace").strip()
    if done.returncode < 0:
        try:
            how = f"was killed by {signal.Signals(-done.returncode).name}"
        except ValueError:
            how = f"was killed by signal {-done.returncode}"
    else:
        how = f"ended with exit code {done.returncode} and no answer"
    return f"The step {name} {how}.{f' It said: {words}' if words else ''}"
