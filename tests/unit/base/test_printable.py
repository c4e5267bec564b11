# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container or the other host calls things reaches no terminal as it is."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import printable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._host import process_resources
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import handover
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import table as preflight_table
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.finding import Case, Finding
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.judge import Verdict
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.rules import processes as rules_processes
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import ROOT, bring_to, wait_for

MakeSession = Callable[..., Session]

# What it is, and what is shown instead.
HOSTILE = {
    "\x1b]0;pwned\x07": r"\x1b]0;pwned\x07",
    "\x1b[2J\x1b[H": r"\x1b[2J\x1b[H",
    "back\x08\x7f": r"back\x08\x7f",
    "\x9b31m": r"\x9b31m",
    "over\rwritten": r"over\rwritten",
    "nul\0": r"nul\x00",
    "\u202egpj.exe": r"\u202egpj.exe",
    "\u2066a\u2069\u200e\u200f\u061c": r"\u2066a\u2069\u200e\u200f\u061c",
    "line\u2028end\u2029": r"line\u2028end\u2029",
    "tag\U000e0041": r"tag\U000e0041",
    "no UTF-8 \udcff\udc80": r"no UTF-8 \xff\x80",
    "half \ud800": r"half \ud800",
    "\ufeffmark": r"\ufeffmark",
}
HARMLESS = ["", "a sentence, with 'all' sorts.", "naïve Ελλάδα 容器 🐧", r"C:\x1b\n", "e\u0301"]
pytestmark = pytest.mark.parametrize(("hostile", "shown"), HOSTILE.items(), ids=range(len(HOSTILE)))


def test_it_becomes_visible_and_stays_what_it_became(hostile: str, shown: str) -> None:
    assert printable.text(hostile) == shown
    assert printable.text(shown) == shown
    # It can be written anywhere.
    shown.encode("ascii")
    for harmless in HARMLESS:
        assert printable.text(harmless) == harmless
        assert printable.text(harmless + hostile) == harmless + shown


def test_data_of_any_shape(hostile: str, shown: str) -> None:
    reported = {hostile: [hostile, (hostile, 1), {"a": {"b": hostile}}], "n": None, "f": 1.5, "t": True}
    assert printable.data(reported) == {shown: [shown, [shown, 1], {"a": {"b": shown}}], "n": None, "f": 1.5, "t": True}


def test_a_finding_is_one_visible_line(hostile: str, shown: str) -> None:
    found = Finding("a_rule", f"The program {hostile} \nok: [alpha]", f"End {hostile}.", variable="x")
    assert found == ("a_rule", f"The program {shown} \\nok: [alpha]", f"End {shown}.", "error", "x")
    assert found.code == "a_rule"
    assert found._asdict()["remedy"] == f"End {shown}."


def test_an_error_is_visible_and_keeps_its_lines(hostile: str, shown: str) -> None:
    exc = MigrationError("failed", f"CRIU says:\n\t{hostile}", words=[f"a\n{hostile}"], path={"name": hostile})
    assert str(exc) == exc.message == f"CRIU says:\n\t{shown}"
    assert exc.as_failure() == {
        "code": "failed",
        "message": f"CRIU says:\n\t{shown}",
        "details": {"words": [f"a\n{shown}"], "path": {"name": shown}},
    }
    assert MigrationError.of(OSError(f"no {hostile}"), "failed").message == f"OSError: no {shown}"


def test_the_table_of_a_preflight(hostile: str, shown: str) -> None:
    case = Case(container={"processes": {"held": {"io_uring": [hostile]}, "foreign": [hostile + "\nok: [alpha]"]}})
    findings = [
        Finding(rule.__name__, *reported)
        for rule in (rules_processes.io_uring, rules_processes.exec_session_running)
        for reported in rule(case)
    ]
    assert len(findings) == 2
    verdict = Verdict("runtime", f"the host {hostile}", findings, [], None)
    lines = preflight_table.render(verdict, 100).splitlines()
    # splitlines() knows more ends of lines than a terminal; all of these are ours.
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("ok:") for line in lines)
    together = "".join(line.strip() for line in lines).replace(" ", "")
    assert together.count(shown.replace(" ", "")) >= 3


def test_a_process_that_names_itself(hostile: str, shown: str) -> None:
    name = hostile.encode("utf-8", "surrogateescape" if "\ud800" not in hostile else "surrogatepass")[:15]
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
        time.sleep(20)
        os._exit(0)
    try:
        # What is before a NUL byte counts.
        comm = Path(f"/proc/{pid}/comm")
        wait_for(lambda: comm.read_bytes() == name.partition(b"\0")[0] + b"\n", "it has its name")
        seen = process_resources.parse_status(process_resources.read(f"/proc/{pid}/status"))["name"]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert Finding("io_uring", f"The program {seen}", "End it.").message.isprintable()
    assert shown


# -- from the other host -------------------------------------------------------------------------------------------------


def test_the_other_host_s_failures(hostile: str, shown: str) -> None:
    reported = {
        "code": "restore_failed",
        "message": f"CRIU: {hostile}",
        "details": {"code": 1, "message": 2, "at": hostile},
    }
    known = MigrationError.from_failure(reported)
    assert (known.code, known.message) == ("restore_failed", f"CRIU: {shown}")
    assert known.details == {"code": 1, "message": 2, "at": shown}


@pytest.mark.parametrize(
    "reported",
    [
        {"code": "x"},
        {"message": "x"},
        {"code": 1, "message": "x"},
        {"code": "A B", "message": "x"},
        {"code": "x", "message": ["x"]},
        ["x"],
        "x",
        7,
    ],
    ids=str,
)
def test_failures_that_are_none(reported: Any, hostile: str, shown: str) -> None:
    known = MigrationError.from_failure([reported, hostile])
    assert known.code == "channel_failed"
    assert known.message.isprintable()
    assert MigrationError.from_failure(reported).code == "channel_failed"
    assert shown


def test_an_answer_through_the_channel(hostile: str, shown: str, make_session: MakeSession) -> None:
    session = make_session()
    peer = {"address": "192.0.2.1", "port": 22, "user": "root", "host_keys": ["ssh-ed25519 AAAA"]}
    channel_client.set_peer(session, peer)
    channel = channel_client.Channel(session)
    with pytest.raises(MigrationError) as caught:
        channel._answer(1, json.dumps({"failure": {"code": "x", "message": hostile}}), "")
    assert caught.value.message == shown
    for stdout, stderr in (("", hostile), (hostile, "")):
        with pytest.raises(MigrationError) as caught:
            channel._answer(255, stdout, f"ssh: {stderr}")
        assert caught.value.message.replace("\n", "").isprintable()


def test_what_is_reported_of_the_copy(hostile: str, shown: str) -> None:
    numbers = {"seconds": 1.5, "flush_seconds": 0.25, "flush_waited": 0.0, "processes": 2, "recognised": 2}
    reported = {**numbers, "warnings": [hostile, 3], "timeline": [["restored", 0.5]], "phase": "x", hostile: hostile}
    assert handover._of_copy(reported) == ({**numbers, "warnings": [shown, "3"]}, [("restored", 0.5)])
    for wrong in (
        {"seconds": hostile},
        {"processes": [hostile]},
        {"warnings": 1},
        {"recognised": None},
        {"timeline": [[hostile, 0.5]]},
    ):
        with pytest.raises(MigrationError) as caught:
            handover._of_copy({**reported, **wrong})
        assert caught.value.code == "channel_failed"
        assert caught.value.message.isprintable()


@pytest.mark.usefixtures("host_roots")
def test_stories(hostile: str, shown: str, make_session: MakeSession) -> None:
    session = bring_to(make_session(peer_name=f"beta{hostile}"), "held")
    session.enter("committed", destination_container_id=hostile, gap=None)
    [reported] = session_stories.stories(session.id)
    assert reported["peer"] == f"beta{shown}"
    assert reported["data"]["committed"]["destination_container_id"] == shown
    assert reported["story"].isprintable()
    assert reported["session"] == session.id


_MODULE = """
import sys
sys.path.insert(0, {tree!r})
from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module
def body(params, check_mode):
    if params["fail"]:
        raise OSError(params["text"])
    return {{"warnings": [params["text"]]}}
run_module(body, argument_spec={{"text": {{"type": "str"}}, "fail": {{"type": "bool"}}}})
"""


@pytest.mark.parametrize("fail", [False, True])
def test_a_module_s_warnings_and_unexpected_errors(hostile: str, shown: str, fail: bool) -> None:
    if "\0" in hostile or any("\ud800" <= one <= "\udfff" for one in hostile):
        pytest.skip("no such text gets into a module by its arguments")
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"text": hostile, "fail": fail}})
    argv = [sys.executable, "-c", _MODULE.format(tree=str(ROOT / ".tree"))]
    done = subprocess.run(argv, input=arguments, capture_output=True, text=True, check=False)
    reported = json.loads(done.stdout)
    # What a warning looks like differs between versions of ansible-core.
    texts = (
        [reported["msg"], reported["failure"]["message"]]
        if fail
        else [json.dumps(reported["warnings"], ensure_ascii=False)]
    )
    for text in texts:
        assert text.isprintable()
        assert (shown if fail else json.dumps(shown)[1:-1]) in text
