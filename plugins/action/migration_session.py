# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code

_MODULE = "livemigrate.criu.migration_session"
# Those in which the module may have to start an agent of this version.
_NEED_CODE = frozenset({"opened", "settled", "decided", "cleaned"})


class ActionModule(ActionBase):
    """Runs the module of the same name on the host, and gives it the code of the migration's agent."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = {key: value for key, value in self._task.args.items() if key != "agent_code"}
        if arguments.get("state") in _NEED_CODE:
            arguments["agent_code"] = agent_code.pack(agent_code.of_directory(_utils()))
        wraps = bool(self._task.async_val) and not self._connection.has_native_async
        result.update(
            self._execute_module(module_name=_MODULE, module_args=arguments, task_vars=task_vars, wrap_async=wraps)
        )
        return result


def _utils() -> str:
    """The directory of the collection's utils."""
    return os.path.dirname(os.path.dirname(os.path.abspath(agent_code.__file__)))
