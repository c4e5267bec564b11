# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import table as preflight_table
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Settings

display = Display()


class ActionModule(ActionBase):
    """Judges on the control node, where the facts of both hosts are."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        checked = ArgumentSpecValidator(preflight_judge.ARGUMENTS).validate(self._task.args)
        if checked.error_messages:
            raise AnsibleActionFail(" ".join(checked.error_messages))
        given = checked.validated_parameters
        settings = Settings(
            bind_mounts=tuple(given["bind_mounts"]),
            overwrite_data=given["overwrite_data"],
            close_connections=given["close_connections"],
        )
        try:
            verdict = preflight_judge.judge(
                given["source"],
                given["destination"],
                given["engine"],
                settings=settings,
                ignore=given["ignore_rules"],
                judged_at=time.time(),
            )
        except MigrationError as exc:
            raise AnsibleActionFail(f"{exc.message} Nothing has been touched.") from None
        table = preflight_table.render(verdict, shutil.get_terminal_size((110, 24)).columns)
        display.display(table)
        result.update(
            changed=False,
            engine=verdict.engine,
            engine_reason=verdict.engine_reason,
            findings=[one._asdict() for one in verdict.findings],
            ignored=[one._asdict() for one in verdict.ignored],
            prediction=verdict.prediction,
            table=table,
        )
        failing = verdict.failing(given["fail_on"])
        if failing:
            text = " ".join(f"[{one.rule}] {one.message} {one.remedy}" for one in failing)
            result.update(failed=True, msg=f"{text} Nothing has been touched.")
        return result
