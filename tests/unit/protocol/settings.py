# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings in which the whole protocol is explored. Power cuts are left out where they add states and no new question."""

from __future__ import annotations

from tests.unit.protocol.states import Setting

SETTINGS = {
    "crashes and lost messages": Setting(),
    "dockerd without live-restore": Setting(live_restore=False),
    "dockerd hangs": Setting(
        dockerd_hangs=True, destination_dockerd_hangs=True, source_power_cuts=False, destination_power_cuts=False
    ),
    "people use docker on both": Setting(people=True, destination_power_cuts=False),
    "somebody has it started on the source": Setting(supervisor=True, source_power_cuts=False),
    "the key is lost": Setting(key_loss=True, operator=True, source_power_cuts=False),
    "the destination is lost": Setting(destination_dies=True, operator=True),
    "the key is lost and dockerd hangs": Setting(
        key_loss=True, operator=True, dockerd_hangs=True, source_power_cuts=False, destination_power_cuts=False
    ),
    "engine api": Setting(engine="api"),
    "engine api, dockerd without live-restore": Setting(engine="api", live_restore=False, source_power_cuts=False),
    "engine api, dockerd hangs": Setting(
        engine="api", dockerd_hangs=True, live_restore=False, source_power_cuts=False, destination_power_cuts=False
    ),
    "the disk of the source fails": Setting(source_disk_fails=True, destination_power_cuts=False),
    "the disk of the destination fails": Setting(destination_disk_fails=True, source_power_cuts=False),
    "the disk of the source fails and is mended": Setting(
        source_disk_fails=True, disks_are_mended=True, source_power_cuts=False, destination_power_cuts=False
    ),
    "the disk of the destination fails and is mended": Setting(
        destination_disk_fails=True, disks_are_mended=True, source_power_cuts=False
    ),
    "engine api, the disk of the source fails": Setting(
        engine="api", source_disk_fails=True, destination_power_cuts=False
    ),
    "engine api, the disk of the destination fails": Setting(
        engine="api", destination_disk_fails=True, disks_are_mended=True, source_power_cuts=False
    ),
}
