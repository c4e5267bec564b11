# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's code on its way to a host: it arrives as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._session import agent_code
from tests.unit.helpers.support import MODULE_UTILS


def _name(path: Path) -> str:
    """``_host.tasks`` for the file of that util."""
    return ".".join(path.relative_to(MODULE_UTILS).with_suffix("").parts)


def test_it_is_sent_as_it_is() -> None:
    """And as the same bytes wherever it comes from, so that a host keeps one of a version."""
    sources = agent_code.of_directory(str(MODULE_UTILS))
    packed = agent_code.pack(sources)
    assert agent_code.unpack(packed) == sources
    assert agent_code.pack(dict(reversed(sources.items()))) == packed
    assert {_name(path) for path in MODULE_UTILS.rglob("*.py") if path.name != "__init__.py"} == set(sources)


@pytest.mark.parametrize("packed", ["", "not base64!", "bm8gemlw"])
def test_what_is_no_code_is_reported(packed: str) -> None:
    with pytest.raises(ValueError, match=r"base64|zip|encoded|padding"):
        agent_code.unpack(packed)
