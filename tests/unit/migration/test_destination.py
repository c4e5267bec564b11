# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A destination's half: who may come in and when, and in which order a failure is decided, told and tidied up."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._criu import images as criu_images
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.images import Manifest
from ansible_collections.livemigrate.criu.plugins.module_utils._engines import runtime as engine_runtime
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.connections import Arrangement
from ansible_collections.livemigrate.criu.plugins.module_utils._engines.shim_files import Mark
from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination
from ansible_collections.livemigrate.criu.plugins.module_utils._network.addresses import NO_ADDRESSES
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION, REFUSED
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import keeper
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container.copy import Copy
from tests.unit.helpers.disks import with_read_only
from tests.unit.helpers.engine_socket import answering_engine
from tests.unit.helpers.groups import Group, Shim
from tests.unit.helpers.support import CONTAINER, OTHER_CONTAINER

MakeSession = Callable[..., Session]
SESSION = "20260101T000000Z-abcdef"

MANIFEST: Manifest = {
    "inventory.img": {"size": 1, "sha256": "a" * 64},
    "pstree.img": {"size": 1, "sha256": "b" * 64},
}


@pytest.fixture
def session(make_session: MakeSession, tmp_path: Path) -> Session:
    """A destination's session whose copy is created and marked."""
    (tmp_path / "docker" / "containers" / OTHER_CONTAINER).mkdir(parents=True)
    found = make_session(DESTINATION, engine="runtime", data_root=str(tmp_path / "docker"))
    nothing = dict.fromkeys(("volumes", "networks", "empty_directories", "made_directories"), ())
    found.enter("creating", name="web-incoming", **nothing)
    engine_runtime.receive(found, OTHER_CONTAINER)
    found.enter("created", container_id=OTHER_CONTAINER)
    return found


@pytest.fixture(params=["docker-{}.scope", "{}"])
def copy(group: Group, request: pytest.FixtureRequest) -> Group:
    """The cgroup of the copy, as each of runc's drivers names it, below a parent that nobody expects."""
    path = Path(group.path) / "unusual" / "parent" / request.param.format(OTHER_CONTAINER)
    path.mkdir(parents=True)
    return Group(str(path))


@pytest.fixture
def held(session: Session, copy: Group, init: int) -> Iterator[Mark]:
    """A shim restores and holds the copy as soon as its checkpoint is there."""
    copy.put(init)
    mark = Mark.of(session)
    with Shim(mark, copy, init):
        yield mark


class Witness:
    """An engine that is asked for, notes what is so at that moment, and does not answer."""

    def __init__(self, session: Session, copy: Group, printed: io.BytesIO) -> None:
        self._session, self._copy, self._printed = session, copy, printed
        self.seen: list[tuple[str | None, bool, list[dict[str, Any]]]] = []

    def __call__(self, **_settings: Any) -> Any:
        reported = [json.loads(line) for line in self._printed.getvalue().splitlines()]
        self.seen.append((self._session.decision, self._copy.populated, reported))
        raise MigrationError("engine_unreachable", "The Docker engine does not answer.")


@pytest.mark.usefixtures("held")
def test_a_failed_hold_is_reported_when_it_is_decided_and_the_copy_dead_and_before_the_engine_is_asked(
    session: Session, copy: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source stands still until it is told; and what it is told must hold."""
    network = Arrangement(False, False, (), NO_ADDRESSES).as_data()
    copy_of = {"manifest": {}, "fingerprints": {"1": "0" * 64}, "network": network, "surroundings": {}}
    asked = {"hold": copy_of}
    question = io.BytesIO(json.dumps(asked).encode() + b"\n")
    printed = io.BytesIO()
    engine = Witness(session, copy, printed)
    monkeypatch.setattr(keeper, "Engine", engine)
    monkeypatch.setattr(criu_images, "compare", lambda received, sent: None)
    destination.serve_handover(Copy(session), question, printed)
    [(decision, populated, reported)] = engine.seen
    assert (decision, populated) == (REFUSED, False)
    assert [next(iter(message)) for message in reported] == ["ready", "failure"]
    assert reported[1]["failure"]["code"] == "not_a_restore"
    assert len(printed.getvalue().splitlines()) == 2, "it is told once"
    # What is left to be done is done by the watchdog, or when the source says bye.
    assert session.phase == "starting"


def test_the_first_failure_is_the_one_that_is_reported(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(**_settings: Any) -> Any:
        raise MigrationError("engine_unreachable", "The Docker engine does not answer.")

    monkeypatch.setattr(keeper, "Engine", engine)
    with pytest.raises(MigrationError) as caught, destination._or_refused(Copy(session)):
        raise MigrationError("restore_failed", "CRIU says no.", criu=["Error"])
    assert (caught.value.code, caught.value.details) == ("restore_failed", {"criu": ["Error"]})
    assert caught.value.message.startswith("CRIU says no. ")
    assert "The Docker engine does not answer." in caught.value.message
    assert session.decision == REFUSED


def test_a_restore_under_way_is_killed_wherever_its_cgroup_lies(session: Session, copy: Group, init: int) -> None:
    """CRIU and the tasks it makes are in the container's cgroup from the first of its stages on."""
    copy.put(init)
    mark = Mark.of(session)
    Path(mark.path("restoring")).write_text(f"{init}\n{copy.path}\n")
    session.decide(REFUSED)
    destination._end_copy(Copy(session))
    assert not copy.populated
    assert os.path.exists(mark.path("refused"))


@pytest.mark.usefixtures("host_roots")
def test_nobody_is_let_in_before_somebody_looks_after_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between the two would leave a key, and a sudo rule, that nobody takes away."""
    done: list[str] = []
    for module, name in ((watchdog, "arm"), (channel_server, "authorise"), (channel_server, "revoke")):
        monkeypatch.setattr(module, name, lambda *_arguments, _name=name: done.append(_name))
    # It would be a mount of its own.
    monkeypatch.setattr(Session, "keep_out_of_swap", lambda _session: None)
    agent = tmp_path / "agent.pyz"
    agent.write_bytes(b"")
    facts = {"container_id": CONTAINER, "container_name": "web", "kind": "container", "data_root": str(tmp_path)}
    destination.open_session(SESSION, facts, channel_user="root", public_key="ssh-ed25519 AAAA", agent=str(agent))
    assert done == ["arm", "authorise"]


# -- a disk that takes no change -----------------------------------------------------------------------------------------


def _held(session: Session, copy: Group, init: int) -> None:
    copy.put(init)
    session.enter("starting")
    copy.freeze()
    Path(Mark.of(session).path("held")).write_text(f"{init}\n{copy.path}\n")
    session.enter("held")
    with session.locked():
        pass


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("what", ["run", "decision"])
def test_a_copy_that_cannot_be_run_for_the_disk_is_refused(
    what: str,
    session: Session,
    copy: Group,
    init: int,
    roots: dict[str, str],
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The source waits for that, and stands still meanwhile."""
    _held(session, copy, init)
    answer = {"run": destination.run, "decision": destination.make_decision}[what]
    with answering_engine(disk, monkeypatch):
        said = with_read_only(roots["state_root"], lambda: answer(Copy(session)))
    assert said["decision"] == REFUSED
    if what == "run":
        assert "Read-only file system" in said["reason"]
    assert not copy.populated
    # It can never be run any more, whatever the disk takes by now.
    assert destination.run(Copy(Session(session.id, **roots)))["decision"] == REFUSED


@pytest.mark.usefixtures("needs_namespaces")
def test_a_refusal_that_was_on_no_disk_is_made_again_after_a_reboot(
    session: Session, copy: Group, init: int, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _held(session, copy, init)
    assert with_read_only(roots["state_root"], lambda: destination.make_decision(Copy(session)))["decision"] == REFUSED
    shutil.rmtree(roots["volatile_root"])
    monkeypatch.setattr(boot, "boot_identity", lambda: "another boot")
    again = Session(session.id, **roots)
    assert (again.decision, again.phase) == (None, "held")
    assert destination.run(Copy(again))["decision"] == REFUSED
    assert again.decision == REFUSED


def test_nothing_is_restored_on_a_destination_that_was_rebooted(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have given out a REFUSED that was on no disk."""
    monkeypatch.setattr(boot, "boot_identity", lambda: "another boot")
    answers = io.BytesIO()
    question = io.BytesIO(json.dumps({"hold": {}}).encode() + b"\n")
    destination.serve_handover(Copy(session), question, answers)
    assert b"already_refused" in answers.getvalue()
    assert session.phase == "created"
