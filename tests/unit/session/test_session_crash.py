# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions after a power cut: the journal cut anywhere, the process killed at any call, the disk full."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import freeze
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    ABORT,
    DECISIONS,
    DESTINATION,
    SOURCE,
    TRANSITIONS,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session, remove_remains
from tests.unit.helpers.support import CONTAINER, ROOT, killed_at

MakeSession = Callable[..., Session]

SESSION = "20261123T000001Z-3f9a1c"
LONGEST = {
    SOURCE: ["opened", "prepared", "arming", "armed", "freezing", "dumped", "sent", "held", "committed"],
    DESTINATION: ["opened", "creating", "created", "starting", "held", "run"],
}


def _whole_lines(content: bytes) -> int:
    """How many entries are complete; the last one is so without its line end, too."""
    lines = content.split(b"\n")
    complete = len(lines) - 1
    try:
        json.loads(lines[-1])
    except ValueError:
        return complete
    return complete + 1


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_a_journal_cut_at_any_byte_is_read_and_continued(role: str, make_session: MakeSession, quick: Path) -> None:
    session = make_session(role)
    for phase in LONGEST[role][1:]:
        session.enter(phase, text='\u2028 } {"phase": "closed"}')
    whole = Path(session.path("journal")).read_bytes()
    phases = LONGEST[role]
    assert whole.count(b"\n") == len(phases)
    roots = {"state_root": str(quick / "copy"), "volatile_root": str(quick / "run")}
    shutil.copytree(session.directory, quick / "copy" / session.id)
    copy = Session(session.id, **roots)
    journal = Path(copy.path("journal"))
    for length in range(len(whole) + 1):
        journal.write_bytes(whole[:length])
        complete = _whole_lines(whole[:length])
        assert [entry["phase"] for entry in copy.journal] == phases[:complete], length
        assert copy.phase == (phases[complete - 1] if complete else "opened"), length
        following = TRANSITIONS[role][copy.phase][0]
        copy.enter(following, cut=length)
        expected = [*phases[:complete], following]
        assert [entry["phase"] for entry in Session(session.id, **roots).journal] == expected, length
        assert copy.data(following) == {"cut": length}


@pytest.mark.parametrize("tail", [b"\0" * 300, b"\xff\xfe\x80garbage", b'{"phase": "closed\xc3', b"\n\n\n"])
def test_what_a_file_system_makes_of_a_cut_off_line_is_passed_over(tail: bytes, make_session: MakeSession) -> None:
    session = make_session()
    session.enter("prepared")
    with open(session.path("journal"), "ab") as handle:
        handle.write(tail)
    assert session.phase == "prepared"
    session.enter("arming", policy={"Name": "always"})
    assert [entry["phase"] for entry in session.journal] == ["opened", "prepared", "arming"]
    assert session.data("arming") == {"policy": {"Name": "always"}}


def _life(roots: dict[str, str], role: str, *, keep: bool) -> None:
    session = Session.open(SESSION, role, {"container_id": CONTAINER}, **roots)
    session.enter(TRANSITIONS[role]["opened"][0])
    session.decide(DECISIONS[role][1])
    session.enter("aborted" if role == SOURCE else "refused")
    session.close(keep=keep)


@pytest.mark.parametrize(("role", "keep"), [(SOURCE, True), (DESTINATION, False)])
def test_a_session_that_is_killed_anywhere_can_be_settled_and_never_blocks_its_container(
    role: str, keep: bool, roots: dict[str, str]
) -> None:
    stood_in = set()
    for step in itertools.count(1):
        killed = killed_at(step, lambda: _life(roots, role, keep=keep))
        there = Session.all(**roots)
        assert [session.id for session in there] in ([], [SESSION])
        stood_in.add(there[0].phase if there else None)
        for session in there:
            assert session.role == role
            assert session.decision in (None, DECISIONS[role][1])
            # What a watchdog does with what it finds.
            with session.locked(timeout=0):
                if session.ended:
                    session.close_again()
                else:
                    session.decide(DECISIONS[role][1])
                    session.enter("aborted" if role == SOURCE else "refused")
                    session.close(keep=keep)
            if keep:
                assert sorted(os.listdir(session.directory)) == ["decision", "journal", "session.json"]
            else:
                assert not os.path.exists(session.directory)
            assert not os.path.exists(session.volatile)
        if not there:
            # What a watchdog does where there is no such session any more.
            remove_remains(SESSION, **roots)
            for root in roots.values():
                assert SESSION not in (os.listdir(root) if os.path.isdir(root) else ())
        following = Session.open(f"20261123T{step:06}Z-ffffff", role, {"container_id": CONTAINER}, **roots)
        assert following.phase == "opened"
        for root in roots.values():
            shutil.rmtree(root)
        if not killed:
            break
    last = "aborted" if role == SOURCE else "refused"
    assert stood_in == {None, "opened", TRANSITIONS[role]["opened"][0], last, "closed"}


_FULL_DISK = """
import os, sys
sys.path.insert(0, {tree!r})
from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
durable.require_durable = lambda path: None  # a tmpfs plays the disk, because it can be made small

def fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                pass

roots = {{"state_root": "/mnt/state", "volatile_root": {volatile!r}}}
session = Session.open({session!r}, {role!r}, {{"container_id": {container!r}}}, **roots)
session.enter({phase!r})
fill("/mnt/filler")
try:
    open("/mnt/one-more", "wb", buffering=0).write(b"x" * 10)
except OSError:
    pass
else:
    sys.exit("the disk is not full")
assert session.decide({word!r}) == {word!r}
session.enter({last!r}, reason="x" * 1000)
assert session.phase == {last!r}
session.close(keep=True)
print(*sorted(os.listdir(session.directory)))
"""


def _on_a_small_disk(program: str, disk: Path, **values: str) -> list[str]:
    """Run a program with a small file system of its own at /mnt; returns the words that it prints."""
    code = program.format(
        tree=str(ROOT / ".tree"), session=SESSION, container=CONTAINER, volatile=str(disk / "run"), **values
    )
    script = 'mount -t tmpfs -o size=1m small /mnt && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize(
    ("role", "phase", "last"), [(SOURCE, "prepared", "aborted"), (DESTINATION, "creating", "refused")]
)
def test_a_full_disk_still_takes_the_decision_that_gives_up(role: str, phase: str, last: str, disk: Path) -> None:
    files = _on_a_small_disk(_FULL_DISK, disk, role=role, phase=phase, last=last, word=DECISIONS[role][1])
    assert files == ["decision", "journal", "session.json"]


_FULL_TWICE = (
    _FULL_DISK.partition("assert session.decide")[0]
    + """
# The journal takes the ballast, and another container's log takes what is left of that.
session._append({phase!r}, {{"much": "x" * 200000}})
assert not os.path.exists(session.path("ballast"))
fill("/mnt/log")
try:
    session._append({phase!r}, {{"much": "x" * 5000}})
except OSError:
    pass
else:
    sys.exit("the disk is not full")
assert session.decide({word!r}) == {word!r}
print(*sorted(os.listdir(session.directory)))
"""
)


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize(("role", "phase"), [(SOURCE, "prepared"), (DESTINATION, "creating")])
@pytest.mark.parametrize("which", [0, 1])
def test_a_disk_that_is_full_once_more_takes_every_decision(role: str, phase: str, which: int, disk: Path) -> None:
    assert "decision" in _on_a_small_disk(_FULL_TWICE, disk, role=role, phase=phase, word=DECISIONS[role][which])


def test_without_room_and_without_ballast_an_undecided_session_stays_undecided(make_session: MakeSession) -> None:
    session = make_session()
    os.unlink(session.path("ballast"))

    def refused(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", refused)
        with pytest.raises(OSError, match="No space left"):
            session.decide(ABORT)
    assert session.decision is None
    assert [name for name in os.listdir(session.directory) if name.endswith(".tmp")] == []
    assert session.decide(ABORT) == ABORT


def test_an_opening_that_fails_for_a_claim_leaves_nothing_of_itself(
    make_session: MakeSession, roots: dict[str, str]
) -> None:
    first = make_session()
    with pytest.raises(MigrationError):
        make_session()
    assert [session.id for session in Session.all(**roots)] == [first.id]
    assert os.listdir(roots["volatile_root"]) == [first.id]
    assert set(os.listdir(roots["state_root"])) == {first.id, "locks"}


def test_a_ballast_that_was_given_up_is_there_again_before_a_freeze(make_session: MakeSession) -> None:
    session = make_session()
    os.unlink(session.path("ballast"))
    session.prepare_decision()
    assert os.path.getsize(session.path("ballast")) > 100_000


def test_nothing_is_frozen_on_a_host_whose_disk_is_full(make_session: MakeSession) -> None:
    """A decision that cannot be written would keep it frozen."""
    session = make_session()
    session.enter("prepared")
    os.unlink(session.path("ballast"))
    done: list[str] = []

    class Ready:
        def __init__(self) -> None:
            self.session = session

        def make_ready(self) -> dict[str, Any]:
            done.append("made ready")
            return {}

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "write", full)
        with pytest.raises(MigrationError, match=r"Nothing has been frozen\. Make room") as caught:
            freeze.freeze(Ready())  # type: ignore[arg-type]
    assert caught.value.code == "no_space"
    assert (done, session.phase) == ([], "prepared")
