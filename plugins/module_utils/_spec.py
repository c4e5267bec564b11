# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A container's specification: what ``docker inspect`` says on the source, and what re-creates it on the destination.

Pure functions over plain data: nothing here asks an engine. This module is the door; behind it are

* _spec_fields.py: THE TABLE. What happens with each field, and why;
* _spec_create.py: the creation body and the calls after it;
* _spec_mounts.py, _spec_networks.py: mounts, networks, published ports;
* _rules_container.py: what cannot be moved, and what should be said before;
* _spec_view.py: a view without secrets;
* _spec_compare.py: the comparison of both sides.
"""

from __future__ import annotations

from ansible_collections.livemigrate.criu.plugins.module_utils._finding import Finding
from ansible_collections.livemigrate.criu.plugins.module_utils._rules_container import (
    refusals,
    spec_refusals,
    state_refusals,
    warnings,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_compare import Difference, compare, unexpected
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_create import (
    ConnectRequest,
    CreationSpec,
    EndpointPlan,
    Note,
    creation_parameters,
    endpoint_plan,
    restart_policy,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_mounts import Mount, mounts
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_networks import (
    Network,
    PublishedPort,
    networks,
    published_ports,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._spec_view import redact

__all__ = [
    "ConnectRequest",
    "CreationSpec",
    "Difference",
    "EndpointPlan",
    "Finding",
    "Mount",
    "Network",
    "Note",
    "PublishedPort",
    "compare",
    "creation_parameters",
    "endpoint_plan",
    "mounts",
    "networks",
    "published_ports",
    "redact",
    "refusals",
    "restart_policy",
    "spec_refusals",
    "state_refusals",
    "unexpected",
    "warnings",
]
