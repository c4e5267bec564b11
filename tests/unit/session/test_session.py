# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session's record: opening, phases, the journal, the decision, the end."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import (
    DECISIONS,
    DESTINATION,
    SOURCE,
    TRANSITIONS,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER, ROOT, bring_to, race, way_to

MakeSession = Callable[..., Session]

PHASES = [(role, phase) for role, table in TRANSITIONS.items() for phase in table]
EVERY_PHASE = sorted({phase for _role, phase in PHASES})
# Where a session may stand from which the container still goes on where it was, or does not come to where it was to go.
UNDECIDED = {SOURCE: "aborted", DESTINATION: "refused"}
DONE = {SOURCE: "committed", DESTINATION: "run"}
OVER = ("aborted", "refused", "closed")


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "phase"), PHASES)
def test_the_table_leads_everywhere_and_to_one_end(role: str, phase: str) -> None:
    table = TRANSITIONS[role]
    assert way_to(role, phase)
    assert set(table[phase]) <= set(table)
    assert (table[phase] == ()) == (phase == "closed"), "only the end has nothing after it"


@pytest.mark.parametrize(("role", "phase"), PHASES)
def test_the_table_lets_everything_be_given_up_until_it_is_done_and_nothing_after(role: str, phase: str) -> None:
    finished = {UNDECIDED[role], DONE[role], "closed"}
    assert (UNDECIDED[role] in TRANSITIONS[role][phase]) == (phase not in finished)
    if phase in (UNDECIDED[role], DONE[role]):
        assert TRANSITIONS[role][phase] == ("closed",)


@pytest.mark.parametrize(("role", "phase"), PHASES)
def test_a_phase_is_followed_by_what_the_table_says_and_by_nothing_else(
    role: str, phase: str, make_session: MakeSession
) -> None:
    session = bring_to(make_session(role), phase)
    journal = Path(session.path("journal"))
    before = journal.read_bytes()
    outcomes = {}
    for wanted in [*EVERY_PHASE, "nonsense", ""]:
        try:
            session.enter(wanted, note=1)
        except MigrationError as exc:
            outcomes[wanted] = exc.code if exc.details["phase"] == phase else "told another phase"
            if journal.read_bytes() != before:
                outcomes[wanted] += ", but left a trace"
        else:
            outcomes[wanted] = "entered" if journal.read_bytes() != before else "nothing"
            assert session.phase == wanted
        journal.write_bytes(before)
    refused = {
        wanted: "session_over" if phase in OVER and wanted != "closed" else "illegal_transition" for wanted in outcomes
    }
    assert outcomes == {**refused, phase: "nothing", **dict.fromkeys(TRANSITIONS[role][phase], "entered")}


# -- phases and their data -------------------------------------------------------------------------------------------


def test_entering_a_phase_again_changes_nothing(make_session: MakeSession) -> None:
    session = bring_to(make_session(), "prepared")
    session.enter("arming", policy={"Name": "always"})
    before = Path(session.path("journal")).read_bytes()
    session.enter("arming", policy={"Name": "no"})
    assert Path(session.path("journal")).read_bytes() == before
    assert session.data("arming") == {"policy": {"Name": "always"}}, "the first look is the one that counts"


def test_what_was_noted_is_found_again_by_another_process(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = bring_to(make_session(), "arming")
    session.enter("armed", text='zwölf "quoted"\nsecond line\u2028', number=3, nothing=None, nested={"a": [1]})
    again = Session(session.id, **roots)
    assert again.phase == "armed"
    assert again.data("armed") == {
        "text": 'zwölf "quoted"\nsecond line\u2028',
        "number": 3,
        "nothing": None,
        "nested": {"a": [1]},
    }
    assert [entry["phase"] for entry in again.journal] == ["opened", "prepared", "arming", "armed"]
    entry = again.reached("arming")
    assert entry is not None
    assert entry["boot"] == boot.boot_identity()
    assert again.reached("freezing") is None
    assert again.data("freezing") == {}


def test_what_a_caller_does_with_an_answer_does_not_reach_the_record(make_session: MakeSession) -> None:
    session = bring_to(make_session(), "prepared")
    session.enter("arming", policy="always")
    session.data("arming")["policy"] = "no"
    assert session.data("arming") == {"policy": "always"}


def test_a_phase_knows_whether_it_is_of_this_boot(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = bring_to(make_session(), "prepared")
    assert session.happened_in_this_boot("prepared")
    assert not session.happened_in_this_boot("arming")
    # The same kernel, another start of the host's first process: a container that is a host, started again.
    kernel, _slash, ticks = boot.boot_identity().rpartition("/")
    monkeypatch.setattr(boot, "boot_identity", lambda: f"{kernel}/{int(ticks) + 1}")
    assert not session.happened_in_this_boot("prepared")
    session.enter("arming")
    assert session.happened_in_this_boot("arming")


_PRINT_MARK = (
    f"import sys; sys.path.insert(0, {str(ROOT / '.tree')!r})\n"
    "from ansible_collections.livemigrate.criu.plugins.module_utils._host.boot import boot_identity\n"
    "print(boot_identity())"
)


def test_the_mark_of_a_boot_is_the_same_in_every_process() -> None:
    other = subprocess.run([sys.executable, "-c", _PRINT_MARK], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == boot.boot_identity()
    assert len(boot.boot_identity().split()) == 1, "it is stored between blanks"


@pytest.mark.usefixtures("needs_namespaces")
def test_hosts_that_share_a_kernel_are_distinguished_by_their_first_process() -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", _PRINT_MARK]
    container = subprocess.run(unshare, capture_output=True, text=True, check=True)
    assert container.stdout.strip() != boot.boot_identity()
    assert container.stdout.startswith(boot.boot_id() + "/")


# -- the decision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [SOURCE, DESTINATION])
def test_a_decision_is_made_once(role: str, make_session: MakeSession, roots: dict[str, str]) -> None:
    for first, second in (DECISIONS[role], DECISIONS[role][::-1]):
        session = make_session(role, container=(first + "0" * 64).encode().hex()[:64])
        assert session.decision is None
        assert session.decide(first) == first
        assert session.decide(second) == first
        assert session.decide(first) == first
        assert Session(session.id, **roots).decision == first


def test_a_host_makes_only_its_own_decisions(make_session: MakeSession) -> None:
    source, destination = make_session(SOURCE), make_session(DESTINATION, container=OTHER_CONTAINER)
    for session, decisions in (
        (source, DECISIONS[DESTINATION]),
        (destination, DECISIONS[SOURCE]),
        (source, ("", "GO_SENT\n", "../x")),
    ):
        for decision in decisions:
            with pytest.raises(ValueError, match="is no decision of a"):
                session.decide(decision)
        assert session.decision is None


def _decide_one_of_two(session: Session, number: int) -> str:
    return session.decide(DECISIONS[SOURCE][number % 2])


def test_of_eight_who_decide_at_once_all_obey_one(make_session: MakeSession) -> None:
    seen = set()
    for attempt in range(8):
        session = make_session(container=f"{attempt:064x}")
        answers = race(8, partial(_decide_one_of_two, session))
        words = {word for kind, word in answers if kind == "ok"}
        assert [kind for kind, _word in answers] == ["ok"] * 8
        assert words == {session.decision}
        seen.add(session.decision)
    assert seen <= set(DECISIONS[SOURCE])


# -- opening ---------------------------------------------------------------------------------------------------------


def test_a_new_session_is_private_and_says_what_it_is_about(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = make_session(DESTINATION, ancestry=["1"])
    assert (session.role, session.phase, session.decision, session.ended) == (DESTINATION, "opened", None, False)
    assert session.facts["ancestry"] == ["1"]
    assert session.facts["session"] == session.id
    for directory in (session.directory, session.volatile, roots["state_root"], roots["volatile_root"]):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    for base, _directories, names in os.walk(roots["state_root"]):
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(base, name)).st_mode) & 0o077 == 0, name
    assert session.lease_left > 0


def test_an_id_is_used_once(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = bring_to(make_session(SOURCE), "prepared")
    record, journal = Path(session.path("session.json")).read_bytes(), Path(session.path("journal")).read_bytes()
    # As it happens when source and destination turn out to be one host, or when an opening is repeated.
    for role in (DESTINATION, SOURCE):
        with pytest.raises(MigrationError) as caught:
            Session.open(session.id, role, {"container_id": CONTAINER}, **roots)
        assert caught.value.code == "session_exists"
    assert Path(session.path("session.json")).read_bytes() == record
    assert Path(session.path("journal")).read_bytes() == journal
    assert Session(session.id, **roots).role == SOURCE


@pytest.mark.parametrize(
    ("session", "facts"),
    [
        ("../20261123T034500Z-3f9a1c", {"container_id": CONTAINER}),
        ("20261123T034500Z-3f9a1c", {"container_id": "../../etc/passwd"}),
        ("20261123T034500Z-3f9a1c", {"container_id": CONTAINER[:12]}),
    ],
)
def test_bad_names_make_nothing(session: str, facts: dict[str, str], roots: dict[str, str], quick: Path) -> None:
    with pytest.raises(MigrationError):
        Session.open(session, SOURCE, facts, **roots)
    assert list(quick.iterdir()) == []


def test_a_journal_in_memory_is_refused(memory: Path, disk: Path) -> None:
    lasting = {"state_root": str(disk / "state"), "volatile_root": str(memory / "run")}
    forgetful = {**lasting, "state_root": str(memory / "state")}
    with pytest.raises(MigrationError) as caught:
        Session.open("20261123T034500Z-3f9a1c", SOURCE, {"container_id": CONTAINER}, **forgetful)
    assert caught.value.code == "state_not_durable"
    assert Session.all(**forgetful) == []
    assert Session.open("20261123T034500Z-3f9a1c", SOURCE, {"container_id": CONTAINER}, **lasting).phase == "opened"


def test_an_unknown_session_is_reported(roots: dict[str, str]) -> None:
    with pytest.raises(MigrationError) as caught:
        Session("20261123T034500Z-3f9a1c", **roots)
    assert caught.value.code == "session_unknown"
    with pytest.raises(MigrationError) as caught:
        Session("../x", **roots)
    assert caught.value.code == "invalid_session"


def test_all_sessions_oldest_first_and_nothing_that_is_none(make_session: MakeSession, roots: dict[str, str]) -> None:
    assert Session.all(**roots) == []
    made = [make_session(container=f"{number:064x}").id for number in range(3)]
    state = Path(roots["state_root"])
    # An opening that was cut off before it said what it was about, and things that are not ours.
    (state / "20261123T999999Z-ffffff").mkdir()
    (state / "notes").mkdir()
    (state / "file").write_text("")
    assert [session.id for session in Session.all(**roots)] == made


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "last"), [(SOURCE, "committed"), (SOURCE, "aborted"), (DESTINATION, "run")])
def test_a_closed_session_leaves_three_files_and_no_secret(
    role: str, last: str, make_session: MakeSession, roots: dict[str, str], tmp_path: Path
) -> None:
    session = make_session(role)
    session.decide(DECISIONS[role][0])
    bring_to(session, last)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    for name in ("key", "agent.pyz", "journal.tmp"):
        Path(session.path(name)).write_text("secret")
    Path(session.path("deep", "er")).mkdir(parents=True)
    Path(session.path("deep", "er", "file")).write_text("secret")
    Path(session.path("link")).symlink_to(outside)
    Path(session.memory_path("outbox")).mkdir()
    Path(session.memory_path("outbox", "spec.json")).write_text("secret")
    with session.locked():
        session.close(keep=True)
    assert sorted(os.listdir(session.directory)) == ["decision", "journal", "session.json"]
    assert os.listdir(roots["volatile_root"]) == []
    assert (outside / "file").read_text() == "kept"
    again = Session(session.id, **roots)
    assert again.ended
    assert again.lease_left == 0
    assert again.decision == DECISIONS[role][0]
    assert [entry["phase"] for entry in again.journal] == [*way_to(role, last), "closed"]


def test_a_session_that_is_not_kept_leaves_nothing(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = bring_to(make_session(DESTINATION), "refused")
    with session.locked():
        session.close(keep=False)
    left = [os.path.join(base, name) for base, _directories, names in os.walk(roots["state_root"]) for name in names]
    assert [name for name in left if not name.endswith("/.lock")] == []
    assert os.listdir(roots["volatile_root"]) == []
    assert Session.all(**roots) == []


def test_a_session_cannot_be_closed_in_the_middle(make_session: MakeSession) -> None:
    session = bring_to(make_session(), "freezing")
    with pytest.raises(MigrationError) as caught:
        session.close(keep=True)
    assert caught.value.code == "illegal_transition"
    assert os.path.exists(session.path("session.json"))
    assert session.lease_left > 0


def test_closing_twice_is_fine(make_session: MakeSession) -> None:
    session = bring_to(make_session(), "aborted")
    session.close(keep=True)
    session.close(keep=True)
    assert session.ended


def test_the_summary_is_plain_data_without_places_or_secrets(make_session: MakeSession, roots: dict[str, str]) -> None:
    session = bring_to(make_session(channel_user="ops"), "prepared")
    session.enter("arming", pid=7)
    summary = json.loads(json.dumps(session.summary()))
    assert summary["session"] == session.id
    assert summary["phases"] == ["opened", "prepared", "arming"]
    assert summary["data"]["arming"] == {"pid": 7}
    assert (summary["container_name"], summary["peer"], summary["decision"], summary["ended"]) == (
        "web",
        "beta",
        None,
        False,
    )
    assert roots["state_root"] not in json.dumps(summary)


# -- what it moves ---------------------------------------------------------------------------------------------------


def test_a_record_without_a_kind_is_of_a_container(make_session: MakeSession) -> None:
    """All of the released version are."""
    session = make_session(container_name="web")
    assert "kind" not in session.facts
    assert (session.kind, session.subject_id, session.subject_name) == ("container", CONTAINER, "web")


def test_a_record_of_another_kind_has_its_own_words(roots: dict[str, str]) -> None:
    facts = {"kind": "process", "process_id": "process.4242", "process_name": "worker"}
    session = Session.open("20261123T034500Z-3f9a1c", SOURCE, facts, **roots)
    assert (session.kind, session.subject_id, session.subject_name) == ("process", "process.4242", "worker")
    summary = session.summary()
    assert (summary["process_id"], summary["process_name"]) == ("process.4242", "worker")
    with pytest.raises(MigrationError) as caught:
        Session.open("20261123T034501Z-3f9a1c", SOURCE, facts, **roots)
    assert caught.value.code == "session_busy"
    assert "is at work on this process" in caught.value.message


def test_the_copy_has_an_id_when_it_is_made(make_session: MakeSession) -> None:
    session = make_session(DESTINATION)
    assert session.copy_id == ""
    session.enter("creating")
    session.enter("created", container_id=OTHER_CONTAINER)
    assert session.copy_id == OTHER_CONTAINER
