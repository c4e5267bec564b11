# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What every module of the collection says of itself; a module overrides the support it has."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and tell what it would do without changing the host.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: none
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""

    # For modules that only tell: named before the one above, because what is named first counts.
    READ_ONLY = r"""
options: {}
attributes:
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
"""
