# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unit tests need no host: they get a directory, not the machine; and places and sessions that several of them use."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.helpers.netns import Namespaces, namespaces
from tests.unit.helpers.support import CONTAINER, ROOT

if TYPE_CHECKING:
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
    from tests.unit.helpers.groups import Group
    from tests.unit.helpers.wire import Wire


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a directory of its own, so that a relative path can never reach into the checkout."""
    monkeypatch.chdir(tmp_path)
    # Texts of the system's errors are compared in places.
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TZ", "UTC")


# The collection is imported inside the fixtures: pytest reads this file before tests/conftest.py has made it findable.


def _volatile(path: Path) -> bool:
    from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable

    return durable.filesystem_type(str(path)) in ("tmpfs", "ramfs")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a real disk whose name is short: sockets of ssh lie below it."""
    parent = Path(tempfile.gettempdir())
    if _volatile(parent):
        parent = ROOT / ".cache"
    directory = Path(tempfile.mkdtemp(prefix="lm", dir=parent))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, for what must be refused there."""
    parent = Path("/dev/shm")
    if not parent.is_dir() or not _volatile(parent):
        pytest.skip("/dev/shm is not a tmpfs here")
    directory = Path(tempfile.mkdtemp(prefix="lm", dir=parent))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for sessions, in memory where this machine has one, so that nothing waits for a disk.

    That content is flushed, and when, is seen in test_durable.py by the calls themselves, not by a disk.
    """
    from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable

    monkeypatch.setattr(durable, "_VOLATILE", frozenset())
    directory = Path(tempfile.mkdtemp(prefix="lm", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def roots(quick: Path) -> dict[str, str]:
    """The two roots of a host's sessions, as Session takes them."""
    return {"state_root": str(quick / "state"), "volatile_root": str(quick / "run")}


@pytest.fixture
def host_roots(roots: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, and what does not name its roots finds sessions there too: this process is a host of its own."""
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

    functions: tuple[Any, ...] = (Session.__init__, Session.open, Session.all)
    for function in functions:
        for name, value in roots.items():
            monkeypatch.setitem(getattr(function, "__func__", function).__kwdefaults__, name, value)
    return roots


@pytest.fixture
def session_ids() -> Iterator[str]:
    """Session ids, each later than the one before."""
    return (
        f"20261123T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-3f9a1c" for number in itertools.count(1)
    )


@pytest.fixture
def make_session(roots: dict[str, str], session_ids: Iterator[str]) -> Callable[..., Session]:
    """A function that opens a session: make_session(role="source", container=CONTAINER, **facts)."""
    from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

    def make(role: str = "source", *, container: str = CONTAINER, **facts: Any) -> Session:
        facts = {"container_id": container, "container_name": "web", "peer_name": "beta", **facts}
        return Session.open(next(session_ids), role, facts, **roots)

    return make


@pytest.fixture
def needs_root() -> None:
    """Skip where devices, owners and trusted attributes cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def namespaces_refused() -> str:
    """Why this process may not have mounts and processes of its own; empty when it may."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stderr.strip()


@pytest.fixture
def needs_namespaces(namespaces_refused: str) -> None:
    """Skip where a test cannot have mounts and processes of its own."""
    if os.geteuid() != 0 or namespaces_refused:
        pytest.skip(f"needs root and namespaces: {namespaces_refused or 'not root'}")


@pytest.fixture
def group() -> Iterator[Group]:
    """A cgroup of our own below the one of this process."""
    from tests.unit.helpers.groups import own_group

    with own_group() as found:
        yield found


@pytest.fixture
def init(group: Group, request: pytest.FixtureRequest) -> Iterator[int]:
    """A process that is the first of its PID namespace, as a container's is, in a cgroup of its own."""
    from tests.unit.helpers.groups import first_process

    request.getfixturevalue("needs_namespaces")
    with first_process(group) as pid:
        yield pid


@pytest.fixture
def wire(disk: Path, quick: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """A channel whose other end is on this machine, see wire.py."""
    from tests.unit.helpers.wire import Wire

    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    return Wire(disk, quick, monkeypatch)


@pytest.fixture
def runtime_wire(disk: Path, quick: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The same for a session of the engine `runtime`."""
    from tests.unit.helpers.wire import Wire

    return Wire(disk, quick, monkeypatch, engine="runtime")


@pytest.fixture
def net(needs_namespaces: None) -> Iterator[Namespaces]:  # noqa: ARG001
    """A container's network and its client's."""
    for program in ("nft", "ss", "nsenter", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with namespaces() as made:
        yield made
