# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent of a host of its own, as a program: a directory stands for the host, and what it moves are sleepers.

    python -m tests.unit.helpers.sleeper_host DIRECTORY serve SESSION COMMAND

The code is the real one: agent, session, channel, rsync, watchdog. What it would change of this machine is below the directory:
sessions, units, and the sleepers, whose processes are real. Nobody logs in: the channel's ssh starts the other host's agent.

In the environment ``DIE_AT`` names a phase or a decision: the agent is killed at the moment when that is on the disk.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

_TREE = str(Path(__file__).resolve().parents[3] / ".tree")


def _as_host(root: Path) -> None:
    from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
    from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
    from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot, memory_filesystem
    from ansible_collections.livemigrate.criu.plugins.module_utils._migration import recovery, source
    from ansible_collections.livemigrate.criu.plugins.module_utils._session import session as sessions
    from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
    from ansible_collections.livemigrate.criu.plugins.module_utils._subjects import by_kind
    from tests.unit.helpers import sleeper

    roots = {"state_root": str(root / "state"), "volatile_root": str(root / "run")}
    functions: tuple[Any, ...] = (Session.__init__, Session.open, Session.all, sessions.remove_remains)
    for function in functions:
        getattr(function, "__func__", function).__kwdefaults__.update(roots)
    places: tuple[tuple[Any, str, str], ...] = (
        (watchdog, "STATE_ROOT", roots["state_root"]),
        (watchdog, "UNIT_DIRECTORY", str(root / "units")),
        (watchdog, "WATCHDOG_DIRECTORY", f"{roots['state_root']}/watchdog"),
        (recovery, "STATE_ROOT", roots["state_root"]),
    )
    for module, name, value in places:
        setattr(module, name, value)
    # Directories in memory are disk enough here, and no file system is mounted.
    durable._VOLATILE = frozenset()
    memory_filesystem.keep_out_of_swap = lambda _path: False  # type: ignore[assignment]
    boot.boot_identity = (root / "boot").read_text
    boot.host_identity = source.host_identity = lambda: root.name  # type: ignore[attr-defined]
    channel_server.authorise = lambda *_words: None
    channel_server.revoke = lambda *_words: None
    by_kind.KINDS.clear()
    by_kind.KINDS[sleeper.NOUN] = lambda: sleeper.Sleepers(sleeper.Host(root))
    _die_at(os.environ.get("DIE_AT", ""), Session)


def _die_at(word: str, session: Any) -> None:
    for name in ("enter", "decide"):
        before = getattr(session, name)

        def noted(self: Any, printed: str, _before: Any = before, **data: Any) -> Any:
            result = _before(self, printed, **data)
            if printed == word:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(session, name, noted)


def main(argv: list[str]) -> int:
    sys.path.insert(0, _TREE)
    _as_host(Path(argv[0]))
    from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent

    return agent.main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
