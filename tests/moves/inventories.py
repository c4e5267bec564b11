# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories of the lab's hosts in other groups than the lab's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.lab.api import Lab
from tests.workloads.host import Host


def write_inventory(path: Path, **groups: list[str]) -> str:
    """An inventory of hosts of the lab in these groups; one that the lab does not have gets no address."""
    lab = Lab.load()
    known = yaml.safe_load((lab.inventory / "hosts.yml").read_text())["all"]["vars"]
    addresses = {machine.name: machine.address for machine in lab.machines()}
    children = {
        group: {
            "hosts": {name: {**known, "ansible_host": addresses[name]} if name in addresses else {} for name in names}
        }
        for group, names in groups.items()
    }
    path.write_text(yaml.safe_dump({"all": {"children": children}}))
    return str(path)


def of_all(directory: Path, hosts: Sequence[Host]) -> str:
    """An inventory for recover.yml."""
    return write_inventory(directory / "all.yml", source=[host.name for host in hosts], destination=[])
