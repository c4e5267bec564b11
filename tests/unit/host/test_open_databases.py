# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQLite databases of real programs: which of them are open, and for how long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import (
    filesystems,
    open_databases,
    process_resources,
)

# Does what its first argument says with a database, and then waits; or opens and closes one for ever.
PROGRAM = """
import os, signal, sqlite3, sys, time
how, path = sys.argv[1:]
def connect(path, *statements):
    made = sqlite3.connect(path, isolation_level=None)
    for statement in ("create table if not exists t(x)", "insert into t values (1)", *statements):
        made.execute(statement)
    return made
if how == "rollback":
    held = connect(path)
elif how == "wal":
    held = connect(path, "pragma journal_mode=wal", "insert into t values (2)")
elif how == "encrypted":
    # As an encrypted one with a write-ahead log looks: noise, and SQLite's files beside it.
    held = [open(path + end, "w+b") for end in ("", "-wal", "-shm")]
    held[0].write(os.urandom(8192)); held[0].flush()
elif how == "reader of a log":
    connect(path, "pragma journal_mode=wal", "insert into t values (2)").close()
    held = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    held.execute("select * from t").fetchall()
elif how == "reader":
    connect(path).close()
    held = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    held.execute("select * from t").fetchall()
elif how == "temporary":
    held = sqlite3.connect("")
    held.execute("pragma temp_store=file"); held.execute("pragma cache_size=1")
    held.execute("create temp table t(x)"); held.execute("insert into t values (zeroblob(1 << 20))")
elif how == "closed":
    connect(path).close()
elif how == "other":
    held = open(path, "w+"); held.write("SQLite format 2, and more of it"); held.flush()
elif how == "leased":
    import fcntl
    connect(path).close()
    held = open(path, "r+b")
    signal.signal(signal.SIGIO, lambda *_ignored: os.unlink(path))
    fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("ready", flush=True)
while how == "each use":
    connect(path).close()
    time.sleep(0.01)
while True:
    time.sleep(1)
"""


def _look(*pids: int, shared: bool = False) -> list[open_databases.Database]:
    return open_databases.Databases(shared=shared).look(pids)


@contextmanager
def _program(how: str, path: Path) -> Iterator[int]:
    argv = [sys.executable, "-c", PROGRAM, how, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("how", "reported"),
    [
        ("rollback", True),
        ("wal", True),
        ("encrypted", True),
        # Nobody writes to it.
        ("reader", False),
        ("reader of a log", True),
        ("leased", True),
        ("closed", False),
        ("other", False),
        # It has no name, so SQLite does not look for it.
        ("temporary", False),
    ],
)
def test_which_databases_are_open(how: str, reported: bool, disk: Path) -> None:
    path = disk / "app.db"
    with _program(how, path) as pid:
        [program] = [Path(f"/proc/{pid}/comm").read_text().rstrip("\n")]
        wanted = [open_databases.Database(str(path), program, "")] if reported else []
        assert _look(pid) == wanted
        assert open_databases.lasting(wanted, lambda: [pid]) == wanted
        facts = process_resources.look([pid], pid)["databases"]
        assert [open_databases.Database(**one) for one in facts] == wanted
        assert how != "leased" or path.exists(), "the look has broken the lease"


def test_one_that_is_opened_for_each_use_does_not_last(disk: Path) -> None:
    with _program("each use", disk / "app.db") as pid:
        deadline = time.monotonic() + 20
        found: list[open_databases.Database] = []
        while not found and time.monotonic() < deadline:
            found = _look(pid)
        assert [one.path for one in found] == [str(disk / "app.db")]
        # By chance it may be open at each look.
        assert any(open_databases.lasting(found, lambda: [pid]) == [] for _time in range(5))


def test_what_both_hosts_mount_is_distinguished(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is the same there; and it is not waited for while nothing may be waited for."""
    with _program("rollback", disk / "app.db") as pid:
        [one] = _look(pid)
        kind = {line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
        monkeypatch.setattr(filesystems, "SHARED_FILESYSTEMS", frozenset(kind))
        assert _look(pid) == []
        [shared] = _look(pid, shared=True)
        assert shared._replace(shared="") == one
        assert one.path.startswith(shared.shared)


def test_a_process_that_is_gone_has_none() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert _look(process.pid) == []


def test_a_second_look_sees_what_has_changed(disk: Path) -> None:
    """Files are known again by their last change."""
    path = disk / "app.db"
    path.write_bytes(b"")
    databases = open_databases.Databases()
    with path.open("r+b") as handle:
        assert databases.look([os.getpid()]) == []
        assert databases.look([os.getpid()]) == []
        handle.write(b"SQLite format 3\0" + bytes(1000))
        handle.flush()
        [found] = databases.look([os.getpid()])
        assert found.path == str(path)
        path.unlink()
        assert databases.look([os.getpid()]) == []
