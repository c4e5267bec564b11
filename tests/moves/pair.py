# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two hosts of a move."""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.api import Lab
from tests.workloads.host import Host


@dataclass(frozen=True)
class Pair:
    """Two hosts of the lab."""

    lab: Lab
    alpha: Host
    beta: Host

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.alpha, self.beta
