# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way into a module and out of it: real programs, which are given their arguments and killed as Ansible does it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.helpers.support import PACKAGE

# What Ansible puts around a module: the arguments, and from ansible-core 2.19 on the form in which they are written.
_PROGRAM = f"""
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({{"ANSIBLE_MODULE_ARGS": json.loads(sys.argv[2])}}).encode()
basic._ANSIBLE_PROFILE = "legacy"
from {PACKAGE}._base.errors import MigrationError
from {PACKAGE}._base.module import run_module


def body(parameters, check_mode):
    word = parameters["word"]
    if word == "fail":
        raise MigrationError("no_luck", "It failed.", place="here")
    if word == "defect":
        raise KeyError("nobody has thought of it")
    if word == "hangup":
        os.kill(os.getpid(), signal.SIGHUP)
    if word == "changed":
        return {{"changed": True, "warnings": ["a\x1b[31m warning"]}}
    return {{"word": word, "check": check_mode}}


run_module(body, argument_spec={{"word": {{"type": "str", "required": True}}}})
"""


def _run(**arguments: Any) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(ROOT / ".tree"), json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("check", [False, True])
def test_what_the_body_returns_is_what_the_module_returns(check: bool) -> None:
    code, result = _run(word="good", _ansible_check_mode=check)
    assert (code, result["word"], result["check"], result["changed"]) == (0, "good", check, False)


def test_warnings_are_warnings_of_ansible_without_what_a_terminal_would_obey() -> None:
    code, result = _run(word="changed")
    assert (code, result["changed"]) == (0, True)
    assert "warning" in str(result["warnings"])
    assert "\x1b" not in str(result["warnings"])


def test_our_own_error_is_a_failure_with_its_code() -> None:
    code, result = _run(word="fail")
    assert (code, result["failed"], result["msg"]) == (1, True, "It failed.")
    assert result["failure"] == {"code": "no_luck", "message": "It failed.", "details": {"place": "here"}}


def test_a_defect_is_a_failure_with_its_traceback() -> None:
    code, result = _run(word="defect", _ansible_tracebacks_for=["error"])
    assert (code, result["failure"]["code"], result["failure"]["details"]) == (1, "unexpected", {})
    assert "nobody has thought of it" in result["msg"]
    assert "in body" in str(result["exception"])


def test_a_terminal_that_goes_ends_no_step() -> None:
    assert _run(word="hangup")[1]["word"] == "hangup"
