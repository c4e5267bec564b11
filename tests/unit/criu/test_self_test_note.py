# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was noted of a try of CRIU: it counts for what it depended on, and what is no note is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import self_test_note


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(self_test_note, "DIRECTORY", str(tmp_path))
    return tmp_path / "self-test.json"


def test_a_note_counts_for_its_key(place: Path) -> None:
    assert self_test_note.read() is None
    self_test_note.write("criu 4.2", {"works": True})
    assert place.exists()
    assert self_test_note.read("criu 4.2") == self_test_note.read() == {"works": True}
    assert self_test_note.read("criu 4.1") is None
    self_test_note.write("criu 4.1", {"works": False})
    assert self_test_note.read("criu 4.2") is None
    for _again in range(2):
        self_test_note.forget()
        assert self_test_note.read() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"key": "k"}', '{"told": {}}', '{"key": "k", "told": 7}', "\xff"]
)
def test_what_is_no_note_is_none(text: str, place: Path) -> None:
    place.write_bytes(text.encode("latin-1"))
    assert self_test_note.read("k") is None
