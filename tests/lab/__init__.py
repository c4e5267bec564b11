# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real hosts on one machine, for tests: systemd-nspawn machines with their own network, systemd and sshd.

    from tests.lab import Lab
    lab = Lab.load()
    lab.power_cut("beta")
    lab.boot("beta")
    print(lab.machine("beta").ssh(["uptime"]).stdout)

See README.md in this directory for the command line and for what this lab cannot show.
"""

from __future__ import annotations

from .api import Lab
from .machine import Machine
from .shell import LabError

__all__ = ["Lab", "LabError", "Machine"]
