# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The keys by which this host's SSH daemon is known. Apart from the channel's server, of which the preflight needs no more."""

from __future__ import annotations

import contextlib
import os


def public() -> list[str]:
    """The public host keys of this host's sshd, as lines ``kind blob``."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir("/etc/ssh")):
            if name.startswith("ssh_host_") and name.endswith("_key.pub"):
                with open(os.path.join("/etc/ssh", name), encoding="utf-8") as handle:
                    found.append(" ".join(handle.read().split()[:2]))
    return found
