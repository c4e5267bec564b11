# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys of a container, by the kernel's list of keyrings."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.livemigrate.criu.plugins.module_utils._host import kernel_keys


def test_keys_of_a_container(tmp_path: Path) -> None:
    """As the kernel lists its keyrings; that of another container and one with no keys count for nothing."""
    keys = tmp_path / "keys"
    keys.write_text(
        f"13ed18f4 I--Q---    10 perm 3f1b0000     0     0 keyring   _ses.{'a' * 64}: 2\n"
        f"16b2da20 I--Q---     7 perm 3f1b0000     0     0 keyring   _ses.{'b' * 64}: empty\n"
        "1ad1ec7f I--Q---     1 perm 1f3f0000     0 65534 keyring   _uid_ses.0: 1\n"
    )
    assert [kernel_keys.count(letter * 64, str(keys)) for letter in "abc"] == [2, 0, 0]
    assert kernel_keys.count("a" * 64, str(tmp_path / "none")) == 0
