# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What all modules of the collection do at their two ends: parse arguments, and tell the outcome."""

from __future__ import annotations

import signal
import typing as t

from ansible.module_utils.basic import AnsibleModule

from . import printable
from .errors import MigrationError

Result = dict[str, t.Any]
Body = t.Callable[[dict[str, t.Any], bool], Result]


def run_module(body: Body, **module_arguments: t.Any) -> None:
    """Run a module's body and leave through exit_json or fail_json.

    :param body: takes the parameters and whether this is check mode; returns the result, with ``changed`` where it did
        something and ``warnings`` where there are any.
    :param module_arguments: as for AnsibleModule (argument_spec, required_if ...); every module here supports check mode.

    A MigrationError becomes ``msg`` and ``failure: {code, message, details}``. Any other exception is a defect of ours and
    comes with its traceback.
    """
    module = AnsibleModule(supports_check_mode=True, **module_arguments)
    # A step that has begun is ended even when the control node dies and takes its terminal along: half a step (an engine that
    # still writes a checkpoint, say) is harder to tidy up than a whole one.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = body(module.params, module.check_mode)
    except MigrationError as exc:
        _fail(module, exc)
    except Exception as exc:  # noqa: BLE001 (a defect of ours, reported with its traceback)
        _fail(module, MigrationError.unexpected(exc))
    else:
        for warning in result.pop("warnings", []):
            module.warn(printable.text(warning))
        result.setdefault("changed", False)
        module.exit_json(**result)


def _fail(module: AnsibleModule, exc: MigrationError) -> t.NoReturn:
    traceback = exc.details.pop("traceback", None)
    # Ansible shows it with -vvv.
    module.fail_json(msg=exc.message, failure=exc.as_failure(), **({"exception": traceback} if traceback else {}))
    # fail_json() has no types: it does not return.
    raise SystemExit(1)
