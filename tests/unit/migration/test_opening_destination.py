# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The opening of a destination's half, cut off at any moment: whoever was let in is shut out again by somebody."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import destination
from ansible_collections.livemigrate.criu.plugins.module_utils._session import watchdog
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import CONTAINER

SESSION = "20260101T000000Z-abcdef"


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
