# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the container of a try of CRIU is made of."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import self_test_bundle


def test_an_interpreter_elsewhere_is_brought_along(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib64").symlink_to("usr/lib64")
    links, directories = self_test_bundle.programs("/usr/bin/python3.13", str(tmp_path))
    assert links == {"bin": "usr/bin", "lib64": "usr/lib64"}
    assert directories == ["/usr"]
    assert len(self_test_bundle.programs("/opt/python/bin/python3", str(tmp_path))[1]) == 2


def test_its_config_is_json(tmp_path: Path) -> None:
    config = self_test_bundle.write(str(tmp_path), "livemigrate-self-test-x.service")
    assert json.loads(json.dumps(config)) == config
    assert config["linux"]["cgroupsPath"] == "/system.slice/livemigrate-self-test-x.service/container"
