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
from .._session.phases import SOURCE
from .._session.session import FIRST_KIND, id_key, name_key
from .._subjects import by_kind
from .._subjects.subject import Kind
from . import destination, source

Params = t.Mapping[str, t.Any]
Result = dict[str, t.Any]


def open_half(params: Params, agent: str, *, check_mode: bool) -> Result:
    """Open a half.

    :param params: of the module, as far as the half needs them; ``kind`` where it is not the first one.
    :param agent: the file of the agent that runs this; the session gets it.
    :raises MigrationError: ``missing_arguments``; as ``source.open_session`` and ``destination.open_session``.
    """
    kind = by_kind.named(params.get("kind") or FIRST_KIND)
    opened = _open_source if params["role"] == SOURCE else _open_destination
    return {"changed": True, **opened(kind, params, agent, check_mode)}


def _open_source(kind: Kind, params: Params, agent: str, check_mode: bool) -> Result:
    if check_mode:
        found = source.find(kind, params, arrived=False)
        return {id_key(kind.noun): found.id, name_key(kind.noun): found.name}
    session, public_key = source.open_session(kind, params, agent=agent)
    return {
        "session": session.id,
        id_key(kind.noun): session.subject_id,
        name_key(kind.noun): session.subject_name,
        "ancestry": session.facts["ancestry"],
        "public_key": public_key,
    }


def _open_destination(kind: Kind, params: Params, agent: str, check_mode: bool) -> Result:
    missing = [key for key in ("session", id_key(kind.noun), "channel_user", "public_key") if not params[key]]
    if missing:
        raise MigrationError(
            "missing_arguments", f"To open the destination's half, {', '.join(missing)} must be given."
        )
    valid_names.session_id(params["session"])
    valid_names.subject_name(kind.noun, params[kind.noun])
    if check_mode:
        return {"session": params["session"], "host_keys": []}
    session, host_keys = destination.open_session(
        params["session"],
        {
            **kind.facts_of_copy(params),
            "kind": kind.noun,
            "peer_name": params["peer_name"],
            "ancestry": params["ancestry"],
        },
        channel_user=params["channel_user"],
        public_key=params["public_key"],
        agent=agent,
    )
    return {"session": session.id, "host_keys": host_keys}
