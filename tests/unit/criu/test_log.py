# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failure of the engine carries CRIU's own words, if they are about this failure."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import log as criu_log

# From a restore on the lab of a container with a mount whose source is a symbolic link (criu 4.2.1).
LOG = """\
(00.011498) Warn  (criu/cr-restore.c:1050): Set CLONE_PARENT | CLONE_NEWPID but it might cause restore problem
(00.260250)      1: mnt-v2: \tBind /usr/bin/docker-init to /tmp/.criu.mntns.cyjZ7P/mnt-0000001434
(00.260267)      1: Error (criu/mount-v2.c:413): mnt-v2: Can't remount /tmp/.criu.mntns.cyjZ7P/mnt-0000001434
(00.260901) Error (criu/cr-restore.c:2331): Restoring FAILED.
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    log = tmp_path / "criu.log"
    log.write_text(LOG)
    path = tmp_path / "runc.conf"
    path.write_text(f"# ours\nlog-file={log}\ntcp-close\n")
    return path


def _fail(configuration: Path, code: str = "restore_failed") -> MigrationError:
    with pytest.raises(MigrationError) as caught, criu_log.explain_errors("restore_failed", str(configuration)):
        raise MigrationError(code, "Cannot restore it.", status=500)
    return caught.value


def test_the_errors_are_reported_and_nothing_else(configuration: Path) -> None:
    failure = _fail(configuration)
    assert failure.message.startswith("Cannot restore it. CRIU says: ")
    assert "Can't remount" in failure.message
    assert "Restoring FAILED" in failure.message
    assert "CLONE_PARENT" not in failure.message
    assert failure.details["status"] == 500
    assert len(failure.details["criu"]) == 2


def test_a_criu_that_died_is_called_dead(configuration: Path) -> None:
    with pytest.raises(MigrationError) as caught, criu_log.explain_errors("dump_failed", str(configuration)):
        raise MigrationError("dump_failed", "Cannot checkpoint container x: read unixpacket @->@: EOF")
    assert "ended on kernel" in caught.value.message
    assert "while it dumped the container" in caught.value.message
    assert caught.value.message.endswith("The engine says: Cannot checkpoint container x: read unixpacket @->@: EOF")


def test_a_log_from_before_is_somebody_elses(configuration: Path) -> None:
    old = time.time() - 60
    os.utime(configuration.parent / "criu.log", (old, old))
    assert _fail(configuration).message == "Cannot restore it."


def test_other_failures_pass_as_they_are(configuration: Path) -> None:
    assert _fail(configuration, "engine_unreachable").message == "Cannot restore it."


@pytest.mark.parametrize("text", ["", "tcp-close\n", "log-file=relative.log\n"])
def test_without_a_log_file_the_engines_words_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runc.conf"
    path.write_text(text)
    assert _fail(path).message == "Cannot restore it."
    assert _fail(tmp_path / "missing.conf").message == "Cannot restore it."
