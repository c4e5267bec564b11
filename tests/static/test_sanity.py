# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-test sanity: every test, no ignore file, in a copy whose path ansible-test accepts."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from pathlib import Path

from tests.conftest import ROOT, RunTool

# ansible-test fetches this program from a host of its own before it makes its first virtual environment. A file of
# the same name in its cache is the way out that its own message offers; this one does the same with what Python has.
GET_PIP = """\
import subprocess
import sys

# A process of its own: ensurepip changes the environment it runs in.
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
raise SystemExit(subprocess.call([sys.executable, "-m", "pip", "install", *words]))
"""
# The pip of ansible-core 2.19 and 2.21, as their caches spell it.
PIP_VERSIONS = ("24_2", "25_2")


def private_home() -> Path:
    """Where ansible-test keeps its virtual environments: shared by all checkouts, apart from the user's own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "livemigrate-sanity"
    programs = home / ".ansible" / "test" / "cache"
    programs.mkdir(parents=True, exist_ok=True)
    for version in PIP_VERSIONS:
        (programs / f"get_pip_{version}.py").write_text(GET_PIP)
    return home


def test_ansible_test_sanity(run_tool: RunTool, repository_files: list[Path], tmp_path: Path) -> None:
    assert not [path for path in repository_files if path.match("tests/sanity/ignore*")]
    # A link to the checkout would be followed and refused.
    tree = tmp_path / "ansible_collections" / "livemigrate" / "criu"
    for path in repository_files:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tree / path, follow_symlinks=False)
    home = private_home()
    command = [
        "ansible-test",
        "sanity",
        "--python",
        f"{sys.version_info.major}.{sys.version_info.minor}",
        "--color",
        "no",
    ]
    environment = {"HOME": str(home), "ANSIBLE_HOME": str(home / ".ansible")}
    with (home / "lock").open("w") as lock:
        # Two sessions would make the same virtual environment at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Apart, so that the output of the tests is theirs alone.
        run_tool([*command, "--prime-venvs"], name="ansible-test-venvs", cwd=tree, env=environment)
        output = run_tool(command, name="ansible-test-sanity", cwd=tree, env=environment)
    # A test that was left out is not a test that passed.
    ran = set(re.findall(r'^Running sanity test "([a-z0-9-]+)"', output, re.MULTILINE))
    assert ran >= {"compile", "import", "pylint", "shellcheck", "validate-modules"}
    assert "kipping sanity test" not in output, output
