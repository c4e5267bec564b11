# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The session in hosts/ has settings of its own: pytest-ansible is let in there and nowhere else."""

from __future__ import annotations

collect_ignore = ["hosts"]
