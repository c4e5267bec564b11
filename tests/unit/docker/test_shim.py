# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host tells of the runtime that holds restored containers, and that all say the same of where it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.livemigrate.criu.plugins.module_utils._docker import shim
from tests.conftest import ROOT

ROLE = ROOT / "roles" / "checkpointing"
FILES = ROLE / "files"


def test_registered() -> None:
    path, action = str(FILES / "livemigrate-runc"), str(FILES / "livemigrate-criu-action")
    info = {"Runtimes": {"runc": {"path": "runc"}, shim.RUNTIME: {"path": path}}}
    assert shim.shim_facts(info, action) == {"registered": True, "path": path, "installed": True, "version": "2"}
    # Half of it is nothing: without its script nothing would be held.
    facts = shim.shim_facts(info, action + "-gone")
    assert (facts["registered"], facts["installed"]) == (False, False)


@pytest.mark.parametrize("info", [{}, {"Runtimes": None}, {"Runtimes": {"runc": {"path": "runc"}}}])
def test_not_registered(info: dict[str, object]) -> None:
    facts = shim.shim_facts(info)
    assert facts["registered"] is False
    assert facts["path"] == shim.SHIM


def test_file_that_is_no_shim(tmp_path: Path) -> None:
    other = tmp_path / "runc"
    other.write_text("#!/bin/sh\n")
    facts = shim.shim_facts({"Runtimes": {shim.RUNTIME: {"path": str(other)}}}, str(other))
    assert (facts["registered"], facts["version"]) == (False, None)


def test_places_agree() -> None:
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert variables["__checkpointing_runtime_name"] == shim.RUNTIME
    assert variables["__checkpointing_runtime_directory"] == shim.DIRECTORY
    assert sorted(variables["__checkpointing_runtime_files"]) == sorted(path.name for path in FILES.iterdir())
    text = (FILES / "livemigrate-runc").read_text()
    assert re.findall(r"^action=(\S+)$", text, re.MULTILINE) == [shim.ACTION_SCRIPT]
    script = (FILES / "livemigrate-criu-action").read_text()
    for name in ("works", "cgroups", "proc"):
        (mine,) = re.findall(rf"^{name}=(\S+)$", text, re.MULTILINE)
        assert re.findall(rf"^{name}=(\S+)$", script, re.MULTILINE) == [mine]
