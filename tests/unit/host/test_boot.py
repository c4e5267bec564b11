# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tells a start of a host from the one before it: it stays as long as the host runs, and is its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import boot
from tests.conftest import ROOT
from tests.unit.helpers.support import PACKAGE


def test_it_is_the_kernel_s_and_the_first_process() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot.boot_id())
    assert re.fullmatch(rf"{boot.boot_id()}/\d+", boot.boot_identity())
    assert boot.boot_identity() == boot.boot_identity()


@pytest.mark.skipif(not os.path.exists("/etc/machine-id"), reason="this machine has no id")
def test_two_hosts_of_one_kernel_are_two() -> None:
    assert boot.host_identity().endswith(f"/{boot.boot_identity()}")
    assert len(boot.host_identity().partition("/")[0]) >= 32


@pytest.mark.usefixtures("needs_namespaces")
def test_a_host_that_shares_the_kernel_and_has_started_later_is_another_start() -> None:
    """As a system container has it: the boot id is the same, the first process is not."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / '.tree')!r})\n"
        f"from {PACKAGE}._host import boot; print(boot.boot_id(), boot.boot_identity())"
    )
    argv = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    kernel, identity = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert kernel == boot.boot_id()
    assert identity != boot.boot_identity()
