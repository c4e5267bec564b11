# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A CRIU that fails: the sentence that is made of its words and runc's, and its log, which is kept for some days."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import failure

LOG = (
    "(00.1) fine\n(00.2) Error (criu/files.c:1): no such file\n(00.3) Error (criu/mount.c:2): no such mount\n"
    "(00.4) Error (criu/cr-restore.c:1): Restoring FAILED.\n"
)
_FRAMES = "failed to create task for container: failed to create shim task: OCI runtime create failed: "


@pytest.mark.parametrize(
    ("output", "log", "sentence"),
    [
        ("criu failed", LOG, "CRIU cannot dump the container: no such file. It also says: no such mount."),
        ("runc: nothing of that.\n", "", "CRIU cannot dump the container: runc: nothing of that."),
        ("", "", "CRIU cannot dump the container: CRIU ended without a word."),
    ],
)
def test_its_own_words_come_before_those_of_runc(output: str, log: str, sentence: str) -> None:
    assert failure.explain(failure.DUMP, output, log, time.time()) == sentence


def test_what_stands_around_the_reason_is_left_out() -> None:
    printed = failure.explain_start(f"{_FRAMES}no space left.", "", time.time(), "")
    assert printed == "The engine did not start the copy: no space left."


def test_the_shim_tells_what_criu_could_not_do() -> None:
    output = f"{_FRAMES}livemigrate: container 5ba60768a9e0 could not be restored: it ended"
    assert failure.explain_start(output, "", time.time(), "") == "CRIU cannot restore the container: it ended."
    # The action script knows better.
    printed = failure.explain_start(output, LOG, time.time(), "no device can stand in\n")
    assert printed == "CRIU cannot restore the container: no device can stand in."


def test_a_log_is_kept_for_some_days(tmp_path: Path) -> None:
    assert failure.keep_log(failure.DUMP, "", "s1", str(tmp_path)) == ""
    printed = failure.keep_log(failure.DUMP, LOG, "s1", str(tmp_path))
    kept = tmp_path / "logs" / "s1-dump.log"
    assert printed == f" Its whole log is {kept} on the source, for 14 days."
    assert "on the destination" in failure.keep_log(failure.RESTORE, LOG, "s1", str(tmp_path))
    assert kept.read_text() == LOG
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    before = time.time() - 15 * 86400
    os.utime(kept, (before, before))
    failure.keep_log(failure.RESTORE, LOG, "s2", str(tmp_path))
    assert sorted(os.listdir(kept.parent)) == ["s1-restore.log", "s2-restore.log"]
    failure.prune(str(tmp_path), -1)
    assert os.listdir(kept.parent) == []


def test_where_there_is_no_room_nothing_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no directory")
    assert failure.keep_log(failure.DUMP, LOG, "s1", str(tmp_path)) == ""
