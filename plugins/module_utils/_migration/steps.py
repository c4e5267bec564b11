# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What modules do with a session that is open: each step by its name.

The session's agent runs them (``_migration/agent.py``), asked by ``_session/step_call.py``. Each works under the session's lock.
Parameters and results are those of the module, plain data.
"""

from __future__ import annotations

import time
import typing as t

from .._channel import client as channel_client
from .._docker.engine import Engine
from .._engines import by_name as engines
from .._session.session import Session
from .._subjects.container import creation
from . import destination, freeze, handover, source, transfer

Params = t.Mapping[str, t.Any]
Result = dict[str, t.Any]


# -- on the source ------------------------------------------------------------------------------------------------


def _connected(session: Session, params: Params) -> Result:
    channel_client.set_peer(session, params["peer"])
    source.probe(session)
    transfer.send_spec(session)
    return {"changed": True}


def _sent(send: t.Callable[[], int]) -> Result:
    started = time.monotonic()
    return {"changed": True, "bytes": send(), "seconds": time.monotonic() - started}


def _checkpoint_sent(session: Session, _params: Params) -> Result:
    engine = Engine()
    try:
        return _sent(lambda: source.send_checkpoint(session, engine))
    except BaseException:
        # The container is frozen; it goes on here and now, not when the playbook gets to its rescue.
        source.settle(session, engine)
        raise


def _content_sent(session: Session, params: Params) -> Result:
    engine = Engine()
    result = _sent(lambda: transfer.send_content(session, engine, running=True))
    # In the same step, because nothing is left to be done before the freeze: each step costs a second of Ansible's.
    return {**result, "warnings": source.prepared(session, engine, close_connections=params["close_connections"])}


def _dumped(session: Session, _params: Params) -> Result:
    engine = Engine()
    engines.require(session, engines.API)
    try:
        freeze.freeze(session, engine, lambda: source.look_last(session))
        return {"changed": True, **source.dump(session, engine)}
    except BaseException:
        # Every moment counts for a frozen service: it goes on here and now, not when the playbook gets to its rescue.
        source.settle(session, engine)
        raise


def _handed_over(session: Session, _params: Params) -> Result:
    return {"changed": True, **handover.hand_over(session, Engine())}


def _go(session: Session, _params: Params) -> Result:
    source.go(session)
    return {"changed": True}


def _committed(session: Session, params: Params) -> Result:
    # What came of it the module reads in the journal, as it does of a session that the watchdog has settled.
    source.settle(session, Engine(), timeout=params["wait"])
    return {"changed": True}


# -- on the destination -------------------------------------------------------------------------------------------


def _created(session: Session, params: Params) -> Result:
    engine = Engine()
    image = creation.image_state(session, engine)
    if image == "missing":
        return {"changed": False, "image": image}
    return {"changed": True, "image": image, **creation.create(session, engine, overwrite=params["overwrite_data"])}


def _started(session: Session, _params: Params) -> Result:
    return {"changed": True, **destination.start(session, Engine())}


_STEPS: dict[str, t.Callable[[Session, Params], Result]] = {
    "connected": _connected,
    "image_sent": lambda session, _params: _sent(lambda: transfer.send_image(session, Engine())),
    "content_sent": _content_sent,
    "dumped": _dumped,
    "checkpoint_sent": _checkpoint_sent,
    "handed_over": _handed_over,
    "go": _go,
    "committed": _committed,
    "created": _created,
    "started": _started,
}


def run(name: str, session: Session, params: Params) -> Result:
    """Do a step.

    :param name: a key of the table above.
    :param params: of the module, as far as the step reads them.
    :returns: what the module returns; ``warnings`` where there are any.
    :raises MigrationError: as the step does; ``session_locked``.
    """
    with session.locked():
        return _STEPS[name](session, params)
