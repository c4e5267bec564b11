# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""How a half of a session is opened for a module, by the agent that then acts for that session.

Parameters and results are those of the module ``migration_session``, plain data. See ``_session/step_call.py`` for why an agent
does it.
"""

from __future__ import annotations

import typing as t

from .._base import valid_names
from .._base.errors import MigrationError
from .._docker.engine import Engine
from .._session.phases import SOURCE
from .._subjects.container import examine
from . import destination, source

Params = t.Mapping[str, t.Any]
Result = dict[str, t.Any]


def open_half(params: Params, agent: str, *, check_mode: bool) -> Result:
    """Open a half.

    :param params: of the module, as far as the half needs them.
    :param agent: the file of the agent that runs this; the session gets it.
    :raises MigrationError: ``missing_arguments``; as ``source.open_session`` and ``destination.open_session``.
    """
    opened = _open_source if params["role"] == SOURCE else _open_destination
    return {"changed": True, **opened(params, agent, check_mode)}


def _open_source(params: Params, agent: str, check_mode: bool) -> Result:
    engine = Engine()
    if check_mode:
        inspect = examine.require_movable(engine, params["container"], ignore_rules=params["ignore_rules"])
        return {"container_id": inspect["Id"], "container_name": inspect["Name"].lstrip("/")}
    session, public_key = source.open_session(
        engine,
        params["container"],
        peer_name=params["peer_name"] or "the destination",
        engine_name=params["engine"],
        bind_mounts=params["bind_mounts"],
        ignore_rules=params["ignore_rules"],
        agent=agent,
    )
    return {
        "session": session.id,
        "container_id": session.facts["container_id"],
        "container_name": session.facts["container_name"],
        "ancestry": session.facts["ancestry"],
        "public_key": public_key,
    }


def _open_destination(params: Params, agent: str, check_mode: bool) -> Result:
    missing = [key for key in ("session", "container_id", "channel_user", "public_key") if not params[key]]
    if missing:
        raise MigrationError(
            "missing_arguments", f"To open the destination's half, {', '.join(missing)} must be given."
        )
    valid_names.session_id(params["session"])
    facts = {key: params[key] for key in ("container_id", "peer_name", "ancestry", "engine")}
    facts["container_name"] = valid_names.container_name(params["container"])
    if check_mode:
        return {"session": params["session"], "host_keys": []}
    session, host_keys = destination.open_session(
        params["session"],
        facts,
        channel_user=params["channel_user"],
        public_key=params["public_key"],
        agent=agent,
    )
    return {"session": session.id, "host_keys": host_keys}
